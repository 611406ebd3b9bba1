"""Runs that are really killed: what they leave goes on and ends with the same bytes."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.train import Recipe, toml, train
from groundup.train.folder import FolderError, locked
from tests.forked import Forked, finished, groundup
from tests.train.poisoned import Listening


def started(recipe_file: Path, out: Path) -> Forked:
    return groundup("train", recipe_file, "--out", out, log=out.with_suffix(".log"))


def ended(recipe_file: Path, out: Path) -> str:
    """What it printed."""
    return finished("train", recipe_file, "--out", out, log=out.with_suffix(".log"))


def lines(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_lines(process: Forked | subprocess.Popen, out: Path, count: int) -> None:
    """Until `count` updates are recorded or the process has ended."""
    until = time.monotonic() + 120
    while lines(out) < count and process.poll() is None:
        assert time.monotonic() < until, "no progress in two minutes"
        time.sleep(0.002)


def written(recipe: Recipe, tmp_path: Path, **fields) -> Path:
    longer = replace(recipe, train=replace(recipe.train, **fields))
    path = tmp_path / "recipe.toml"
    path.write_text(toml.dumps(longer))
    return path


@pytest.mark.parametrize(("compiled", "kills"), [(False, 3), (True, 1)])
def test_sigkill_at_any_moment_and_the_same_command_ends_with_the_same_metrics(
    recipe: Recipe, tmp_path: Path, compiled: bool, kills: int
) -> None:
    path = written(recipe, tmp_path, steps=150, checkpoint_every=7, compile=compiled)
    ended(path, tmp_path / "undisturbed")
    draw = random.Random(1)
    out = tmp_path / "killed"
    progress = []
    for kill in range(kills):
        process = started(path, out)
        # A moment anywhere: in the middle of an update, an evaluation, a checkpoint.
        wait_for_lines(process, out, (kill + 1) * 150 // (kills + 1))
        time.sleep(draw.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        progress.append(lines(out))
        assert not (out / "summary.json").exists(), "the run ended before it was killed"
    assert "going on after" in ended(path, out)
    assert progress == sorted(progress)
    expected = (tmp_path / "undisturbed" / "metrics.jsonl").read_bytes()
    assert (out / "metrics.jsonl").read_bytes() == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_polite_signal_saves_first(
    recipe: Recipe, tmp_path: Path, number: int, code: int
) -> None:
    path = written(recipe, tmp_path, steps=150, checkpoint_every=1000)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "groundup", "train", path, "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_lines(process, out, 5)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert "the same command goes on" in said
    (saved,) = (out / "checkpoints").iterdir()
    assert saved.name == f"step-{lines(out):08d}"
    assert f"going on after {int(saved.name[5:])} updates" in ended(path, out)


def test_a_second_process_on_the_same_folder_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(FolderError, match="in use by another process"):
        train(recipe, tmp_path / "run")


def test_a_changed_recipe_is_refused_with_the_difference(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path)
    rate = replace(recipe.rate, peak=1e-4)
    with pytest.raises(FolderError, match=r"rate.peak: 0.003 there, 0.0001 now"):
        train(replace(recipe, rate=rate), tmp_path)
    train(replace(recipe, train=replace(recipe.train, keep=5)), tmp_path)


def test_a_start_that_failed_does_not_claim_the_folder(recipe: Recipe, tmp_path: Path) -> None:
    wrong = replace(recipe, data=replace(recipe.data, length=10**6))
    with pytest.raises(ValueError, match="1000000"):
        train(wrong, tmp_path)
    assert not (tmp_path / "recipe.toml").exists()
    train(recipe, tmp_path)


def test_data_that_changed_is_refused_on_resume(recipe: Recipe, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(recipe.data.source, source)
    data = replace(recipe.data, source=str(source), folder=str(tmp_path / "data"))
    recipe = replace(recipe, data=data)
    train(recipe, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with open(source / "00.txt", "a") as file:
        file.write("one more line\n")
    with pytest.raises(FolderError, match="the data changed since the run began"):
        train(recipe, tmp_path / "run")


def test_the_one_before_a_damaged_newest_checkpoint_is_used(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path)
    expected = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "summary.json").unlink()
    data = tmp_path / "checkpoints" / "step-00000012" / "__0_0.distcp"
    data.write_bytes(data.read_bytes()[:100])
    watch = Listening()
    train(recipe, tmp_path, watch)
    assert any("__0_0.distcp has 100 bytes" in note for note in watch.notes)
    assert (tmp_path / "checkpoints" / "step-00000012.damaged").is_dir()
    assert (tmp_path / "metrics.jsonl").read_bytes() == expected


def test_a_damaged_summary_is_named(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path)
    (tmp_path / "summary.json").write_text("")
    with pytest.raises(FolderError, match=r"summary\.json is damaged"):
        train(recipe, tmp_path)


def test_a_file_in_the_place_of_the_folder(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="is a file"):
        train(recipe, tmp_path / "file")


def test_metrics_that_were_tampered_with_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path)
    (tmp_path / "summary.json").unlink()
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    with pytest.raises(ValueError, match="holds 3 updates, but the checkpoint stands at 12"):
        train(recipe, tmp_path)


def test_lines_after_the_checkpoint_are_computed_again(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path / "a")
    expected = (tmp_path / "a" / "metrics.jsonl").read_bytes()
    (tmp_path / "a" / "summary.json").unlink()
    newest = max((tmp_path / "a" / "checkpoints").iterdir())
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"step": 12, "lo')
    train(recipe, tmp_path / "a")
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == expected
    steps = [json.loads(x)["step"] for x in (tmp_path / "a" / "timing.jsonl").open()]
    assert steps == list(range(12))
