"""The findings of the studies: gathered from run folders, judged, and written down.

>>> found = gather(named("placement"), "cpu", Path("runs/placement-cpu"))   # doctest: +SKIP
>>> put(Path("docs/results.md"), found)                                     # doctest: +SKIP

After a change of what is said of findings: `put(page, *read(page.parent / "results"))`.
"""

from __future__ import annotations

from groundup.report.studies.figures import pictures
from groundup.report.studies.findings import About, ArmFindings, Findings, RunFindings
from groundup.report.studies.gathering import gather
from groundup.report.studies.page import check, put, read
from groundup.report.studies.section import section
from groundup.report.studies.verdicts import tally, verdicts

__all__ = [
    "About",
    "ArmFindings",
    "Findings",
    "RunFindings",
    "check",
    "gather",
    "pictures",
    "put",
    "read",
    "section",
    "tally",
    "verdicts",
]
