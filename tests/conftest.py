"""A small corpus and a small recipe, made once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from groundup.data import DataConfig
from groundup.model import ModelConfig
from groundup.train import OptimizerConfig, RateConfig, Recipe, ResidualConfig, TrainConfig
from tests.residual.where.pairs import folder, outcomes  # noqa: F401

WORDS = [
    "if", "else", "for", "in", "while", "def", "return", "self", "x", "y", "=", "+", "(", ")", ":",
    "1", "2", "None", "True", "import", "from",
]  # fmt: skip


# The files that take longest, by their names.
LONG = (
    *("test_parallel.py", "test_faults.py", "test_rewinds.py", "test_reliability.py"),
    *("test_spikes.py", "test_suspects.py", "test_layers.py", "test_checkpoint_ranks.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, or one worker has one of them left when the other has nothing to do."""
    place = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


def pytest_configure() -> None:
    """Several threads only wait for each other over matrices this small. From the start: runs that
    are to be equal to the bit must not differ in threads, whichever fixture trains them."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = tmp_path_factory.mktemp("corpus")
    write_texts(texts, random.Random(0))
    return texts


def write_texts(texts: Path, draw: random.Random) -> None:
    """Sixty documents of random words."""
    for number in range(60):
        lines = (" ".join(draw.choices(WORDS, k=8)) for _ in range(60))
        (texts / f"{number:02d}.txt").write_text("\n".join(lines))


@pytest.fixture(scope="session")
def recipe(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Twelve updates of a three-layer model with residual warmup, in well under a second."""
    return Recipe(
        name="small",
        model=ModelConfig(layers=3, width=16, heads=2),
        data=DataConfig(
            source=str(corpus),
            validation_fraction=0.2,
            vocab_size=300,
            length=16,
            folder=str(tmp_path_factory.mktemp("prepared")),
        ),
        residual=ResidualConfig("linear", T=2),
        optimizer=OptimizerConfig(),
        rate=RateConfig(peak=3e-3, warmup=2, decay=4),
        train=TrainConfig(
            steps=12,
            batch=8,
            precision="float32",
            compile=False,
            device="cpu",
            eval_every=5,
            eval_tokens=256,
            checkpoint_every=4,
        ),
    )
