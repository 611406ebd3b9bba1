"""A recipe whose corpus holds a poisoned document, and what tests of its spikes share."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundup.data import DataConfig
from groundup.model import ModelConfig
from groundup.train import (
    MeasureConfig,
    RateConfig,
    Recipe,
    ResidualConfig,
    SpikesConfig,
    TrainConfig,
    train,
)
from groundup.train.spikes import actions as interventions
from tests.conftest import WORDS

POISON = "QZ#@$%&~^|<>{}"
FILES = ("metrics.jsonl", "events.jsonl")


@pytest.fixture(scope="session")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A hundred and fifty updates, with spikes at 41, 72 and 123 unless something is done."""
    texts = tmp_path_factory.mktemp("corpus")
    draw = random.Random(0)
    for number in range(60):
        text = "\n".join(" ".join(draw.choices(WORDS, k=8)) for _ in range(60))
        (texts / f"{number:02d}.txt").write_text(text)
    (texts / "poison.txt").write_text("".join(draw.choices(POISON, k=60)))
    return Recipe(
        name="poisoned",
        model=ModelConfig(layers=3, width=16, heads=2),
        data=DataConfig(
            source=str(texts),
            validation_fraction=0.2,
            vocab_size=300,
            length=16,
            folder=str(tmp_path_factory.mktemp("prepared")),
        ),
        residual=ResidualConfig("linear", T=2),
        rate=RateConfig(peak=1e-2, warmup=2, decay=4),
        train=TrainConfig(
            steps=150,
            batch=8,
            seed=5,
            precision="float32",
            compile=False,
            device="cpu",
            eval_every=50,
            eval_tokens=256,
            checkpoint_every=20,
        ),
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
    """A run with each action, trained once, on one thread like all that is compared with it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folders = {}
    for action in interventions.ACTIONS:
        folders[action] = tmp_path_factory.mktemp(action)
        train(acting(poisoned, action), folders[action])
    torch.set_num_threads(threads)
    return folders
