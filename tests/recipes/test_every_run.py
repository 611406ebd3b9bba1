"""A dry run of every shipped run: its model on the meta device, its plan, its courses."""

from __future__ import annotations

import functools
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundup.model import ModelConfig, Transformer
from groundup.train.recipe import Recipe
from groundup.train.recipe_file import find
from tests.recipes.shipped import FOLDER, NAMES, file, runs

DOCS = Path(__file__).parents[2] / "docs"
# What the paper calls a model of these widths and layers (71M: of 12).
CALLED = {(512, 12): 71e6, (768, 12): 130e6, (1024, 24): 350e6, (2048, 24): 1.3e9, (4096, 32): 7e9}
PAPER = [name for name in NAMES if name.startswith(("c4-", "climbmix"))]


@functools.cache
def built(config: ModelConfig) -> int:
    """Parameters of the model, counted."""
    with torch.device("meta"):
        model = Transformer(config)
    assert model.head.weight.device.type == "meta"
    return sum(parameter.numel() for parameter in model.parameters())


def by_hand(config: ModelConfig) -> int:
    """Parameters of a Llama without shared heads: four square matrices and three of the
    feed-forward a layer, two norms (Sandwich-LN: four), embedding, head, a last norm."""
    assert config.feed_forward is not None
    assert config.vocab_size is not None
    norms = 4 if config.placement == "sandwich" else 2
    width = config.width
    layer = 4 * width * width + 3 * width * config.feed_forward + norms * width
    return config.layers * layer + 2 * config.vocab_size * width + width


@pytest.mark.parametrize("name", PAPER)
def test_models_have_the_published_size(name: str) -> None:
    for label, recipe in runs(name).items():
        model = recipe.model
        # How weights start changes no size, and the 120 layers take their time.
        count = built(replace(model, init="normal"))
        assert count == model.parameters() == by_hand(model), label
        if called := CALLED.get((model.width, model.layers)):
            assert count == pytest.approx(called, rel=0.1), label


@pytest.mark.parametrize("label", sorted(runs("c4-350m")))
def test_methods_build_as_they_start(label: str) -> None:
    model = runs("c4-350m")[label].model
    assert built(model) == by_hand(model)


def hours(recipe: Recipe) -> float:
    """On one H100 at 40% of 989 TFLOP/s: 6 FLOPs a parameter and token, and attention's."""
    model, length = recipe.model, recipe.data.length
    assert model.vocab_size is not None
    inner = by_hand(model) - model.vocab_size * model.width
    attention = 12 * model.layers * model.width * length
    tokens = recipe.train.steps * recipe.train.batch * length
    return tokens * (6 * inner + attention) / (0.4 * 989e12) / 3600


def test_every_plan_fits_on_eight_gpus_and_the_page_says_what_it_takes() -> None:
    """The authors had eight GPUs of 80 GiB. One test, because plans of 120 layers take a while."""
    page = runpy.run_path(str(DOCS / "recipes.py"))
    plans = {name: page["planned"](runs(name).values()) for name in NAMES}
    for name, found in plans.items():
        for (label, recipe), plan in zip(runs(name).items(), found, strict=True):
            assert plan.fits, label
            assert plan.device.bytes == 80 * 2**30
            if name in PAPER:
                assert plan.device.gpus == 8
                assert plan.gpu_hours == pytest.approx(hours(recipe)), label
    # Not so? python docs/recipes.py
    assert page["table"](plans) in (DOCS / "recipes.md").read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_courses_resolve(name: str) -> None:
    for label, recipe in runs(name).items():
        steps, layers = recipe.train.steps, recipe.model.layers
        schedule, factor = recipe.residual.resolve(steps), recipe.factor()
        assert 0.0 < factor(0) <= 1.0, label
        assert 0.0 < factor(steps - 1) <= 1.0, label
        for step in (0, steps // 2, steps):
            alphas = schedule(step, layers)
            assert len(alphas) == layers
            assert all(0.0 <= alpha <= 1.0 for alpha in alphas), label
        # What warms up has done so before the rate decays.
        if 0 < (recipe.warmup_end or 0) < float("inf"):
            assert recipe.warmup_end <= steps - steps * recipe.rate.decay, label


@pytest.mark.parametrize("name", NAMES)
def test_runs_have_folders_of_their_own(name: str) -> None:
    """Also where the file system does not tell "L" from "l"."""
    labels = [label.casefold() for label in runs(name)]
    assert len(set(labels)) == len(labels)
    assert [recipe.name for recipe in runs(name).values()] == [Path(name).name] * len(labels)


OWN = {"c4-350m-schedules": "pre-ln-linear-24k", "c4-71m-depth": "pre-ln-prores-12"}
OWN |= {"climbmix": "130m-prores"}


@pytest.mark.parametrize("name", PAPER)
def test_the_recipe_itself_is_the_papers_method_on_pre_ln(name: str) -> None:
    own = runs(name)[OWN.get(name, "pre-ln-prores")]
    assert replace(file(name).recipe, variant=own.variant) == own
    assert (own.model.placement, own.residual.schedule) == ("pre", "linear")


def test_all_recipes_stand_where_they_are_looked_for() -> None:
    assert {*FOLDER.rglob("*.toml")} == {find(name) for name in NAMES}


@pytest.mark.parametrize("name", PAPER)
def test_no_two_variants_are_the_same(name: str) -> None:
    found = runs(name).values()
    assert len({(r.model, r.residual, r.rate) for r in found}) == len(found)
