"""The page that holds the studies' sections, between markers; whatever else it says stays.

Beside it, in results/, lie the findings (JSON) and the figures. All that stands between markers is
a function of the findings, so that the page can be checked against them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from groundup._atomic import atomic_write
from groundup.experiment.studies import NAMES, SCALES
from groundup.report.studies.figures import pictures
from groundup.report.studies.findings import Findings
from groundup.report.studies.section import heading, section
from groundup.report.studies.verdicts import tally, verdicts

__all__ = ["check", "put", "read", "written"]

FOLDER = "results"
_SUMMARY = "groundup reproduce"
_END = "<!-- end -->"
_NEW = f"# Results\n\n<!-- {_SUMMARY} -->\n{_END}\n"
_MARKER = re.compile(r"^<!-- (groundup reproduce(?: \S+ --scale \S+)?|end) -->$", re.MULTILINE)


def put(page: Path, *found: Findings) -> None:
    """Write the findings and their figures beside a page, and its sections anew.

    Args:
        page: a Markdown file with markers, begun if it is not there; its folder gets results/.
        found: findings, each in the place of what is there of its study and scale.

    Raises:
        ValueError: if the page has no markers or damaged ones, or a section whose findings are not
            there. Nothing is written then.
    """
    check(page, *found)
    folder = page.parent / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for one in found:
        shown = {picture.file: picture.png() for picture in pictures(one)}
        for name, content in shown.items():
            atomic_write(folder / name, content)
        for path in (folder / f"{one.name}.png", *folder.glob(f"{one.name}-*.png")):
            if path.name not in shown:  # of findings before these
                path.unlink(missing_ok=True)
        atomic_write(folder / f"{one.name}.json", one.to_json().encode())
    # Only now: another study may have written its own meanwhile.
    atomic_write(page, check(page).encode())


def check(page: Path, *found: Findings) -> str:
    """What `put` would write as the page; nothing is written.

    Raises:
        ValueError: as `put`.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else _NEW
    known = {one.name: one for one in (*read(page.parent / FOLDER), *found)}
    return written(text, list(known.values()))


def read(folder: Path) -> list[Findings]:
    """The findings in a folder, in the order of the studies and scales.

    Raises:
        ValueError: if a file is damaged or of no known study, naming it.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Findings.from_json(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return sorted(found, key=_order)


def written(text: str, found: Sequence[Findings]) -> str:
    """The text of a page with the summary and the sections of `found` between its markers.

    A section that the page lacks is added after those that come before it in the order of the
    studies, the first one after the summary.

    Raises:
        ValueError: as `put`.
    """
    blocks = _blocks(text)
    ordered = sorted(found, key=_order)
    names = [_named(one) for one in ordered]
    if unknown := [name for name in blocks if name not in (_SUMMARY, *names)]:
        raise ValueError(
            f"the page has a section {unknown[0]!r}, but its findings are not in {FOLDER}/: put "
            "them there, or remove the section with its markers"
        )
    contents = {_SUMMARY: _summary(ordered)}
    contents |= {
        name: section(one, pictures(one)) for name, one in zip(names, ordered, strict=True)
    }
    parts, at = [], 0
    new = _following(contents, blocks)
    for name, (begin, end) in blocks.items():
        here = [_block(one, contents[one]) for one in (name, *new[name])]
        parts += [text[at:begin], "\n\n".join(here)]
        at = end
    return "".join([*parts, text[at:]])


def _following(
    contents: dict[str, str], blocks: dict[str, tuple[int, int]]
) -> dict[str, list[str]]:
    """For each block of the page the new ones that come after it."""
    follows: dict[str, list[str]] = {name: [] for name in blocks}
    last = _SUMMARY
    for name in contents:
        if name in blocks:
            last = name
        else:
            follows[last].append(name)
    return follows


def _block(name: str, content: str) -> str:
    return f"<!-- {name} -->\n{content}{_END}"


def _blocks(text: str) -> dict[str, tuple[int, int]]:
    """Where each block begins and ends, its markers included."""
    blocks: dict[str, tuple[int, int]] = {}
    opened: re.Match[str] | None = None
    for marker in _MARKER.finditer(text):
        line = text.count("\n", 0, marker.start()) + 1
        if (marker[1] == "end") == (opened is None):
            raise ValueError(f"line {line} of the page: {marker[0]} without its counterpart")
        if opened is None:
            opened = marker
        elif opened[1] in blocks:
            raise ValueError(f"line {line} of the page: a second section {opened[1]!r}")
        else:
            blocks[opened[1]] = (opened.start(), marker.end())
            opened = None
    if opened is not None:
        raise ValueError(f"the page ends within {opened[0]}: {_END} is missing")
    if _SUMMARY not in blocks:
        raise ValueError(f"the page has no markers: <!-- {_SUMMARY} --> and {_END}, a line each")
    return blocks


def _named(found: Findings) -> str:
    return f"{_SUMMARY} {found.study.name} --scale {found.scale}"


def _order(found: Findings) -> tuple[int, str, int]:
    name = found.study.name
    known = NAMES.index(name) if name in NAMES else len(NAMES)
    return known, name, SCALES.index(found.scale)


def _summary(found: Sequence[Findings]) -> str:
    if not found:
        return "No study has been run yet.\n"
    rows = ["| study | scale | runs | verdicts |", "| --- | --- | --- | --- |"]
    for one in found:
        link = f"[{one.study.title}](#{_anchor(heading(one))})"
        runs = f"{one.about.ended} of {one.about.planned}"
        rows.append(f"| {link} | {one.scale} | {runs} | {tally(verdicts(one)) or '–'} |")
    return "\n".join(rows) + "\n"


def _anchor(words: str) -> str:
    """What GitHub calls a heading."""
    kept = "".join(c for c in words.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")
