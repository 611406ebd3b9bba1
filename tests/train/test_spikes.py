"""Spikes while a run goes on, on a corpus with a poisoned document, against a loop written here."""

from __future__ import annotations

import copy
import itertools
import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundup.data import Batches, TokenFile, prepare
from groundup.measure import run_spike_score
from groundup.model import Transformer
from groundup.train import (
    MeasureConfig,
    Recipe,
    ResidualConfig,
    SpikesConfig,
    TrainingStopped,
    setup,
    toml,
    train,
)
from groundup.train.folder import FolderError
from groundup.train.spikes import words as spike_words
from groundup.train.world import ALONE
from tests.train.poisoned import POISON, Listening, acting, contents
from tests.train.runs import changed, lines, metrics


def is_spike(before: list[float], value: float) -> bool:
    if len(before) < 20:
        return False
    mean, deviation = statistics.fmean(before[-20:]), statistics.pstdev(before[-20:])
    return value - mean >= 7 * deviation


def loop(recipe: Recipe) -> tuple[list[dict], list[tuple[int, int]]]:
    """The same training with the actions written out: data are taken one batch after the other,
    and who goes back has copies of everything. The lines, and (step, to) of each rewind."""
    tokens = TokenFile.open(prepare(recipe.data).train).tokens
    device = torch.device("cpu")
    built = replace(recipe, model=replace(recipe.model, vocab_size=300))
    model, _ = setup.build_model(built, ALONE, device)
    optimizer = setup.build_optimizer(model, recipe)
    alpha = [0.0] * recipe.model.layers
    for l, block in enumerate(model.layers):
        for end in (block.attention.branch.output, block.feed_forward.branch.down):
            end.register_forward_hook(lambda m, i, out, l=l: out * alpha[l])
    batches = Batches(tokens, recipe.data.length, recipe.train.batch, recipe.train.seed)
    copies, went, found = {}, [], []
    pointer = step = 0
    while step < recipe.train.steps:
        if step % recipe.train.checkpoint_every == 0:
            copies[step] = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
        alpha[:] = [min(step / (2 * l), 1.0) for l in (1, 2, 3)]
        for group in optimizer.param_groups:
            left = recipe.train.steps - step
            group["lr"] = 1e-2 * min((step + 1) / 2, 1.0, left / 4)
        rows = torch.from_numpy(batches.batch(pointer))
        pointer += 1
        losses = model(rows[:, :-1], rows[:, 1:])
        (losses.total / recipe.tokens_per_step).backward()
        loss = losses.cross_entropy.item() / recipe.tokens_per_step
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        spike = any(
            is_spike([line[name] for line in found], value)
            for name, value in (("loss", loss), ("grad_norm", norm))
        )
        found.append({"loss": loss, "grad_norm": norm})
        if not (spike and recipe.spikes.action == "skip"):
            optimizer.step()
        optimizer.zero_grad()
        step += 1
        if spike and recipe.spikes.action == "rewind":
            to = max(copies.keys() & range(step))
            went.append((step - 1, to))
            weights, state = copy.deepcopy(copies[to])
            model.load_state_dict(weights)
            optimizer.load_state_dict(state)
            step, found = to, found[:to]
            pointer += recipe.spikes.beyond
    return found, went


# ---------------------------------------------------------------------------------- what is done


@pytest.mark.parametrize(
    ("action", "fields"), [("warn", {}), ("skip", {}), ("rewind", {}), ("rewind", {"beyond": 3})]
)
def test_equals_a_loop_written_out(
    poisoned: Recipe, undisturbed: dict[str, Path], tmp_path: Path, action: str, fields
) -> None:
    recipe = acting(poisoned, action, **fields)
    out = tmp_path if fields else undisturbed[action]
    if fields:
        train(recipe, out)
    expected, went = loop(recipe)
    assert len(metrics(out)) == len(expected)
    for line, other in zip(metrics(out), expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4), line["step"]
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=2e-3), line["step"]
    if action == "rewind":
        told = [(event["step"], event["to"]) for event in lines(out, "events")]
        assert list(dict.fromkeys(told)) == went
        assert len(went) >= 3


def test_a_warning_changes_no_bit_and_names_every_spike(
    poisoned: Recipe, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    watch = Listening()
    train(replace(poisoned, spikes=SpikesConfig(of=())), tmp_path / "without")
    train(poisoned, tmp_path / "with", watch)
    files = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("with", "without")]
    assert files[0] == files[1]
    assert not (tmp_path / "without" / "events.jsonl").exists()

    rows, events = metrics(tmp_path / "with"), lines(tmp_path / "with", "events")
    for name in ("loss", "grad_norm"):
        score = run_spike_score([row[name] for row in rows], 20, span=(0.0, 1.0))
        assert [event["step"] for event in events if event["of"] == name] == score.spikes
    assert {event["step"] for event in events} == {41, 72, 123}
    for event in events:
        assert event["kind"] == "spike"
        assert event["action"] == "warn"
        assert event["value"] == rows[event["step"]][event["of"]]
        assert event["value"] > event["mean"] + 7 * event["deviation"]
        assert event["samples"] == [8 * event["step"], 8 * event["step"] + 7]
    spoken = [note for note in watch.notes if note.startswith("spike at")]
    assert [note.split(":")[0] for note in spoken] == [
        f"spike at update {n}" for n in (41, 72, 123)
    ]
    assert "batch 41 (samples 328 to 335)" in spoken[0]
    assert " more" in spoken[0]


@pytest.mark.parametrize("action", ["warn", "skip", "rewind"])
def test_the_poisoned_document_comes_first(
    poisoned: Recipe, undisturbed: dict[str, Path], action: str
) -> None:
    hit = 0
    for event in lines(undisturbed[action], "events"):
        documents = event["documents"]
        values = [document[event["of"]] for document in documents]
        assert values == sorted(values, reverse=True)
        assert len(documents) == event["document_count"] > 3
        poison = [document for document in documents if document["starts"][0] in POISON]
        if not poison:
            continue
        hit += 1
        assert poison == documents[:1]
        assert values[0] > 1.5 * values[1]
        number, start = poison[0]["number"], poison[0]["starts"][:31]
        unit = {"loss": f"{values[0]:.2f} nats", "grad_norm": f"gradient norm {values[0]:.2f}"}
        said = f"of documents {number} “{start}…” ({unit[event['of']]}), {documents[1]['number']} “"
        assert said in spike_words.data(event)
    assert hit >= 2


def test_a_skipped_update_moves_nothing(poisoned: Recipe, undisturbed: dict[str, Path]) -> None:
    warned, skipped = metrics(undisturbed["warn"]), metrics(undisturbed["skip"])
    first = next(line["step"] for line in skipped if line.get("skipped"))
    assert first == 41
    assert skipped[:first] == warned[:first]
    assert skipped[first] == warned[first] | {"skipped": True}
    assert skipped[first + 1] != warned[first + 1]
    # It counts for rate, α and data.
    kept = ("rate", "alpha_mean", "tokens")
    for a, b in zip(warned, skipped, strict=True):
        assert {name: a[name] for name in kept} == {name: b[name] for name in kept}
    acted = {event["step"] for event in lines(undisturbed["skip"], "events")}
    assert acted == {line["step"] for line in skipped if line.get("skipped")}


def test_a_rewind_is_told_with_what_it_passed_over(
    poisoned: Recipe, undisturbed: dict[str, Path]
) -> None:
    events = lines(undisturbed["rewind"], "events")
    assert [event["to"] for event in events] == sorted(event["to"] for event in events)
    for event in events:
        assert event["action"] == "rewind"
        assert event["to"] == event["step"] // 20 * 20
        assert event["passed"] == event["step"] - event["to"] + 1
    state = json.loads(
        (undisturbed["rewind"] / "checkpoints" / "step-00000150" / "state.json").read_text()
    )
    passed = {event["batch"]: event["passed"] for event in events}  # of both series: once
    assert state["passed"] == sum(passed.values()) > 0


def test_only_series_that_are_asked_for_are_judged(poisoned: Recipe, tmp_path: Path) -> None:
    train(acting(poisoned, "skip", of=("loss",)), tmp_path)
    assert {event["of"] for event in lines(tmp_path, "events")} == {"loss"}


def test_what_is_far_below_is_told_and_not_acted_upon(poisoned: Recipe, tmp_path: Path) -> None:
    for action in ("skip", "rewind"):
        recipe = acting(changed(poisoned, steps=30), action)
        out = tmp_path / action
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.nn.utils, "clip_grad_norm_", _norms([*[5.0, 5.1] * 12, 0.1]))
            train(recipe, out)
        (event,) = lines(out, "events")
        assert (event["step"], event["of"], event["action"]) == (24, "grad_norm", "warn")
        assert not any(line.get("skipped") for line in metrics(out))


def _norms(values: list[float]):
    steps = itertools.chain(values, itertools.repeat(5.0))
    return lambda parameters, clip: torch.tensor(next(steps))


def test_a_skipped_update_is_not_measured(poisoned: Recipe, tmp_path: Path) -> None:
    recipe = replace(acting(poisoned, "skip"), measure=MeasureConfig(every=1, what=("updates",)))
    train(recipe, tmp_path)
    measured = {line["step"] for line in lines(tmp_path, "measurements") if "angle" in line}
    skipped = {line["step"] for line in metrics(tmp_path) if line.get("skipped")}
    assert len(skipped) >= 3
    assert measured == set(range(150)) - skipped


# ---------------------------------------------------------------------------------- not finite


def _poison(forward, steps: set[int], counted: Iterator[int]):
    def wrapped(self, tokens, targets=None):
        losses = forward(self, tokens, targets)
        if not torch.is_grad_enabled() or next(counted) not in steps:
            return losses
        return losses._make(each * math.nan for each in losses)

    return wrapped


@pytest.mark.parametrize("action", ["warn", "skip", "rewind"])
def test_what_is_not_finite_is_a_spike_before_the_first_window_too(
    poisoned: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(
        Transformer, "forward", _poison(Transformer.forward, {7}, itertools.count())
    )
    recipe = changed(acting(poisoned, action), steps=30)
    recipe = replace(recipe, residual=ResidualConfig())
    train(recipe, tmp_path)
    events = lines(tmp_path, "events")
    assert [(e["step"], e["of"], e["value"]) for e in events] == [
        (7, "loss", None),
        (7, "grad_norm", None),
    ]
    done = {"warn": "skip"}.get(action, action)
    assert [e["action"] for e in events] == [done] * 2
    if action == "skip":
        line = metrics(tmp_path)[7]
        assert line["loss"] is line["grad_norm"] is None
        assert line["skipped"]
    if action == "rewind":
        assert {e["to"] for e in events} == {0}
        assert len(metrics(tmp_path)) == 30
        assert all(math.isfinite(line["loss"]) for line in metrics(tmp_path))


# ---------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("skip", "with skipped updates before it: {}, which is spikes.limit"),
        ("rewind", "with rewinds before it: {}, which is spikes.limit"),
    ],
)
def test_at_the_limit_the_run_stops_and_with_a_higher_one_goes_on(
    poisoned: Recipe, undisturbed: dict[str, Path], tmp_path: Path, action: str, said: str
) -> None:
    events = lines(undisturbed[action], "events")
    steps = {event["batch"]: event["step"] for event in events}
    limit, step = list(steps).index(123), steps[123]  # the batch with much poison
    assert limit >= 2
    said = f"update {step}: .* {said.format(limit)}"
    found = []
    for _ in range(2):  # starting again finds the same, and writes it once
        with pytest.raises(TrainingStopped, match=said) as stopped:
            train(acting(poisoned, action, limit=limit), tmp_path)
        found.append((str(stopped.value), contents(tmp_path)))
    assert found[0] == found[1]
    stops = [event for event in lines(tmp_path, "events") if event["action"] == "stop"]
    assert [event["of"] for event in stops] == ["loss", "grad_norm"]
    assert lines(tmp_path, "events")[-2:] == stops
    assert not any("to" in event for event in stops)
    poison = stops[0]["documents"][0]
    assert poison["starts"][0] in POISON
    message = found[0][0]
    assert f"; batch 123 (samples 984 to 991) of documents {poison['number']} “" in message
    kept = f"The checkpoint after {step // 20 * 20} updates is kept"
    assert f"may be raised. {kept}. Lower rate.peak" in message
    train(acting(poisoned, action, limit=20), tmp_path)
    assert contents(tmp_path) == contents(undisturbed[action])


# ---------------------------------------------------------------------------------- what is refused


def test_what_may_change_between_two_starts(poisoned: Recipe, tmp_path: Path) -> None:
    short = changed(poisoned, steps=25)
    train(short, tmp_path / "warn")
    train(replace(short, spikes=SpikesConfig(threshold=9.0, of=("loss",))), tmp_path / "warn")
    with pytest.raises(FolderError, match="spikes.action: 'warn' there, 'skip' now"):
        train(acting(short, "skip"), tmp_path / "warn")
    train(acting(short, "rewind"), tmp_path / "rewind")
    train(acting(short, "rewind", limit=3), tmp_path / "rewind")
    with pytest.raises(FolderError, match="spikes.threshold: 7.0 there, 9.0 now"):
        train(acting(short, "rewind", threshold=9.0), tmp_path / "rewind")
    with pytest.raises(FolderError, match="train.checkpoint_every: 20 there, 5 now"):
        train(changed(acting(short, "rewind"), checkpoint_every=5), tmp_path / "rewind")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"threshold": 0.0}, "threshold=0.0 is not valid"),
        ({"window": 1}, "window=1 is not valid"),
        ({"action": "skip", "of": ()}, "needs a series"),
        ({"limit": 3}, "limit=3 would be ignored by action='warn'"),
        ({"action": "skip", "beyond": 3}, "beyond=3 would be ignored by action='skip'"),
        ({"action": "skip", "limit": -1}, "limit=-1 is not valid"),
    ],
)
def test_settings_are_checked(fields, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SpikesConfig(**fields)


def test_in_a_recipe_file() -> None:
    tables = {"spikes": {"action": "rewind", "of": ["loss"], "beyond": 100}}
    assert toml.build(tables).spikes == SpikesConfig("rewind", ("loss",), beyond=100)
    with pytest.raises(ValueError, match=r"spikes\.of='grads' is not valid"):
        toml.build({"spikes": {"of": ["grads"]}})
    assert SpikesConfig().window_of(750) == 75
    assert SpikesConfig().window_of(100_000) == 1000


# ---------------------------------------------------------------------------------- pieces


def test_notes_in_a_row_are_one(tmp_path: Path) -> None:
    watch = Listening()
    notes = spike_words.Notes(watch, apart=50)
    for step in (100, 101, 149, 150, 300, 301):
        notes.say(step, f"at {step}")
    notes.finish()
    notes.finish()
    assert watch.notes == [
        "at 100",
        "spikes at 2 more updates soon after update 100: see events.jsonl",
        "at 150",
        "at 300",
        "spikes at 1 more update soon after update 300: see events.jsonl",
    ]
