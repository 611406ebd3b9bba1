"""[[data.mixture]] in recipes and flags."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import groundup as gu
from groundup.commands._options import parse, recipe_named
from groundup.data import DataConfig, MixturePart
from groundup.train import Recipe, toml
from groundup.train.recipe_file import expand

MOMENTS = ["0%", 0, 100, "24%", 0.5, 900, 1.0, "1B tokens"]  # of 1000 updates, in order
moments = st.lists(st.sampled_from(range(len(MOMENTS))), min_size=1, max_size=4).map(sorted)
numbers = st.floats(0.01, 1e6)
weights = (
    numbers
    | st.integers(1, 9)
    | st.builds(
        lambda when, values: tuple((MOMENTS[i], v) for i, v in zip(when, values, strict=False)),
        moments,
        st.lists(numbers, min_size=4, max_size=4),
    )
    | st.just((("warmup", 0.5), ("90%", 1.0)))
    | st.just((0.5 * (gu.factor.linear(0.24) >> gu.factor.hold())).plain())
)
names = st.from_regex(r"[a-z][\w.-]*", fullmatch=True).filter(lambda name: name != "positions")
parts = st.lists(
    st.builds(
        MixturePart,
        source=st.sampled_from(["a/web.jsonl.gz", "code", "python"]),
        name=names,
        weight=weights,
        validation=st.none() | st.just("held.txt"),
        text_field=st.sampled_from(["text", "content"]),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda part: part.name,
).map(tuple)


@given(parts)
@settings(max_examples=40, deadline=None)
def test_toml_round_trip(mixture: tuple[MixturePart, ...]) -> None:
    recipe = Recipe(data=DataConfig(mixture=mixture))
    text = toml.dumps(recipe)
    again = toml.build(tomllib.loads(text))
    assert again == recipe
    assert toml.differences(recipe, again) == {}
    # Nothing is said that is not used.
    assert not {"source", "validation", "text_field"} & tomllib.loads(text)["data"].keys()


def test_names_come_from_the_source() -> None:
    sources = ["a/web.v2.jsonl.gz", "code/", "/data/C++ code", "python", "./python"]
    sources += ["dataset:some/fine-web?config=a&split=train", "s3://bucket/wiki/*.parquet"]
    found = [MixturePart(source).name for source in sources]
    assert found == ["web", "code", "C-code", "python", "python", "fine-web", "wiki"]


def test_a_change_of_the_mixture_is_seen() -> None:
    def recipe(weight: Any) -> Recipe:
        return Recipe(data=DataConfig(mixture=(MixturePart("a", weight=weight),)))

    assert set(toml.differences(recipe(1.0), recipe(0.5))) == {"data.mixture"}
    both = toml.differences(Recipe(), recipe(1.0))
    assert set(both) == {"data.mixture", "data.source", "data.text_field"}


def test_who_follows_the_residual_warmup() -> None:
    def config(weight: Any) -> DataConfig:
        return DataConfig(mixture=(MixturePart("a"), MixturePart("b", weight=weight)))

    assert config([[0, 1], ["warmup", 2]]).follows_warmup
    assert not config([[0, 1], ["20%", 2]]).follows_warmup
    assert not DataConfig().follows_warmup
    assert len(config([[0, 1], ["warmup", 2]]).shares(100, 8, warmup_end=30.0)) == 31


def test_flags_keep_the_mixture(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("""
        [[data.mixture]]
        source = "web.jsonl"
        weight = [["0%", 0.9], [1000, 0.5]]
        [[data.mixture]]
        source = "code"
        weight = {chain = [{name = "linear", length = 0.24}, {name = "hold"}]}
        """)
    file, rest = recipe_named([str(path), "--data.length", "64"])
    changed = parse(file.recipe, "train", rest)
    assert changed.data.mixture == file.recipe.data.mixture
    assert changed.data.length == 64
    (variant,) = expand(
        changed, [{"name": "one", "data": {"mixture": [{"source": "code", "weight": 2}]}}]
    ).values()
    assert variant.data.mixture == (MixturePart("code", weight=2.0),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data.mixture = 3", "data.mixture=3 is not valid: it must be a list of tables"),
        ("measure.what = 3", "measure.what=3 is not valid: it must be a list of strings"),
        ("data.mixture = ['a']", r"\[data.mixture\] must be a table, not 'a'"),
        ("[[data.mixture]]\nweight = 1", r"\[data.mixture\] source='' is not valid: every part"),
        ("[[data.mixture]]\nsource = 3", "data.mixture.source=3 is not valid"),
        ("[[data.mixture]]\nsource = 'a'\nwieght = 1", "did you mean 'weight'"),
        ("[[data.mixture]]\nsource = 'a'\nweight = 'x'", "weight of 'a'='x' is not valid"),
        ("[[data.mixture]]\nsource = 'a'\nname = 'a/b'", "name='a/b' of source='a'"),
        ("[[data.mixture]]\nsource = 'positions'", "name='positions' .*give|not be 'positions'"),
        ("data.mixture = [{source = 'x/a'}, {source = 'y/a'}]", "'a' is used more than once"),
        ("data.source = 'b'\ndata.mixture = [{source = 'a'}]", "source='b' would be ignored"),
        ("data.text_field = 'b'\ndata.mixture = [{source = 'a'}]", "text_field='b' would be"),
        ("data.validation = 'b'\ndata.mixture = [{source = 'a'}]", "validation='b' would be"),
        ("data.mixture = [{source = 'a', validation = 'python'}]", "mixture, 'a': validation='py"),
        (
            "data.validation_fraction = 0.1\ndata.mixture = [{source = 'a', validation = 'b'}]",
            "validation_fraction=0.1 would be ignored",
        ),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toml.build(tomllib.loads(text))
