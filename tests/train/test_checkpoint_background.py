"""Checkpoints are written while training goes on; nothing of that may be lost or go unsaid."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from groundup.train import checkpoint
from groundup.train.checkpoint import CheckpointError, Checkpoints, checkpoints
from groundup.train.world import ALONE
from tests.train import checkpoints_killed
from tests.train.checkpoints import made, resumed, same, update


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is written before this event is set."""
    event = threading.Event()
    write = FileSystemWriter.write_data

    def waiting(*args):
        assert event.wait(60)
        return write(*args)

    monkeypatch.setattr(FileSystemWriter, "write_data", waiting)
    yield event
    event.set()


def test_what_is_saved_is_what_was_there_at_that_moment(
    tmp_path: Path, held: threading.Event
) -> None:
    model, optimizer = made(0)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    kept = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in model.parameters()]
    state = {"rates": [1.0]}
    there = Checkpoints(tmp_path, ALONE, 2)
    there.save(3, model, optimizer, state)
    assert there.steps() == []
    for _ in range(3):
        update(model, optimizer)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    optimizer.param_groups[0]["lr"] = 5.0
    state["rates"][0] = 2.0
    held.set()
    there.close()
    assert there.steps() == [3]
    other, other_optimizer = made(1)
    (_, found), _ = resumed(tmp_path, other, other_optimizer)
    assert same(other.state_dict(), weights)
    for p, expected in zip(other.parameters(), kept, strict=True):
        assert same(other_optimizer.state[p], expected)
    assert other_optimizer.param_groups[0]["lr"] == 0.01
    assert found["rates"] == [1.0]


def test_one_at_a_time(tmp_path: Path, held: threading.Event) -> None:
    model, optimizer = made(0)
    there = Checkpoints(tmp_path, ALONE, 2)
    there.save(1, model, optimizer, {})
    threading.Timer(0.05, held.set).start()
    there.save(2, model, optimizer, {})
    assert 1 in checkpoint.steps_in(tmp_path)
    there.close()
    assert there.steps() == [1, 2]


@pytest.mark.parametrize("where", ["tensors", "state", "rename"])
def test_a_full_disk_is_said_by_the_next_call_and_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    model, optimizer = made(0)
    there = Checkpoints(tmp_path, ALONE, 1)
    there.save(1, model, optimizer, {})
    there.wait()

    def full(*_):
        raise OSError(28, "No space left on device")

    target = {
        "tensors": (FileSystemWriter, "write_data"),
        "state": (checkpoints.places, "write"),
        "rename": (Path, "rename"),
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(*target, full)
        there.save(2, model, optimizer, {})
        with pytest.raises(CheckpointError, match="of 2 updates to .* No space left") as caught:
            there.save(3, model, optimizer, {})
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    there.save(3, model, optimizer, {})
    there.close()
    assert there.steps() == [3]


def test_a_read_only_place(tmp_path: Path) -> None:
    model, optimizer = made(0)
    (tmp_path / "file").write_text("")
    there = Checkpoints(tmp_path / "file", ALONE, 1)
    there.save(1, model, optimizer, {})
    with pytest.raises(CheckpointError, match="1 updates to .*file failed: "):
        there.close()


def test_sigkill_at_any_moment_and_an_exit_without_a_word(tmp_path: Path) -> None:
    """Ten times over, each time going on from what the last kill left."""
    done = subprocess.run(
        [sys.executable, "-m", checkpoints_killed.__name__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert len(told) == checkpoints_killed.KILLS + 1
    steps = [one["step"] for one in told]
    assert steps == sorted(steps)
    assert steps[1] > 0
    # Many were killed in the middle of writing one.
    assert sum(one["partial"] for one in told) >= 3
    # The last process came to its end after save(), without waiting.
    model, optimizer = checkpoints_killed.model()
    step, _ = Checkpoints(tmp_path / "c", ALONE, 2).resume(model, optimizer, pytest.fail)
    assert step == steps[-1] + 1
    checkpoints_killed.check(model, optimizer, step)
