"""The first cases of every target; `python -m tests.fuzz` goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS
from tests.fuzz.trial import Outcome, Target, Trial, Wrong, attempt


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_refused_or_read_as_it_is(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    (whole := tmp_path / "whole").mkdir()
    world = target.make(whole)
    outcomes: dict[int, Outcome] = {}
    for number in range(target.few):
        (here := tmp_path / str(number)).mkdir()
        outcomes[number] = attempt(target, world, number, here)
    defects = {n: o for n, o in outcomes.items() if o.kind == "defect"}
    told = [f"--target {name!r} --case {n}: {o.about}: {o.said}" for n, o in defects.items()]
    assert not defects, "\n".join(told)
    assert any(outcome.kind != "whole" for outcome in outcomes.values()), "nothing was damaged"


def _raising(error: BaseException) -> Trial:
    def run() -> str:
        raise error

    return Trial("", run, ("the-file",))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("the-file is damaged"), "refused"),
        (ValueError("something is damaged"), "defect"),
        (ValueError("the-file\nis damaged"), "defect"),
        (KeyError("the-file"), "defect"),
        (MemoryError(), "defect"),
        (RecursionError("the-file"), "defect"),
        (Wrong("other tokens"), "defect"),
    ],
)
def test_what_counts_as_a_defect(error: BaseException, kind: str, tmp_path: Path) -> None:
    target = Target("", lambda _: None, lambda *_: _raising(error))
    assert attempt(target, None, 0, tmp_path).kind == kind


def test_a_case_that_does_not_end_is_a_defect(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.fuzz.trial.SECONDS", 0.05)

    def run() -> str:
        while True:
            pass

    target = Target("", lambda _: None, lambda *_: Trial("", run, ("",)))
    assert attempt(target, None, 0, tmp_path).said == "hang"
