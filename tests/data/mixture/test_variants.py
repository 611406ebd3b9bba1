"""What is compared is trained on the same batches, whatever residual warmup a variant has."""

from __future__ import annotations

import pytest

from groundup.data import DataConfig
from groundup.data.mixture.part import MixturePart
from groundup.model import ModelConfig
from groundup.train import Recipe, ResidualConfig, TrainConfig
from groundup.train.recipe_file import expand, sweep

CURRICULUM = ((0, 0.9), ("warmup", 0.5))


def recipe(residual: ResidualConfig) -> Recipe:
    parts = (MixturePart("a", weight=CURRICULUM), MixturePart("b", weight=0.5))
    return Recipe(
        model=ModelConfig(layers=3),
        data=DataConfig(mixture=parts),
        residual=residual,
        train=TrainConfig(steps=100),
    )


def test_warmup_is_the_recipes_own_for_all() -> None:
    mixed = recipe(ResidualConfig("linear", T=7.5))
    changes = [
        {"name": "none", "residual": {"schedule": "none"}},
        {"name": "long", "residual": {"schedule": "linear", "fraction": 0.6}},
    ]
    variants = [*expand(mixed, []).values(), *expand(mixed, changes).values()]
    variants += [point.recipe for point in sweep({"": mixed}, {"residual.T": [2, 30]}).values()]
    assert len(variants) == 6
    for variant in variants:
        # Three layers of 7.5 updates: all at 1 after 22.5.
        assert variant.data.mixture[0].weight == ((0, 0.9), (23, 0.5))


def test_a_recipe_without_one_is_refused() -> None:
    changes = [{"name": "long", "residual": {"schedule": "linear", "fraction": 0.6}}]
    with pytest.raises(ValueError, match="the point 'warmup' is for all variants the end of"):
        expand(recipe(ResidualConfig()), changes)
