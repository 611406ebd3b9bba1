"""GPT-2 124M of the warmup study, arXiv:2410.23922, with its setup written out here."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from groundup.model.kinds import kind_of
from groundup.train.cost import Device, estimate
from groundup.train.settings import OptimizerConfig
from groundup.train.setup import build_optimizer
from tests.recipes.shipped import runs

NAME = "gpt2-need-for-warmup"
PEAKS = (6e-4, 1.2e-3, 2.4e-3)
# Share of the run → updates of 5000.
WARMUPS = {0: 0, 0.02: 100, 0.05: 250, 0.1: 500, 0.2: 1000, 0.5: 2500}
BEST = {"beta": 0.98, "nesterov": True, "bias_correction": "inverse"}
OPTIMIZERS = {
    "adamw": OptimizerConfig("adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
    "liona": OptimizerConfig("liona", weight_decay=0.1, options={"beta": 0.9}),
    "lionar": OptimizerConfig("lionar", weight_decay=0.1, options={"beta": 0.9}),
    "lionar-rrc": OptimizerConfig("lionar", weight_decay=0.1, options={"beta": 0.9}, rrc=True),
    "lionar-no-momentum": OptimizerConfig("lionar", weight_decay=0.1, options={"beta": 0.0}),
    "lionar-nesterov-inverse": OptimizerConfig("lionar", weight_decay=0.1, options=BEST),
    "liona-nesterov-inverse": OptimizerConfig("liona", weight_decay=0.1, options=BEST),
}


def test_the_grid() -> None:
    found = runs(NAME)
    assert len(found) == len(OPTIMIZERS) * len(PEAKS) * len(WARMUPS)
    for name, optimizer in OPTIMIZERS.items():
        for peak in PEAKS:
            for share, updates in WARMUPS.items():
                recipe = found[f"{name}.peak-{peak}.warmup-{share}"]
                assert recipe.optimizer == optimizer
                assert recipe.optimizer.clip == 1.0
                assert recipe.rate.peak == peak
                assert recipe.residual.schedule == "none"
                assert (recipe.train.steps, recipe.train.batch) == (5000, 480)
                assert recipe.data.length == 1024
                # The trapezoid: up, level, and down to zero over the second half.
                factor = recipe.factor()
                for step in range(0, 2500, 499):
                    expected = min(1.0, (step + 1) / updates) if updates else 1.0
                    assert factor(step) == pytest.approx(expected)
                for step in range(2500, 5000, 499):
                    assert factor(step) == pytest.approx(1 - (step - 2500) / 2500, abs=1 / 2500)


def test_the_model_is_gpt2_without_dropout() -> None:
    recipe = next(iter(runs(NAME).values()))
    with torch.device("meta"):
        model = kind_of(recipe.model).make(recipe.model)
    width, layers = 768, 12
    embeddings = (50_257 + 1024) * width
    # Matrices of 3 + 1 + 4 + 4 squares, their biases, two norms.
    layer = 12 * width**2 + (3 + 1 + 4 + 1) * width + 2 * 2 * width
    expected = embeddings + layers * layer + 2 * width
    assert sum(p.numel() for p in model.parameters()) == expected == recipe.model.parameters()
    assert expected == pytest.approx(124e6, rel=0.01)
    dropouts = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts
    assert set(dropouts) == {0.0}
    assert estimate(recipe, Device(gpus=8, memory=80.0)).fits


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_each_optimizer_takes_the_model(name: str) -> None:
    recipe = runs(NAME)[f"{name}.peak-0.0006.warmup-0"]
    with torch.device("meta"):
        model = kind_of(recipe.model).make(recipe.model)
    groups = build_optimizer(model, recipe).param_groups
    taken = [parameter for group in groups for parameter in group["params"]]
    assert {id(p) for p in taken} == {id(p) for p in model.parameters()}
    decayed = sum(p.numel() for g in groups if g["weight_decay"] > 0 for p in g["params"])
    assert decayed == 12 * 12 * 768**2  # the matrices of the layers, not the embeddings
