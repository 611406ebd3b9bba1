"""docs/results.md is what the committed findings give."""

from __future__ import annotations

import re
from pathlib import Path

from groundup.report.studies.figures import pictures
from groundup.report.studies.page import read, written

PAGE = Path(__file__).parents[3] / "docs" / "results.md"
FOUND = read(PAGE.parent / "results")
_OF_A_MACHINE = re.compile(r"(?<![\w.:/])/(?:tmp|home|root|work|mnt|data|Users)/|\\\\|localhost")


def test_the_page_is_what_its_findings_give() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert written(text, FOUND) == text, "put(PAGE, *read(PAGE.parent / 'results')) writes it anew"


def test_the_files_beside_it_are_those_that_it_shows() -> None:
    shown = {picture.file for one in FOUND for picture in pictures(one)}
    there = {path.name for path in (PAGE.parent / "results").glob("*")}
    assert there == shown | {f"{one.name}.json" for one in FOUND}


def test_files_are_small_and_say_nothing_of_the_machine() -> None:
    for path in sorted((PAGE.parent / "results").glob("*")):
        limit = {".json": 300_000, ".png": 90_000}[path.suffix]
        assert path.stat().st_size < limit, path.name
        if path.suffix == ".json":
            found = _OF_A_MACHINE.search(path.read_text(encoding="utf-8"))
            assert found is None, (path.name, found)
