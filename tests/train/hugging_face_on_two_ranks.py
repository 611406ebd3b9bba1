"""What two processes train of a GPT-2, against what one has trained in `folder / "one"`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from groundup.train import train
from tests.train.runs_on_two_ranks import FSDP, like_one, recipe_in


def check_ddp(folder: Path) -> None:
    train(recipe_in(folder), folder / "ddp")
    like_one(folder, folder / "ddp")


def check_fsdp(folder: Path) -> None:
    train(replace(recipe_in(folder), parallel=FSDP), folder / "fsdp")
    like_one(folder, folder / "fsdp")
