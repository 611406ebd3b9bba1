"""The loop against a plain one written here, and what it leaves in the run's folder."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from groundup.data import Batches, TokenFile, prepare
from groundup.model import Transformer, initialize
from groundup.train import Recipe, ResidualConfig, TrainingStopped, train, update
from groundup.train.evaluate import Evaluation, HeldOut
from groundup.train.parallel.start import pick_device
from groundup.train.setup import build_model, build_optimizer
from groundup.train.world import ALONE
from tests.train.runs import changed, metrics


def plain_loop(recipe: Recipe) -> list[dict]:
    """The same training with everything written out: α by a wrapper, AdamW by its formula."""
    prepared = prepare(recipe.data)
    tokens = TokenFile.open(prepared.train).tokens
    config = replace(recipe.model, vocab_size=300)
    model = Transformer(config)
    initialize(model, recipe.train.seed)
    model.double()
    alpha = [0.0] * config.layers
    for l, block in enumerate(model.layers):
        for end in (block.attention.branch.output, block.feed_forward.branch.down):
            end.register_forward_hook(lambda m, i, out, l=l: out * alpha[l])
    batches = Batches(tokens, recipe.data.length, recipe.train.batch, recipe.train.seed)
    beta1, beta2 = 0.9, 0.95
    state = [(torch.zeros_like(p), torch.zeros_like(p)) for p in model.parameters()]
    lines = []
    for t in range(recipe.train.steps):
        alpha[:] = [min(t / (2 * l), 1.0) for l in (1, 2, 3)]
        n = t + 1
        rate = 3e-3 * (n / 2 if n <= 2 else 1.0 if t < 8 else (12 - t) / 4)
        rows = torch.from_numpy(batches.batch(t))
        logits = model(rows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        model.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
        lines.append({"loss": loss.item(), "grad_norm": norm, "rate": rate})
        with torch.no_grad():
            for (name, p), (m, v) in zip(model.named_parameters(), state, strict=True):
                g = p.grad * min(1.0, 1.0 / (norm + 1e-6))
                m.lerp_(g, 1 - beta1)
                v.lerp_(g * g, 1 - beta2)
                decayed = p.ndim == 2 and "embedding" not in name
                p.mul_(1 - rate * (0.1 if decayed else 0.0))
                p.sub_(rate * (m / (1 - beta1**n)) / ((v / (1 - beta2**n)).sqrt() + 1e-8))
    return lines


def test_losses_rates_and_norms_equal_a_loop_written_out_in_float64(recipe, tmp_path) -> None:
    train(recipe, tmp_path)
    for line, expected in zip(metrics(tmp_path), plain_loop(recipe), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=2e-5)
        assert line["grad_norm"] == pytest.approx(expected["grad_norm"], rel=2e-3)
        assert line["rate"] == pytest.approx(expected["rate"], rel=1e-12)


def test_what_a_run_leaves(recipe, tmp_path) -> None:
    summary = train(recipe, tmp_path, command="groundup train small")
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(12))
    assert [line["tokens"] for line in lines] == [8 * 16 * n for n in range(1, 13)]
    assert [line["layers_awake"] for line in lines] == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    assert lines[1]["alpha_mean"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 6) / 3)
    assert [line["step"] + 1 for line in lines if "eval_loss" in line] == [5, 10, 12]
    timing = (tmp_path / "timing.jsonl").read_text().splitlines()
    assert len(timing) == 12
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["eval_loss"] == lines[-1]["eval_loss"]
    assert summary["eval_perplexity"] == pytest.approx(math.exp(summary["eval_loss"]))
    assert summary["parameters"] == sum(
        p.numel() for p in Transformer(replace(recipe.model, vocab_size=300)).parameters()
    )
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000008", "step-00000012"]


def test_a_finished_run_is_not_touched(recipe, tmp_path) -> None:
    first = train(recipe, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.name != ".lock"}
    before.pop(tmp_path / "recipe.toml")
    assert train(recipe, tmp_path) == first
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())


def test_micro_batches_change_nothing_but_rounding(recipe, tmp_path) -> None:
    train(recipe, tmp_path / "whole")
    train(changed(recipe, micro_batch=2), tmp_path / "parts")
    for a, b in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "parts"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-3)


def test_runs_of_one_seed_share_weights_and_data_and_differ_by_alpha_alone(
    recipe, tmp_path
) -> None:
    baseline = replace(recipe, residual=ResidualConfig())
    instant = replace(recipe, residual=ResidualConfig("equal", total=1e-9))
    train(baseline, tmp_path / "baseline")
    train(replace(recipe, residual=ResidualConfig("fix-L")), tmp_path / "fixed")
    train(instant, tmp_path / "instant")
    a, b = metrics(tmp_path / "baseline"), metrics(tmp_path / "instant")
    assert a[0]["loss"] != b[0]["loss"]  # α(l, 0) = 0: the model without its layers
    train(changed(baseline, seed=1), tmp_path / "seed1")
    assert metrics(tmp_path / "seed1")[0]["loss"] != a[0]["loss"]


def test_bf16_compute_keeps_float32_weights(recipe, tmp_path) -> None:
    train(changed(recipe, precision="bf16"), tmp_path / "b")
    train(recipe, tmp_path / "f")
    for a, b in zip(metrics(tmp_path / "b"), metrics(tmp_path / "f"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-2)
    assert metrics(tmp_path / "b") != metrics(tmp_path / "f")


def test_evaluation_is_weighted_by_tokens(recipe) -> None:
    prepared = prepare(recipe.data)
    tokens = TokenFile.open(prepared.validation).tokens
    built = replace(recipe, model=replace(recipe.model, vocab_size=300))
    model, _ = build_model(built, ALONE, torch.device("cpu"))
    length = 16
    for batch, limit in ((7, 16 * 23), (64, 0), (5, 100)):
        got = (
            HeldOut(tokens, length, batch, limit)
            .evaluate(model, torch.device("cpu"), "float32")
            .loss
        )
        count = -(-limit // length) if limit else (len(tokens) - 1) // length
        rows = np.stack([tokens[i * length : (i + 1) * length + 1] for i in range(count)])
        rows = torch.from_numpy(rows.astype(np.int64))
        with torch.no_grad():
            logits = model(rows[:, :-1]).double()
        picked = logits.log_softmax(-1).gather(-1, rows[:, 1:, None])
        assert got == pytest.approx(-picked.mean().item(), rel=1e-6)


def test_no_decay_on_norms_and_embeddings(recipe) -> None:
    built = replace(recipe, model=replace(recipe.model, vocab_size=300))
    model, _ = build_model(built, ALONE, torch.device("cpu"))
    optimizer = build_optimizer(model, recipe)
    decayed = {id(p) for g in optimizer.param_groups[:2] for p in g["params"]}
    for name, parameter in model.named_parameters():
        bare = "norm" in name or "embedding" in name
        assert (id(parameter) in decayed) is not bare, name
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.1, 0.0]
    assert [g["name"] for g in optimizer.param_groups] == ["matrices", "head", "no-decay"]


def test_a_non_finite_loss_stops_with_a_reason_and_keeps_the_checkpoint(
    recipe, tmp_path, monkeypatch
) -> None:
    original = update.micro_batches
    recipe = changed(recipe, nonfinite=0)

    def poisoned(run, step):
        if step == 9:
            monkeypatch.setattr(Transformer, "forward", _poison(Transformer.forward), raising=True)
        return original(run, step)

    monkeypatch.setattr(update, "micro_batches", poisoned)
    with pytest.raises(TrainingStopped, match=r"update 9: loss is nan, grad_norm is nan.*8 upd"):
        train(recipe, tmp_path)
    assert metrics(tmp_path)[-1]["loss"] is None
    assert not (tmp_path / "summary.json").exists()
    monkeypatch.undo()
    train(recipe, tmp_path)
    train(recipe, tmp_path / "undisturbed")
    assert metrics(tmp_path) == metrics(tmp_path / "undisturbed")


def test_non_finite_updates_are_skipped_and_counted(recipe, tmp_path, monkeypatch) -> None:
    """Two bad batches in a row: weights and optimizer state are those of a run without them."""
    _poison_batches(monkeypatch, {5, 6})
    recipe = changed(recipe, nonfinite=2, eval_every=100)
    notes = Notes()
    train(recipe, tmp_path / "run", notes)
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines if line.get("skipped")] == [5, 6]
    assert [line["loss"] is None for line in lines] == [step in (5, 6) for step in range(12)]
    assert [line["tokens"] for line in lines] == [8 * 16 * (step + 1) for step in range(12)]
    assert any("update 5: loss is nan, grad_norm is nan; skipped" in note for note in notes.said)

    def left_out(optimizer, finite) -> None:
        if finite:
            optimizer.step()

    monkeypatch.undo()
    _poison_batches(monkeypatch, {5, 6})
    monkeypatch.setattr(update, "guarded_step", left_out)
    train(recipe, tmp_path / "other")
    assert metrics(tmp_path / "other") == lines


def test_more_non_finite_updates_in_a_row_than_allowed(recipe, tmp_path, monkeypatch) -> None:
    _poison_batches(monkeypatch, range(5, 99))
    limited = changed(recipe, nonfinite=3, checkpoint_every=7)
    with pytest.raises(TrainingStopped, match=r"update 8: .*after 3 such updates in a row.*7 upd"):
        train(limited, tmp_path)
    assert len(metrics(tmp_path)) == 9
    # Those before the checkpoint count when the run goes on: 5 and 6, then 7, and 8 is too much.
    with pytest.raises(TrainingStopped, match=r"update 8: "):
        train(limited, tmp_path)


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)

    def update(self, status) -> None:
        pass


def test_a_held_out_loss_that_is_not_finite_stops_too(recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(HeldOut, "evaluate", lambda *_: Evaluation(math.nan, [0, 16], [None]))
    with pytest.raises(TrainingStopped, match=r"update 4: eval_loss is nan\. .*after 4 updates"):
        train(recipe, tmp_path)
    assert metrics(tmp_path)[-1]["eval_loss"] is None


def test_a_run_that_diverged_to_finite_numbers_finishes(recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(HeldOut, "evaluate", lambda *_: Evaluation(5000.0, [0, 16], [5000.0]))
    assert train(recipe, tmp_path)["eval_perplexity"] is None


def _poison(forward):
    """A forward whose loss is NaN."""

    def wrapped(self, tokens, targets=None):
        losses = forward(self, tokens, targets)
        if not torch.is_grad_enabled():  # looked at, not trained
            return losses
        return losses._make(each * math.nan for each in losses)

    return wrapped


def _poison_batches(monkeypatch: pytest.MonkeyPatch, batches) -> None:
    """Batches whose loss is NaN."""
    rows, forward = update.micro_batches, Transformer.forward
    now = []

    def noted(run, batch):
        now[:] = [batch]
        return rows(run, batch)

    def wrapped(self, *args):
        bad = now and now[0] in batches
        return (_poison(forward) if bad else forward)(self, *args)

    monkeypatch.setattr(update, "micro_batches", noted)
    monkeypatch.setattr(Transformer, "forward", wrapped)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="train.device='cuda'"):
        pick_device("cuda")
