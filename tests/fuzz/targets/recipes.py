"""Recipes: the shipped ones, damaged, read as `groundup schedule` and `groundup train` do."""

from __future__ import annotations

from pathlib import Path
from random import Random

from groundup.train import recipe_file, toml
from tests.fuzz.damage import damage
from tests.fuzz.structure import damage_toml
from tests.fuzz.targets.command import run
from tests.fuzz.trial import Target, Trial, Wrong

SHIPPED = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))


def _make(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in SHIPPED]


def _draw(texts: list[bytes], draw: Random, folder: Path) -> Trial:
    which = draw.randrange(len(texts))
    if draw.random() < 0.7:
        content = damage_toml(texts[which].decode(), draw).encode("utf-8", "surrogatepass")
    else:
        content = damage(texts[which], draw, texts)
    path = folder / "damaged.toml"
    path.write_bytes(content)
    return Trial(SHIPPED[which].name, lambda: _read(path, texts[which]), (str(path),))


def _read(path: Path, before: bytes) -> str:
    # What is valid may be a plan for a thousand years: only what is refused goes to `train`.
    for command in (["schedule", "table", str(path)], ["train", str(path), "--out", f"{path}.run"]):
        try:
            found = recipe_file.read(path)
        except ValueError as error:
            run(command, expect=f"groundup: {error}")
            if command[0] == "train":
                raise
    code, _, said = run(["schedule", "table", str(path)])
    if code:
        raise ValueError(f"{path}: {said}")
    (again := path.with_name("again.toml")).write_text(toml.dumps(found.recipe))
    if toml.differences(found.recipe, recipe_file.read(again).recipe):
        raise Wrong("the recipe is another once it has been written and read")
    return "whole" if path.read_bytes() == before else "other"


TARGET = Target("recipes", _make, _draw, few=15)
