"""A recipe whose corpus holds a poisoned document, and what tests of its spikes share."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.train import (
    MeasureConfig,
    Recipe,
    SpikesConfig,
    train,
)
from groundup.train.spikes import actions as interventions
from tests.conftest import write_texts
from tests.train.runs import changed

POISON = "QZ#@$%&~^|<>{}"
FILES = ("metrics.jsonl", "events.jsonl")


@pytest.fixture(scope="session")
def poisoned(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A hundred and fifty updates, with spikes at 41, 72 and 123 unless something is done."""
    texts = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    write_texts(texts, draw)
    (texts / "poison.txt").write_text("".join(draw.choices(POISON, k=60)))
    folder = str(tmp_path_factory.mktemp("prepared"))
    longer = changed(recipe, steps=150, seed=5, eval_every=50, checkpoint_every=20)
    return replace(
        longer,
        name="poisoned",
        data=replace(recipe.data, source=str(texts), folder=folder),
        rate=replace(recipe.rate, peak=1e-2),
        spikes=SpikesConfig(window=20),
        measure=MeasureConfig(every=0),
    )


def acting(recipe: Recipe, action: str, **fields) -> Recipe:
    return replace(recipe, spikes=replace(recipe.spikes, action=action, **fields))


class Listening:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def update(self, status) -> None:
        pass


def contents(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture(scope="session")
def undisturbed(poisoned: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with each action, trained once."""
    folders = {}
    for action in interventions.ACTIONS:
        folders[action] = tmp_path_factory.mktemp(action)
        train(acting(poisoned, action), folders[action])
    return folders
