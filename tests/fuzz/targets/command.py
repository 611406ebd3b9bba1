"""The command line in this process: its exit code, and what it printed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

from groundup.cli import main
from tests.fuzz.trial import Wrong

LONGEST = 4000  # characters of a message that somebody may still read


def run(arguments: Sequence[str], expect: str | None = None) -> tuple[int, str, str]:
    """Exit code, standard output and standard error.

    Raises:
        Wrong: if bad input is told otherwise than in one line, or `expect` is not what is said.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
            box = False
        except SystemExit as stopped:  # tyro's, which says it in a box
            code, box = int(stopped.code or 0), True
    said = err.getvalue().rstrip("\n")
    if code not in (0, 2):
        raise Wrong(f"exit code {code}: {said[:300]}")
    if "Traceback" in said or (code == 2 and not said):
        raise Wrong(f"no message for people: {said[:300]}")
    if code == 2 and not box and ("\n" in said or not said.startswith("groundup: ")):
        raise Wrong(f"more than a line: {said[:300]}")
    if code == 2 and not box and len(said) > LONGEST:
        raise Wrong(f"a message of {len(said)} characters: {said[:200]}")
    if expect is not None and code != 2:
        raise Wrong(f"exit code {code} for what is refused with: {expect[:300]}")
    if expect is not None and len(expect) < LONGEST // 2 and said != expect:
        raise Wrong(f"said {said[:200]!r} instead of {expect[:200]!r}")
    return code, out.getvalue(), said
