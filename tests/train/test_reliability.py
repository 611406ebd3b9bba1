"""Faults of two processes, as `benchmarks/reliability.py` injects them; and what it writes down."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MARKS = "before\n<!-- faults: begin -->\nan earlier table\n<!-- faults: end -->\nafter\n"


def test_a_run_of_two_ranks_that_meets_much_ends_the_same(tmp_path: Path) -> None:
    page, results = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(MARKS)
    flags = ["--only", "in-turn", "--scratch", tmp_path, "--results", results, "--out", page]
    command = [sys.executable, BENCHMARKS / "reliability.py", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(results.read_text())["faults"]["in-turn"]
    assert (record["times"], record["complete"], record["problem"]) == (1, True, None)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "SIGTERM of torchrun" in text
    assert "an earlier table" not in text
    assert str(tmp_path) not in text + results.read_text()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The package beside the program, with an empty table."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("faults")
    for name in [name for name in sys.modules if name.partition(".")[0] == "faults"]:
        del sys.modules[name]


def test_what_is_not_as_promised_is_said(faults: ModuleType, tmp_path: Path) -> None:
    registry = importlib.import_module("faults.registry")
    table = importlib.import_module("faults.table")
    carry_out = importlib.import_module("faults.carry_out").carry_out

    def broken(place, times):
        yield "fine"
        raise registry.NotAsPromised(f"{place.scratch}/run was lost")

    def well(place, times):
        for turn in range(times):
            yield ("one", "other")[turn % 2]
        return "all the same"

    registry.fault("broken", "a", "b", times=2)(broken)
    registry.fault("well", "c", "d", times=3)(well)
    found = list(registry.FAULTS.values())
    results = table.Results(tmp_path / "results.json", {})
    for record in carry_out(found, None, tmp_path / "scratch"):
        results.add(record)
    assert not results.as_promised(["broken", "well"])
    assert results.as_promised(["well"])
    # What another call has done stays.
    page = tmp_path / "page.md"
    table.write_table(page, table.Results(tmp_path / "results.json", {}), found)
    text = page.read_text()
    assert "| a | b | 1 | **not as promised**: run was lost (fine) |" in text
    assert "| c | d | 3 | 2 × one; 1 × other; all the same |" in text


def test_a_page_without_a_place_for_the_table_is_left_alone(
    faults: ModuleType, tmp_path: Path
) -> None:
    table = importlib.import_module("faults.table")
    page = tmp_path / "page.md"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="faults: begin"):
        table.write_table(page, table.Results(tmp_path / "results.json", {}), [])
    assert page.read_text() == "no marks"
