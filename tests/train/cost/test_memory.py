"""Planned memory against an update of the same recipe in which all live bytes are counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from groundup.data import DataConfig
from groundup.model import ModelConfig, Transformer
from groundup.train import MeasureConfig, OptimizerConfig, Recipe, TrainConfig
from groundup.train.cost import LiveBytes, Memory, OptimizerCost
from groundup.train.cost.memory import MEASURED, Sizes
from groundup.train.cost.state import nbytes
from groundup.train.measuring import Measuring
from groundup.train.setup import build_model, build_optimizer, compute_precision
from groundup.train.world import ALONE

MODEL = ModelConfig(vocab_size=512, width=64, layers=4, heads=4)
CPU = torch.device("cpu")


def recipe_of(
    model: ModelConfig = MODEL,
    optimizer: str = "adamw",
    options: dict[str, Any] | None = None,
    **train: Any,
) -> Recipe:
    settings = {"batch": 4, "precision": "float32", "compile": False, "device": "cpu"} | train
    return Recipe(
        model=model,
        data=DataConfig(length=32),
        optimizer=OptimizerConfig(name=optimizer, options=options or {}),
        train=TrainConfig(**settings),
        measure=MeasureConfig(every=0),
    )


def measured_peak(recipe: Recipe) -> int:
    """The most bytes alive in the second update, with everything that was there before."""
    config, length = recipe.train, recipe.data.length
    tokens = torch.randint(recipe.model.vocab_size or 0, (config.batch, length + 1))
    with LiveBytes() as live:
        model, _ = build_model(recipe, ALONE, CPU)
        optimizer = build_optimizer(model, recipe)
        probe = tokens[: recipe.measure.sequences]
        measuring = Measuring.of(recipe, model, optimizer, probe[:, :-1], probe[:, 1:])
        for step in range(2):
            live.restart()
            measuring.begin(step)
            for rows in tokens.split(config.micro_batch or config.batch):
                with compute_precision(config.precision, CPU):
                    losses = model(rows[:, :-1], rows[:, 1:])
                (losses.total / tokens.numel()).backward()
                del losses
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            measuring.end()
        return live.peak


def planned(recipe: Recipe, size: int = 1) -> Memory:
    return Memory(recipe, size, Sizes.of(recipe), fused_norms=False, context=0, device="cpu")


RECIPES = {
    "plain": recipe_of(),
    "bf16": recipe_of(precision="bf16"),
    "accumulated": recipe_of(micro_batch=1, precision="bf16"),
    "one short sequence": recipe_of(batch=1),
    "post, tied, z-loss": recipe_of(replace(MODEL, placement="post", tied=True, z_loss=1e-4)),
    "large vocabulary": recipe_of(replace(MODEL, vocab_size=6000, layers=1), precision="bf16"),
    **{
        f"chunks of the head, {precision}": recipe_of(
            replace(MODEL, vocab_size=6000, layers=1), precision=precision, batch=40
        )
        for precision in ("float32", "bf16")
    },
    "grouped sandwich": recipe_of(
        replace(MODEL, placement="sandwich", qk_norm=True, kv_heads=1), precision="bf16"
    ),
    "full": recipe_of(batch=8, recompute="full"),
    "full, bf16": recipe_of(batch=8, recompute="full", precision="bf16"),
    "ops": recipe_of(recompute="ops"),
    "ops, bf16": recipe_of(recompute="ops", precision="bf16"),
    # As on a GPU: all weights at once. A CPU takes them one by one unless told otherwise.
    **{
        f"{name}, large model": recipe_of(
            replace(MODEL, width=128), optimizer=name, options={"foreach": True}, batch=1
        )
        for name in ("lion", "lionar", "rotational-adamw")
    },
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_the_peak_of_an_update(name: str) -> None:
    recipe = RECIPES[name]
    assert planned(recipe).peak.total == pytest.approx(measured_peak(recipe), rel=0.15)


def test_the_copies_of_a_measured_update() -> None:
    measure = MeasureConfig(every=1, what=("updates", "rrc"))
    recipe = replace(recipe_of(replace(MODEL, width=128), batch=1), measure=measure)
    memory = planned(recipe)
    assert memory.peak.name == MEASURED
    assert memory.peak.total == pytest.approx(measured_peak(recipe), rel=0.15)


@pytest.mark.parametrize(
    "name", ["adamw", "lion", "lionar", "muon", "rotational-adamw", "adafactor", "sgd"]
)
def test_optimizer_state_is_what_a_larger_model_has(name: str) -> None:
    model = ModelConfig(vocab_size=331, width=64, layers=3, heads=4, kv_heads=2, qk_norm=True)
    recipe = recipe_of(model, name)
    real = Transformer(model)
    optimizer = build_optimizer(real, recipe)
    for p in real.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    kept = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
    assert OptimizerCost.of(recipe).state(real) == pytest.approx(nbytes(kept), rel=0.05)


def test_ddp_and_fsdp_divide_what_they_divide() -> None:
    recipe = recipe_of(precision="bf16", batch=16, micro_batch=2)
    fsdp = replace(recipe, parallel=replace(recipe.parallel, mode="fsdp"))
    whole = 4 * MODEL.parameters()
    replicated, sharded = planned(recipe, 4).peak.kinds, planned(fsdp, 4).peak.kinds
    assert replicated["weights"] == replicated["gradients"] == whole
    assert sharded["weights"] == whole // 4
    assert sharded["optimizer state"] == replicated["optimizer state"] // 4
    assert sharded["activations"] == replicated["activations"]
    # Held whole from the first micro-batch to the last; in bf16 half of that.
    assert sharded["gradients before they are summed"] > whole
    bf16 = replace(fsdp, parallel=replace(fsdp.parallel, gather="bf16", reduce="bf16"))
    halved = planned(bf16, 4).peak.kinds
    assert halved["gradients before they are summed"] < whole
    assert "weights in bf16" not in halved
    pairs = replace(fsdp, parallel=replace(fsdp.parallel, replicas=2))
    assert planned(pairs, 4).peak.kinds["weights"] == whole // 2
    away = planned(replace(fsdp, parallel=replace(fsdp.parallel, offload=True)), 4)
    assert "weights" not in away.peak.kinds
    assert away.on_host == pytest.approx(whole, rel=0.01)  # weights, gradients, twice for AdamW, /4
