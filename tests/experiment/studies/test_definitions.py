"""What the studies are made of: arms, what is said of them, what they cost, what was published."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from groundup.experiment.studies import NAMES, named
from groundup.experiment.studies.arms import Arm, RecipeArm
from groundup.experiment.studies.shown import Layers, Lines
from groundup.experiment.studies.study import Setting
from groundup.experiment.studies.trials import peaks
from groundup.report.published import setting as published
from groundup.train import recipe_file
from groundup.train.recipe import Recipe
from tests.recipes.shipped import runs

OF_RECIPES = tuple(name for name in NAMES if name != "resnet")
EVERY = [(name, scale) for name in OF_RECIPES for scale in named(name).settings]
# Study → the published recipe.
PAPER = {
    "placement": "c4-130m",
    "schedules": "c4-350m-schedules",
    "depth": "c4-71m-depth",
    "dynamics": "c4-1.3b",
    "need-for-warmup": "gpt2-need-for-warmup",
}
# What figures show → what [measure] calls it.
WORDS = {
    "stream_norm": "stream",
    "branch_ratio": "stream",
    "similarity": "similarity",
    "skip_loss": "depth",
    "relative_update": "updates",
    "update_norm": "updates",
    "row_angle": "updates",
    "phi": "noise",
    "rrc": "rrc",
}
NUMBERS = re.compile(r"([\d.]+|diverged) < ([\d.]+|diverged)")


@pytest.fixture(scope="module", autouse=True)
def _files_are_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe_file, "read", functools.cache(recipe_file.read))
        yield


@functools.cache
def arms(name: str, scale: str) -> Mapping[str, Arm]:
    return named(name).arms(scale)


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_trained_on_other_text_with_a_held_out_one(name: str, scale: str) -> None:
    """Whatever part of its own text the study holds out."""
    setting = named(name).setting(scale)
    text = {"source": "mine.jsonl", "validation": "held-out.jsonl"}
    for arm in setting.arms(setting.change | {"data": text}).values():
        assert isinstance(arm, RecipeArm)
        data = arm.recipe.data
        assert (data.source, data.validation) == ("mine.jsonl", "held-out.jsonl")


def recipes(name: str, scale: str) -> Mapping[str, Recipe]:
    return {key: arm.recipe for key, arm in arms(name, scale).items() if isinstance(arm, RecipeArm)}


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_no_two_arms_are_the_same_training(name: str, scale: str) -> None:
    """A difference between two of them would be 0, and an arm would have been forgotten."""
    found = [replace(recipe, variant="") for recipe in recipes(name, scale).values()]
    assert found
    for one, other in itertools.combinations(found, 2):
        assert one != other


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_is_said_of_arms(name: str) -> None:
    study = named(name)
    known = {arm for scale in study.settings for arm in arms(name, scale)}
    here = set(arms(name, "cpu"))
    assert study.name == name
    assert {arm for claim in study.claims for arm in claim.arms} <= here
    assert all(claim.better != claim.worse and claim.source for claim in study.claims)
    said = [claim.arms for claim in study.claims]
    assert len(set(said)) == len(said)
    assert {*study.baselines, *study.baselines.values()} <= known
    assert all(arm != base for arm, base in study.baselines.items())
    for grid in study.grids:
        cells = [arm for row in grid.cells.values() for arm in row.values()]
        assert set(cells) <= known
        assert len(set(cells)) == len(cells)
    for figure in study.figures:
        lines = figure.lines.values() if isinstance(figure, Lines) else [figure.arms]
        assert {arm for line in lines for arm in line} <= known
        if getattr(figure, "paired", False):
            assert set(figure.arms) <= study.baselines.keys()
            assert not figure.log
    files = [figure.name for figure in study.figures]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("name", OF_RECIPES)
def test_what_figures_show_is_measured(name: str) -> None:
    for figure in named(name).figures:
        if isinstance(figure, Lines) or figure.measured == "loss":
            continue
        if figure.measured == "evaluation":
            for scale in named(name).settings:
                trains = [recipe.train for recipe in recipes(name, scale).values()]
                assert min(train.steps / train.eval_every for train in trains) >= 10
            continue
        word = WORDS[figure.measured.partition("/")[0]]
        for scale in named(name).settings:
            if scale == "paper" and name == "need-for-warmup":
                continue  # what was published is trained as it was
            for arm in set(figure.arms) & set(recipes(name, scale)):
                measure = recipes(name, scale)[arm].measure
                assert measure.covers(word), (scale, arm, word)
                if not isinstance(figure, Layers):
                    last = figure.until or recipes(name, scale)[arm].train.steps
                    assert last / measure.every >= 10, (scale, figure.name)


# Updates of 12 × 64 take 70 seconds of one core where 400 of them are made of 8 × 128 tokens.
SECONDS = 70
HOURS = 2 * 2  # two hours of two cores
GPU_RUNS = 60  # of half a minute: half an hour of an H200


def flops(recipe: Recipe) -> float:
    vocabulary = recipe.model.vocab_size or recipe.data.vocab_size
    model = replace(recipe.model, vocab_size=vocabulary)
    tokens = recipe.train.steps * recipe.train.batch * recipe.data.length
    return float(tokens * model.flops_per_token(recipe.data.length))


def runs_of_an_arm(setting: Setting) -> int:
    tried = len(setting.multiples)
    return setting.seeds + (tried if tried > 1 else 0)


def shares(name: str, scale: str) -> Iterator[float]:
    """What the runs cost, a run of the placement study at this scale being 1."""
    unit = flops(recipes("placement", scale)["pre-ln"])
    for recipe in recipes(name, scale).values():
        yield from [flops(recipe) / unit] * runs_of_an_arm(named(name).setting(scale))


@pytest.mark.parametrize("name", OF_RECIPES)
def test_a_study_takes_at_most_two_hours_of_two_cores(name: str) -> None:
    assert math.fsum(shares(name, "cpu")) * SECONDS / 3600 <= HOURS


@pytest.mark.parametrize("name", OF_RECIPES)
def test_a_study_takes_at_most_half_an_hour_of_a_gpu(name: str) -> None:
    """Half of a run's half a minute is its start: processes, compilation."""
    assert round(math.fsum(0.5 + 0.5 * share for share in shares(name, "gpu"))) <= GPU_RUNS


@pytest.mark.parametrize("name", sorted(PAPER))
def test_the_paper_scale_is_the_published_recipe(name: str) -> None:
    setting, known = named(name).setting("paper"), runs(PAPER[name])
    unnamed = [replace(one, variant="") for one in known.values()]
    assert setting.change == {}
    for arm, recipe in recipes(name, "paper").items():
        assert known[recipe.variant] == recipe, arm
        for peak in peaks(RecipeArm(recipe), setting):
            tuned = replace(recipe, variant="", rate=replace(recipe.rate, peak=peak))
            assert tuned in unnamed, (arm, peak)


@pytest.mark.parametrize("name", sorted(PAPER))
def test_an_arm_is_at_every_scale_what_its_name_says(name: str) -> None:
    ours = recipes(name, "cpu")
    for scale in ("gpu", "paper"):
        for arm, theirs in recipes(name, scale).items():
            if arm not in ours:
                continue
            here = ours[arm]
            assert here.residual.schedule == theirs.residual.schedule
            assert here.residual.dormant == theirs.residual.dormant
            assert here.optimizer.name == theirs.optimizer.name
            assert here.optimizer.rrc == theirs.optimizer.rrc
            if scale == "gpu" or name != "need-for-warmup":  # there GPT-2
                assert here.model.placement == theirs.model.placement
            if name == "depth":
                assert here.model.layers == theirs.model.layers
            if name == "need-for-warmup":
                assert here.rate.warmup == theirs.rate.warmup
                assert here.rate.decay == theirs.rate.decay == 0.5
            if name in ("schedules", "depth"):
                # 1k of 60k updates are called 2%.
                assert share(here) == pytest.approx(share(theirs), rel=0.21), arm


@pytest.mark.parametrize("name", ["schedules", "deep"])
def test_layers_wait_for_the_same_part_of_the_run_at_every_scale(name: str) -> None:
    """Also where it is said in updates, as S of `cascade` is."""
    longest = 0.0
    for arm, theirs in recipes(name, "gpu").items():
        waits = _waits(theirs)
        assert waits == pytest.approx(_waits(recipes(name, "cpu")[arm]), abs=0.003), arm
        longest = max(longest, *waits)
    assert longest > 0.25


def _waits(recipe: Recipe) -> list[float]:
    """Of its layers, as parts of the run."""
    steps = recipe.train.steps
    waits = recipe.residual.resolve(steps).waits(recipe.model.layers)
    return [wait / steps for wait in waits]


def share(recipe: Recipe) -> float:
    """Of the run, until every layer is at 1; -1 where it does not come to that."""
    end = recipe.warmup_end or 0.0
    return end / recipe.train.steps if math.isfinite(end) else -1.0


@pytest.mark.parametrize("name", ["dynamics", "placement", "schedules"])
def test_claims_say_the_published_numbers(name: str) -> None:
    """Those of the paper's tables that stand beside the arms of its own scale."""
    checked = 0
    for claim in named(name).claims:
        found = [recipes(name, "paper").get(arm) for arm in (claim.better, claim.worse)]
        if None in found or ("Table 6" in claim.source and name == "placement"):
            continue
        entries = [published.entry(recipe) for recipe in found if recipe is not None]
        values = [entry.perplexity for entry in entries if entry is not None]
        said = ["diverged" if math.isinf(value) else f"{value:.2f}" for value in values]
        assert values == sorted(values)
        assert tuple(said) in NUMBERS.findall(claim.source), claim
        checked += 1
    assert checked >= 2


@pytest.mark.parametrize("name", ["schedules", "relatives", "rate-and-residual"])
def test_what_was_not_published_is_not_said_to_be(name: str) -> None:
    for claim in named(name).claims:
        is_published = claim.source.startswith("arXiv:")
        assert is_published or claim.source.startswith("not published"), claim
        assert bool(NUMBERS.search(claim.source)) == is_published, claim
