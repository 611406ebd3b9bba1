"""Recipes: TOML in and out, wrong keys and values, variants."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import DataConfig
from groundup.model import ModelConfig
from groundup.train import Recipe, ResidualConfig, TrainConfig, recipe_file, toml
from groundup.train.recipe import OptimizerConfig, RateConfig

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


recipes = st.builds(
    Recipe,
    name=st.from_regex(r"\w[\w.-]*", fullmatch=True),
    model=st.builds(
        ModelConfig,
        vocab_size=st.none() | st.integers(300, 9000),
        layers=st.integers(1, 50),
        placement=st.sampled_from(["pre", "post", "sandwich", "deepnorm", "lns", "output"]),
        tied=st.booleans(),
        z_loss=st.floats(0, 1),
    ),
    residual=st.builds(ResidualConfig, st.just("linear"), T=st.floats(0.1, 1e6))
    | st.builds(ResidualConfig, st.just("reverse"), fraction=st.floats(0.01, 1.0))
    | st.just(ResidualConfig()),
    optimizer=st.builds(OptimizerConfig, betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99))),
    rate=st.builds(
        RateConfig,
        peak=st.floats(1e-9, 1.0),
        warmup=st.integers(0, 20) | st.floats(0.01, 0.5),
        decay=st.just("rest") | st.integers(0, 20) | st.floats(0.01, 0.4),
        shape=st.sampled_from(["linear", "cosine", "sqrt"]),
    ),
    train=st.builds(TrainConfig, steps=st.integers(100, 10**7), seed=st.integers(0, 2**40)),
)


@given(recipes)
def test_toml_round_trip(recipe: Recipe) -> None:
    assert toml.build(tomllib.loads(toml.dumps(recipe))) == recipe


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_complete(path: Path) -> None:
    file = recipe_file.read(path)
    recipe, changes = file.recipe, file.changes
    assert recipe.name == path.stem
    assert recipe.residual.schedule != "none" or file.axes
    assert len(recipe_file.expand(recipe, changes)) >= 2
    assert recipe_file.find(path.stem) == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[trian]\nsteps = 3", "key='trian' is unknown: did you mean 'train'"),
        ("[train]\nstep = 3", r"key in \[train\]='step' is unknown: did you mean 'steps'"),
        ("[train]\nsteps = 3.5", "train.steps=3.5 is not valid: it must be a whole number"),
        ("[train]\nsteps = true", "train.steps=True is not valid"),
        ("[train]\nsteps = 0", r"\[train\] steps=0 is not valid"),
        ("[train]\nprecision = 'fp8'", "train.precision='fp8' .* one of 'bf16', 'float32'"),
        ("[train]\nbatch = 10\nmicro_batch = 4", "micro_batch=4 .* divide batch=10"),
        ("[train]\ncompile = 1", "train.compile=1 is not valid: it must be true or false"),
        ("[model]\nplacement = 'pre-ln'", "model.placement='pre-ln'"),
        ("[model]\npreset = '130m'", "130M"),
        ("[model]\npreset = '130M'\nwitdh = 3", r"key in \[model\]='witdh'.*'width'"),
        ("[residual]\nschedule = 'liner'\nT = 3", "schedule='liner'.*'linear'"),
        ("[residual]\nschedule = 'linear'", "exactly one of T, total, fraction"),
        ("[residual]\nschedule = 'linear'\nT = 3\ntotal = 5", "exactly one of T, total"),
        ("[residual]\nT = 3", "takes no length"),
        ("[optimizer]\nbetas = [0.9]", "optimizer.betas="),
        ("[optimizer]\nbetas = [0.9, 1.0]", "betas="),
        ("[rate]\npeak = -1.0", "peak=-1.0"),
        ("[rate]\nwarmup = 1.5", "warmup=1.5"),
        ("[rate]\nwarmup = 900\n[train]\nsteps = 500", "longer than the run of 500"),
        ("[rate]\ndecay = 'all'", "decay='all' is not valid: write it like"),
        ("train = 3", r"\[train\] must be a table"),
        ("[train", "is not valid TOML"),
        ("[[variants]]\nname = 3", "needs a name"),
        ("[[variants]]\nname = '../up'", "name='../up' is not valid"),
        ("name = '../up'", "name='../up' is not valid"),
        ("name = ''", "name='' is not valid"),
        ("[[variants]]\nname = 'a'\n[[variants]]\nname = 'a'", "used more than once"),
        ("[[variants]]\nname = 'a'\n[variants.modl]\nx = 1", "key='modl'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as caught:
        recipe_file.read(path)
    assert str(path) in str(caught.value)


def test_unknown_recipe_names_get_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'quickstart'"):
        recipe_file.find("quikstart")


def test_preset_is_expanded_and_its_fields_can_be_changed(tmp_path: Path) -> None:
    text = "[model]\npreset = '71M'\nlayers = 24\nplacement = 'post'"
    model = recipe_file.read(written(tmp_path, text)).recipe.model
    assert (model.width, model.layers, model.placement) == (512, 24, "post")


def test_without_variants_the_recipe_is_compared_with_no_warmup(tmp_path: Path) -> None:
    file = recipe_file.read(written(tmp_path, "[residual]\nschedule = 'equal'\nT = 5"))
    recipe, changes = file.recipe, file.changes
    variants = recipe_file.expand(recipe, changes)
    assert list(variants) == ["baseline", "equal"]
    assert variants["baseline"].residual == ResidualConfig()
    same = dataclasses.replace(variants["baseline"], variant="equal", residual=recipe.residual)
    assert same == variants["equal"]


def test_variants_change_fields_and_replace_the_residual_table(tmp_path: Path) -> None:
    text = """
    [model]
    layers = 6
    [residual]
    schedule = "linear"
    T = 7
    [[variants]]
    name = "a"
    [[variants]]
    name = "b"
    model.placement = "post"
    residual.schedule = "equal"
    residual.fraction = 0.5
    """
    file = recipe_file.read(written(tmp_path, text))
    recipe, changes = file.recipe, file.changes
    # What the command line changes afterwards reaches every variant.
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=44))
    variants = recipe_file.expand(recipe, changes)
    assert variants["a"].residual == ResidualConfig("linear", T=7.0)
    assert variants["b"].residual == ResidualConfig("equal", fraction=0.5)
    assert variants["b"].model == ModelConfig(layers=6, placement="post")
    assert {v.train.steps for v in variants.values()} == {44}


def test_a_variants_held_out_text_replaces_the_share_of_the_source(tmp_path: Path) -> None:
    text = "[data]\nvalidation_fraction = 0.1\n[[variants]]\nname = 'a'\n[[variants]]\nname = 'b'\n"
    file = recipe_file.read(written(tmp_path, text + "data.validation = 'held-out.jsonl'"))
    variants = recipe_file.expand(file.recipe, file.changes)
    assert variants["a"].data.validation_fraction == 0.1
    assert variants["b"].data == DataConfig(validation="held-out.jsonl")


def test_a_variant_with_a_preset_takes_the_whole_preset(tmp_path: Path) -> None:
    text = "[model]\nlayers = 3\n[[variants]]\nname = 'a'\n[[variants]]\nname = 'b'\n"
    file = recipe_file.read(written(tmp_path, text + "model = {preset = '350M'}"))
    recipe, changes = file.recipe, file.changes
    model = recipe_file.expand(recipe, changes)["b"].model
    assert (model.layers, model.width) == (24, 1024)


def test_differences_are_dotted_fields() -> None:
    a = Recipe(residual=ResidualConfig("linear", T=3))
    b = dataclasses.replace(a, residual=ResidualConfig("linear", total=9), name="other")
    assert toml.differences(a, b) == {
        "name": ("run", "other"),
        "residual.T": (3, None),
        "residual.total": (None, 9),
    }


def test_rate_factor_without_warmup_or_decay_is_constant() -> None:
    factor = RateConfig(warmup=0, decay=0).factor(None)
    assert {factor(step, 10) for step in range(10)} == {1.0}


def test_decay_over_the_rest() -> None:
    factor = RateConfig(warmup=2, decay="rest", shape="cosine", floor=0.1).factor(None)
    assert factor.lengths(12) == [2, 10]
