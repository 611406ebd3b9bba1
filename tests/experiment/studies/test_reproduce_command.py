"""`groundup reproduce`, from nothing to a page."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from groundup.cli import main
from groundup.commands import reproduce
from groundup.experiment.studies import Claim, Setting, Study, running
from groundup.experiment.studies.arms import Arm, RecipeArm
from groundup.report.studies.figures import Picture
from groundup.report.studies.page import read, written
from groundup.train import Recipe, ResidualConfig
from groundup.train.folder import locked
from tests.forked import Forked, groundup

POPEN = subprocess.Popen


class Process(Forked):
    """As `subprocess.Popen`, of a command that begins at once."""

    def __new__(cls, command: list[str], **how: Any) -> Process:
        process = groundup(*command[3:], log=Path(how["stdout"].name))
        process.__class__ = cls
        return process

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    @property
    def returncode(self) -> int | None:
        return self.poll()


def begin(command: list[str], **how: Any) -> Process | subprocess.Popen[bytes]:
    return Process(command, **how) if "groundup" in command else POPEN(command, **how)


@pytest.fixture
def study(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Two arms with one seed, four updates each."""
    recipe = replace(
        recipe,
        model=replace(recipe.model, layers=2),
        rate=replace(recipe.rate, decay=2),
        train=replace(recipe.train, steps=4, eval_every=2),
    )
    old = replace(recipe, residual=ResidualConfig())

    def arms(change: dict[str, Any]) -> dict[str, Arm]:
        data = change.get("data", {})
        return {
            name: RecipeArm(replace(arm, data=replace(arm.data, **data)))
            for name, arm in (("old", old), ("new", recipe))
        }

    made = Study(
        name="placement",  # one that there is, so that its findings can be read
        title="New against old",
        question="Is it better?",
        settings={"cpu": Setting(arms, seeds=1)},
        claims=(Claim("new", "old", "somewhere, 1 < 2"),),
        baselines={"new": "old"},
    )
    for module in ("groundup.commands.reproduce", "groundup.report.studies.findings"):
        monkeypatch.setattr(f"{module}.named", lambda name: made)
    monkeypatch.setattr(running.subprocess, "Popen", begin)
    monkeypatch.setattr(running, "_POLL", 0.005)
    return made


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn in another test."""
    monkeypatch.setattr(Picture, "png", lambda self: b"PNG")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`groundup reproduce placement`: its exit code and what it printed."""

    def typed(*arguments: str) -> tuple[int, str, str]:
        code = main(["reproduce", "placement", *arguments])
        return code, *capsys.readouterr()

    return typed


def started(out: Path) -> dict[str, int]:
    """Run → how often it was started."""
    return {
        f"{path.parts[-3]}/{path.parts[-2]}": len(path.read_text().splitlines())
        for path in sorted(out.glob("*/*/starts.jsonl"))
    }


def findings(folder: Path) -> Any:
    """But for times."""
    found = json.loads((folder / "results" / "placement-cpu.json").read_bytes())
    del found["about"]["wall_seconds"]
    for each in found["arms"]:
        for one in each["runs"]:
            del one["wall_seconds"], one["tokens_per_second"]
    return found


def written_again(page: Path) -> None:
    """From its findings alone the page is the same."""
    text = page.read_text()
    assert written(text, read(page.parent / "results")) == text


def test_from_nothing_to_a_page(
    study: Study, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    told = ("--out", str(out))
    names = [f"{arm}.peak-0.003/seed-1" for arm in ("old", "new")]
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path)
        code, said, _ = run("--list")
    assert code == 0
    assert said.split() == [f"runs/studies/placement-cpu/{name}" for name in names]
    assert not list(tmp_path.iterdir())

    code, said, err = run(*told)
    assert (code, err) == (0, "")
    assert f"{out}: 0 of 2 runs have ended; " in said
    assert "[2/2] " in said
    assert "## New against old" in said
    page = (out / "results.md").read_text()
    for file in ("placement-cpu.json", "placement-cpu.png"):
        assert (out / "results" / file).stat().st_size > 1000
    assert said.rstrip().endswith(f"undecided: {out / 'results.md'}")
    assert started(out) == dict.fromkeys(sorted(names), 1)
    before = findings(out)
    assert (before["about"]["ended"], before["about"]["planned"]) == (2, 2)
    ends = {n: json.loads((out / n / "summary.json").read_bytes())["eval_loss"] for n in names}
    assert {
        f"{arm['name']}.peak-{arm['peak']:g}/seed-{one['seed']}": one["value"]
        for arm in before["arms"]
        for one in arm["runs"]
    } == pytest.approx(ends, rel=1e-5)

    # Where nothing has been trained, nothing is written over what is there.
    code, _, err = run("--out", str(tmp_path / "typo"), "--page", str(out / "results.md"), "--read")
    assert (code, "typo" in err) == (2, True)
    assert not (tmp_path / "typo").exists()
    assert (out / "results.md").read_text() == page

    # Nothing is trained again, and nothing else is found.
    code, said, _ = run(*told, "--list")
    assert [line.split()[1] for line in said.splitlines()] == [f"{ends[n]:.4f}" for n in names]
    code, said, _ = run(*told)
    assert code == 0
    assert "2 of 2 runs have ended" in said
    assert set(started(out).values()) == {1}
    assert (out / "results.md").read_text() == page
    assert findings(out) == before


def test_more_seeds_and_another_page(study: Study, run, quickly: None, tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("Mine.\n<!-- groundup reproduce -->\n<!-- end -->\n")
    told = ("--out", str(out), "--page", str(page))
    assert run(*told, "--seeds", "1")[0] == 0
    assert len(started(out)) == 2
    # What is there can be read while somebody trains, but nobody else can train.
    with locked(out):
        code, _, err = run(*told, "--seeds", "2")
        assert (code, err) == (2, f"groundup: {out} is in use by another process\n")
        code, said, _ = run(*told, "--seeds", "2", "--read")
        assert code == 0
        assert "placement" in said
    assert len(started(out)) == 2
    assert page.read_text().startswith("Mine.\n")
    assert "2 of 4" in page.read_text()
    assert "groundup reproduce placement --scale cpu --seeds 2 " in page.read_text()
    written_again(page)
    assert run(*told, "--seeds", "2")[0] == 0
    assert started(out) == dict.fromkeys(started(out), 1)
    assert len(started(out)) == 4
    assert not (out / "results").exists()

    # Another text, or a page that cannot be written, is found out before anything is trained.
    code, _, err = run(*told, "--seeds", "3", "--data.source", "python")
    assert code == 2
    assert "seed-1 was told to train on another text: source=" in err
    page.write_text("no markers")
    code, _, err = run(*told, "--seeds", "3")
    assert (code, "no markers" in err) == (2, True)
    assert len(started(out)) == 4


def test_only_some_arms_now_and_the_rest_later(
    study: Study, run, quickly: None, tmp_path: Path
) -> None:
    told = ("--out", str(tmp_path))
    assert run(*told, "--arms", "new", "--list")[1].split() == [
        str(tmp_path / "new.peak-0.003/seed-1")
    ]
    code, said, _ = run(*told, "--arms", "new")
    assert code == 0
    assert "0 of 1 runs have ended" in said
    assert list(started(tmp_path)) == ["new.peak-0.003/seed-1"]
    about = findings(tmp_path)["about"]
    assert (about["ended"], about["planned"]) == (1, 2)
    assert run(*told, "--arms", "old")[0] == 0
    # What was trained before is told with it, and decides on the text.
    (tmp_path / "old.peak-0.003" / "seed-1").rename(tmp_path / "away")
    code, _, err = run(*told, "--arms", "old", "--data.source", "mine.jsonl")
    assert (code, "new.peak-0.003/seed-1 was told to train on another text" in err) == (2, True)
    (tmp_path / "away").rename(tmp_path / "old.peak-0.003" / "seed-1")
    assert findings(tmp_path)["about"]["ended"] == 2
    assert set(started(tmp_path).values()) == {1}


def test_one_that_was_stopped_ends_as_if_it_had_not_been(
    study: Study, run, quickly: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run("--out", str(whole))[0] == 0

    def stop(line: str) -> None:
        if line.startswith("[1/2]"):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as once:
        once.setattr(reproduce, "_say", stop)
        code, said, err = run("--out", str(stopped))
    assert code == 143
    assert "stopped by SIGTERM" in err
    assert "the same command goes on from there" in err
    # What was there is told.
    assert "New against old" in said
    assert (stopped / "results.md").exists()
    assert findings(stopped)["about"]["ended"] in (1, 2)
    assert run("--out", str(stopped))[0] == 0
    assert findings(stopped) == findings(whole)


def test_a_run_that_failed_is_told_at_the_end(
    study: Study, run, quickly: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: RecipeArm, file: str, folder: str) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", "raise MemoryError"]

    monkeypatch.setattr(RecipeArm, "command", fails)
    code, said, err = run("--out", str(tmp_path))
    assert code == 1
    assert said.count(f"failed with exit code 1, see {tmp_path}") == 2
    assert said.endswith("no run has ended yet\n")
    assert not (tmp_path / "results.md").exists()
    assert err == "groundup: failed, tried again by the same command: 2\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say which study first: placement, "),
        (["placment"], "study='placment' is unknown: did you mean 'placement'"),
        (["placement", "--seeds", "0"], "seeds=0 is not valid: it must be at least 1"),
        (["placement", "--arms", "post"], "arms='post' is unknown: did you mean 'post-ln'"),
        (["placement", "--jobs", "0"], "jobs=0 is not valid: it must be at least 1"),
    ],
)
def test_bad_input_is_said_in_one_line(arguments: list[str], message: str, capsys) -> None:
    assert main(["reproduce", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_text_of_ones_own_with_a_held_out_one(tmp_path: Path, capsys) -> None:
    text = ["--data.source", "mine.jsonl", "--data.validation", "held-out.jsonl"]
    assert main(["reproduce", "placement", "--list", "--out", str(tmp_path), *text]) == 0
    assert "pre-ln" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--scale", "big"], ["--sceds", "3"], ["--seeds", "many"]])
def test_bad_flags_are_refused(flags: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "placement", *flags])
    assert stop.value.code == 2
    assert flags[0] in capsys.readouterr().err


def test_help_names_the_studies(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--help"])
    assert stop.value.code == 0
    assert "placement|" in capsys.readouterr().out
