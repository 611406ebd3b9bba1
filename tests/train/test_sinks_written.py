"""What TensorBoard and Weights & Biases get of a run, read back from the files of the libraries."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.model import Transformer
from groundup.train import Recipe, sinks, train, update
from groundup.train.sinks import open_sinks
from groundup.train.spikes.config import SpikesConfig
from tests.train.runs import forget_the_end, metrics
from tests.train.sinks import OFFLINE, TENSORBOARD, Notes, clock, line, with_log

# --- TensorBoard


def events(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: the scalars of each tag as (step, value)."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = accumulators.EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_tensorboard_shows_each_update_once(recipe, tmp_path) -> None:
    recipe = with_log(recipe, TENSORBOARD)
    with open_sinks(recipe, tmp_path, 0, pytest.fail) as out:
        for step in range(10):
            if step % 4 == 0:
                out.measured(step, {"angle/layers": [0.5, 1.5]})
            out.updated(line(step), clock(step))
    # It was stopped in update 9 and goes on from the checkpoint after 6; the loss is another.
    with open_sinks(recipe, tmp_path, 6, pytest.fail) as out:
        for step in range(6, 14):
            if step % 4 == 0:
                out.measured(step, {"angle/layers": [2.5, 3.5]})
            out.updated(line(step, loss=100.0), clock(step))
    found = events(tmp_path)
    assert found["train/loss"] == [(s, s + 0.5 if s < 6 else 100.0) for s in range(14)]
    assert found["angle/layer_02"] == [(0, 1.5), (4, 1.5), (8, 3.5), (12, 3.5)]
    assert [step for step, _ in found["speed/seconds"]] == list(range(14))
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2


def test_a_flush_is_on_the_disk(recipe, tmp_path) -> None:
    out = open_sinks(with_log(recipe, TENSORBOARD), tmp_path, 0, pytest.fail)
    out.updated(line(0), clock(0))
    out.flush()
    assert events(tmp_path)["train/loss"] == [(0, 0.5)]
    out.close()


# --- Weights & Biases


@pytest.fixture
def offline(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


def records(path: Path) -> list:
    """The records of a .wandb file. The library's own process completes it, a moment after the run
    was finished."""
    for _ in range(200):
        found = list(_records(path))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{path} was not completed")


def _records(path: Path) -> Iterator:
    """A log as LevelDB writes them, after seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, held = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        held += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(held)
            held = b""
            yield record


def segments(out: Path) -> list[tuple[str, dict[int, dict]]]:
    """Of each offline session, in the order in which they began: the run's id, and what was logged
    by step."""
    found = []
    for path in sorted((out / "wandb").glob("offline-run-*/run-*.wandb")):
        all_records = records(path)
        (run,) = {r.run.run_id for r in all_records if r.HasField("run")}
        history: dict[int, dict] = {}
        for record in all_records:
            if record.HasField("history"):
                items = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }
                history[record.history.step.num] = items
        found.append((run, history))
    return found


def record_all(recipe: Recipe, out: Path, start: int, end: int, loss: float | None = None) -> None:
    """What the trainer does, the recorder's part of it included."""
    with open_sinks(recipe, out, start, pytest.fail) as found:
        path = out / "metrics.jsonl"
        old = path.read_text().splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(old[:start]))
        for step in range(start, end):
            found.measured(step, {"update_norm": 1.0})
            with open(path, "a") as file:
                file.write(json.dumps(line(step, loss)) + "\n")
            found.updated(line(step, loss), clock(step))
        found.measured(end, {"rrc": 2.0})


def test_wandb_offline_keeps_its_id_and_takes_each_update_once(recipe, tmp_path, offline) -> None:
    recipe = with_log(recipe, OFFLINE)
    record_all(recipe, tmp_path, 0, 10)
    # Stopped in update 9, it goes on from 6, is stopped in 7, and goes on from 6 again.
    record_all(recipe, tmp_path, 6, 8, loss=100.0)
    record_all(recipe, tmp_path, 6, 14, loss=100.0)
    ids, histories = zip(*segments(tmp_path), strict=True)
    assert len(set(ids)) == 1
    assert len(ids) == 3
    assert json.loads((tmp_path / "wandb.json").read_text())["id"] == ids[0]
    assert list(histories[0]) == list(range(11))
    assert histories[1] == {}
    # 10 was there by then: what was measured of the model after ten updates.
    assert list(histories[2]) == list(range(10, 15))
    assert histories[0][9]["train/loss"] == 9.5
    assert histories[0][9]["measure/update_norm"] == 1.0
    assert histories[2][11]["train/loss"] == 100.0


def test_wandb_turned_on_later_begins_there(recipe, tmp_path, offline) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line(s)) + "\n" for s in range(9)))
    record_all(with_log(recipe, OFFLINE), tmp_path, 6, 8)
    ((_, history),) = segments(tmp_path)
    assert list(history) == [6, 7, 8]


def test_wandb_gets_the_recipe(recipe, tmp_path, offline) -> None:
    log = replace(OFFLINE, entity="e")
    record_all(replace(recipe, variant="linear", log=log), tmp_path, 0, 1)
    (path,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    run = next(record.run for record in records(path) if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["model"]["layers"] == 3
    assert config["residual"]["T"] == 2
    assert (run.project, run.entity, run.run_group) == ("p", "e", "small")
    assert run.display_name == "linear-seed-0"


def test_wandb_another_folder_is_another_run(recipe, tmp_path, offline) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        record_all(with_log(recipe, OFFLINE), tmp_path / name, 0, 1)
    a, b = (json.loads((tmp_path / name / "wandb.json").read_text())["id"] for name in "ab")
    assert a != b


def test_wandb_disabled_writes_no_run(recipe, tmp_path, offline) -> None:
    record_all(with_log(recipe, replace(OFFLINE, mode="disabled")), tmp_path, 0, 3)
    assert not (tmp_path / "wandb").exists()


# --- in training


def test_a_run_computes_the_same_and_shows_each_update_once(recipe, tmp_path, offline) -> None:
    train(recipe, tmp_path / "plain")
    out, notes = tmp_path / "shown", Notes()
    shown = with_log(recipe, replace(OFFLINE, tensorboard=True))
    train(shown, out, notes)
    forget_the_end(out)
    train(shown, out, notes)
    assert metrics(out) == metrics(tmp_path / "plain")
    expected = [(entry["step"], pytest.approx(entry["loss"])) for entry in metrics(out)]
    assert events(out)["train/loss"] == expected
    ids, histories = zip(*segments(out), strict=True)
    assert len(set(ids)) == 1
    logged = [step for history in histories for step in history if "train/loss" in history[step]]
    assert logged == list(range(12))
    assert not any("left out" in said for said in notes.said)


def test_a_run_that_goes_back_shows_what_it_kept(recipe, tmp_path, offline, monkeypatch) -> None:
    original, forward = update.micro_batches, Transformer.forward
    broken = []

    def once(self, *args, **kwargs):
        monkeypatch.setattr(Transformer, "forward", forward)
        losses = forward(self, *args, **kwargs)
        return losses._make(each * math.nan for each in losses)

    def poisoned(run, step):
        if step == 6 and not broken:
            broken.append(step)
            monkeypatch.setattr(Transformer, "forward", once)
        return original(run, step)

    monkeypatch.setattr(update, "micro_batches", poisoned)
    log = replace(OFFLINE, tensorboard=True)
    train(replace(recipe, log=log, spikes=SpikesConfig("rewind")), tmp_path)
    assert broken
    assert len(json.loads((tmp_path / "rewinds.json").read_text())) == 1
    expected = [(entry["step"], pytest.approx(entry["loss"])) for entry in metrics(tmp_path)]
    assert events(tmp_path)["train/loss"] == expected
    (first, before), (second, after) = segments(tmp_path)
    assert first == second
    # W&B keeps the first course: updates 4 and 5, and 6, which had no loss.
    assert list(before) == list(range(7))
    assert "train/loss" not in before[6]
    assert list(after) == list(range(7, 13))


def test_a_library_that_fails_does_not_change_a_run(recipe, tmp_path, monkeypatch) -> None:
    pytest.importorskip("tensorboard")
    train(recipe, tmp_path / "plain")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(sinks.TensorBoard, "write", fail)
    notes = Notes()
    train(with_log(recipe, TENSORBOARD), tmp_path / "shown", notes)
    assert metrics(tmp_path / "shown") == metrics(tmp_path / "plain")
    assert sum("TensorBoard failed (no space left)" in said for said in notes.said) == 1


def test_a_missing_library_is_refused_before_any_work(recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sinks, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        train(with_log(recipe, TENSORBOARD), tmp_path)
    assert not (tmp_path / "recipe.toml").exists()
