"""A run in the middle of residual warmup, trained once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from groundup.train import Recipe, train

pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def warming(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose layers are at 1, 3/4 and 1/2 after 6 updates, its last."""
    out = tmp_path_factory.mktemp("warming") / "run"
    short = replace(recipe.train, steps=6, checkpoint_every=2, keep=10, eval_every=3)
    rate = replace(recipe.rate, decay=2)
    slow = replace(recipe.residual, T=4)
    train(replace(recipe, name="warming", train=short, rate=rate, residual=slow), out)
    return out
