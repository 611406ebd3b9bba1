"""Runs with spikes that are stopped and killed: they end with the same bytes."""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import time
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.train import Recipe, checkpoint, recorder, toml, train, trainer
from groundup.train import run as runs
from groundup.train.checkpoint import Checkpoints
from groundup.train.spikes.rewinds import Rewinds
from tests.train.poisoned import Listening, acting, contents
from tests.train.runs import changed, forget_the_end, lines
from tests.train.test_faults import ended, started


@pytest.mark.parametrize("action", ["warn", "skip", "rewind"])
def test_resuming_gives_the_same_bytes(
    poisoned: Recipe, undisturbed: dict[str, Path], tmp_path: Path, action: str
) -> None:
    out = tmp_path / "run"
    shutil.copytree(undisturbed[action], out)
    for _ in range(2):  # from 140, then, with only the checkpoint before it, from 120 on
        forget_the_end(out)
        if action == "rewind":
            with open(out / "events.jsonl", "a") as file:
                file.write('{"step": 149, "ki')
        train(acting(poisoned, action), out)
        assert contents(out) == contents(undisturbed[action])


@pytest.mark.parametrize("action", ["warn", "skip", "rewind"])
def test_numbers_that_arrive_late_change_nothing(
    poisoned: Recipe,
    undisturbed: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
) -> None:
    """On a GPU they are written two updates late; who only then looks at the batch sees a later
    model."""
    monkeypatch.setattr(recorder, "_in_flight", lambda arrived: 2)
    train(acting(poisoned, action), tmp_path)
    found, expected = contents(tmp_path), contents(undisturbed[action])
    assert found["metrics.jsonl"] == expected["metrics.jsonl"]
    assert seen(tmp_path) == seen(undisturbed[action])
    if action == "skip":
        assert found == expected


def seen(out: Path) -> list[dict]:
    """The events without what depends on the model that looked at the batch."""
    return [
        event | {"documents": sorted(document["number"] for document in event["documents"])}
        for event in lines(out, "events")
    ]


class Killed(BaseException):
    """What a kill looks like from inside: nothing more is written."""


# Where a run can be killed on the way, and how often it comes there.
MOMENTS = {
    (Rewinds, "add"): 1,
    (Rewinds, "discard_undone"): 2,
    (Checkpoints, "resume"): 2,
    (recorder.Recorder, "__init__"): 2,
    (recorder.Recorder, "event"): 1,
    (Checkpoints, "save"): 3,
}


@pytest.fixture(scope="module")
def rewound(poisoned: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """From the spike at 41 back to 40, and the checkpoints at 20, 40 and 45."""
    recipe, out = changed(acting(poisoned, "rewind"), steps=45), tmp_path_factory.mktemp("rewound")
    seen: Counter[tuple[type, str]] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in MOMENTS:
            patch.setattr(owner, name, counting(owner, name, seen))
        train(recipe, out)
    assert seen == MOMENTS
    assert [(e["step"], e["to"]) for e in lines(out, "events")] == [(41, 40)]
    return recipe, out


def counting(owner: type, name: str, seen: Counter[tuple[type, str]]) -> Callable[..., Any]:
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        seen[owner, name] += 1
        return original(*args, **kwargs)

    return counted


@pytest.mark.parametrize(
    ("owner", "name", "before"),
    [
        (Rewinds, "add", True),
        (Rewinds, "add", False),
        (Rewinds, "discard_undone", False),
        (Checkpoints, "resume", False),
        (recorder.Recorder, "__init__", False),
        (recorder.Recorder, "event", False),
        (Checkpoints, "save", True),
        (Checkpoints, "save", False),
    ],
)
def test_killed_at_each_moment_of_a_rewind(
    rewound: tuple[Recipe, Path], tmp_path: Path, owner: type, name: str, before: bool
) -> None:
    recipe, undisturbed = rewound
    original = getattr(owner, name)
    for call in range(MOMENTS[owner, name]):
        calls = itertools.count()

        def mortal(*args, call=call, calls=calls, **kwargs):
            last = next(calls) == call
            if last and before:
                raise Killed
            result = original(*args, **kwargs)
            if last:
                raise Killed
            return result

        out = tmp_path / str(call)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, mortal)
            with pytest.raises(Killed):
                train(recipe, out)
        train(recipe, out)
        assert contents(out) == contents(undisturbed)


def test_a_rewind_leaves_no_model_behind_and_compiles_nothing_anew(
    poisoned: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = runs.build
    models: list[weakref.ref] = []

    def build(*args):
        assert all(model() is None for model in models)
        run = original(*args)
        models.append(weakref.ref(run.model))
        return run

    monkeypatch.setattr(runs, "build", build)
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    train(changed(acting(poisoned, "rewind"), steps=45, compile=True), tmp_path)
    assert len(models) == 2
    assert counters["stats"]["unique_graphs"] == 2  # training and evaluation
    torch._dynamo.reset()


def test_the_checkpoint_of_a_signal_is_not_gone_back_to(
    poisoned: Recipe, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    """A run that was told to stop now and then ends like one that was not."""
    recipe = changed(acting(poisoned, "rewind"), keep=1)
    watch = Listening()
    for updates in (36, 39, 40, 41, 110, 119, 122):

        class Told(trainer.StopRequests):
            @property
            def received(self, updates: int = updates) -> int | None:
                return signal.SIGTERM if done(tmp_path) >= updates else None

            @received.setter
            def received(self, number: int | None) -> None:
                pass

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "StopRequests", Told)
            with pytest.raises(trainer.Interrupted):
                train(recipe, tmp_path, watch)
    train(recipe, tmp_path, watch)
    went_on = [int(note.split()[3]) for note in watch.notes if note.startswith("going on after")]
    assert {36, 39, 41, 110} <= set(went_on)
    assert contents(tmp_path) == contents(undisturbed["rewind"])


def done(out: Path) -> int:
    """How many updates are recorded."""
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("action", ["skip", "rewind"])
def test_really_killed_at_any_moment(
    poisoned: Recipe,
    undisturbed: dict[str, Path],
    tmp_path: Path,
    action: str,
) -> None:
    path, out = tmp_path / "recipe.toml", tmp_path / "run"
    path.write_text(toml.dumps(acting(poisoned, action)))
    draw = random.Random(7)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        process = started(path, out)
        until = time.monotonic() + 120
        seen = done(out)
        while done(out) == seen and process.poll() is None:  # until it trains
            assert time.monotonic() < until, "no progress in two minutes"
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.7))
        process.send_signal(number)
        process.wait()
        assert not (out / "summary.json").exists(), "the run ended before it was killed"
    ended(path, out)
    assert contents(out) == contents(undisturbed[action])


def test_without_its_rewinds_a_run_is_refused(
    poisoned: Recipe, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    recipe = acting(poisoned, "rewind")
    for damage, said in ((None, "the file was changed"), ("[{", "is damaged")):
        out = tmp_path / str(said)
        shutil.copytree(undisturbed["rewind"], out)
        forget_the_end(out)
        if damage is None:
            (out / "rewinds.json").unlink()
        else:
            (out / "rewinds.json").write_text(damage)
        with pytest.raises(ValueError, match=said):
            train(recipe, out)
        assert len(checkpoint.steps_in(out / "checkpoints")) == 1


@given(st.data())
def test_batches_are_those_of_a_pointer(tmp_path_factory, data: st.DataObject) -> None:
    """Rewinds to checkpoints every 5 updates, against a list of which batch each update took."""
    folder = tmp_path_factory.mktemp("rewinds")
    rewinds = Rewinds(folder)
    taken: list[int] = []
    pointer = 0
    for _ in range(data.draw(st.integers(0, 6))):
        for _ in range(data.draw(st.integers(1, 17))):
            taken.append(pointer)
            pointer += 1
        beyond = data.draw(st.integers(0, 3))
        step = len(taken) - 1
        # Older than the last one where a checkpoint was removed by hand.
        to = data.draw(st.sampled_from(range(0, step + 1, 5)))
        assert rewinds.add(step, to, beyond, [{"step": step}]) == pointer + beyond - (
            taken[to - 1] + 1 if to else 0
        ) - (rewinds_at(rewinds, to))
        pointer += beyond
        del taken[to:]
    again = Rewinds(folder)
    assert [again.batch(step) for step in range(len(taken))] == taken
    assert again.batch(len(taken)) == pointer
    for step in range(1, len(taken) + 1):
        assert again.passed(step) == taken[step - 1] - step + 1


def rewinds_at(rewinds: Rewinds, to: int) -> int:
    """Batches that earlier rewinds to the same place have passed over."""
    return sum(r.batches for r in rewinds._rewinds[:-1] if r.to == to)
