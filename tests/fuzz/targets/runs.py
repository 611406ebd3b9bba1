"""A run folder: a small run, finished, and the same stopped in the middle."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

from groundup.data import DataConfig
from groundup.model import ModelConfig
from groundup.train import MeasureConfig, Recipe, ResidualConfig, TrainConfig, train
from groundup.train.spikes.config import SpikesConfig
from tests.conftest import write_texts
from tests.fuzz.damage import damage
from tests.fuzz.structure import damage_json, damage_lines, damage_toml

STEPS, NEWEST = 8, 6  # the run that was stopped has a checkpoint before its newest, too


@dataclass(frozen=True)
class World:
    recipe: Recipe
    finished: Path
    stopped: Path


def make(folder: Path) -> World:
    texts = folder / "texts"
    texts.mkdir()
    write_texts(texts, Random(0))
    recipe = Recipe(
        name="small",
        model=ModelConfig(layers=2, width=16, heads=2),
        data=DataConfig(str(texts), validation_fraction=0.2, vocab_size=300, length=16,
                        folder=str(folder / "data")),
        residual=ResidualConfig("linear", T=2),
        train=TrainConfig(steps=STEPS, batch=4, precision="float32", compile=False, device="cpu",
                          eval_every=3, eval_tokens=64, checkpoint_every=2, keep=3),
        measure=MeasureConfig(every=2),
        spikes=SpikesConfig(window=2, threshold=1.0),
    )  # fmt: skip
    finished = folder / "finished"
    train(recipe, finished)
    stopped = folder / "stopped"
    shutil.copytree(finished, stopped)
    (stopped / "summary.json").unlink()
    shutil.rmtree(stopped / "checkpoints" / f"step-{STEPS:08d}")
    return World(recipe, finished, stopped)


def hurt(path: Path, draw: Random, others: list[Path]) -> None:
    """Damage to a file of a run folder, of the kind that its format has or of any."""
    content = path.read_bytes()
    kinds = {".json": damage_json, ".jsonl": damage_lines, ".toml": damage_toml}
    if path.suffix in kinds and content and draw.random() < 0.6:
        content = kinds[path.suffix](content.decode(), draw).encode("utf-8", "surrogatepass")
    else:
        content = damage(content, draw, [other.read_bytes() for other in others])
    path.write_bytes(content)
