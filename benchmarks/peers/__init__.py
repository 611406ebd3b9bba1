"""Programs that train the same model on the same tokens, one module each, for throughput.py.

A module has

    ABOUT     a line on what is run and what is different in it;
    OPTIONS   which of those below it knows;
    train(task, updated)
              trains `task` until the process ends, calling `updated(loss)` once after each update,
              with the batch's mean cross-entropy (a number or tensor, read at the first update
              only, and not copied before);
    flops_per_token(task), where its model is not `task.config`.

What a peer's own program does in an update stays in it: its loop is run where it can be, with
settings at their best, and only what is not the update (saving, evaluation, logging) is turned off.
The program itself is not here: it is installed, or its folder is given (``--peer NAME=PATH``).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from groundup.model import ModelConfig

Updated = Callable[[Any], None]

PEERS = ("ours", "hf", "nanogpt", "litgpt", "torchtitan", "prores")
OPTIONS = ("compiled", "warmup", "measuring")
"""compiled: torch.compile as the program does it; warmup: residual warmup `linear`, α < 1
throughout; measuring: with the measurements that a recipe has unless it says otherwise."""

STEPS = 100_000
"""Updates of a run: more than are ever made, so that nothing of its end is timed."""

CLIP, DECAY, BETAS = 1.0, 0.1, (0.9, 0.95)
RATE = 1e-4
"""What all optimizers have; the first update is made at another rate in some, which costs alike."""


class NotHere(Exception):
    """A peer cannot be run here: says why."""


@dataclass(frozen=True)
class Task:
    """What one process trains.

    Attributes:
        arm: peer and options, "hf+compiled".
        path: where the peer's program lies; None where it is installed.
        folder: the process's own, for what its program writes.
        shared: holds rows.npy, weights.pt and tokens.bin, the same for all.
        model: the fields of a groundup ModelConfig that are not as they are by themselves.
        data: likewise of a DataConfig.
        precision: "float32", or "bf16": autocast over float32 weights.
    """

    arm: str
    path: str | None
    folder: str
    shared: str
    model: dict[str, Any]
    data: dict[str, Any]
    batch: int
    length: int
    precision: str
    device: str

    @property
    def peer(self) -> str:
        return self.arm.split("+")[0]

    @property
    def options(self) -> list[str]:
        return self.arm.split("+")[1:]

    @property
    def config(self) -> ModelConfig:
        """The model."""
        from groundup.model import ModelConfig

        return ModelConfig(**self.model)

    def has(self, option: str) -> bool:
        return option in self.options

    def rows(self) -> np.ndarray:
        """Tokens of some updates [updates, batch, length + 1] int64; then again from the first."""
        return np.load(Path(self.shared) / "rows.npy", mmap_mode="r")

    def weights(self) -> dict[str, Any]:
        """The weights that all begin with, named as ours."""
        import torch

        return torch.load(Path(self.shared) / "weights.pt", weights_only=True)

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Task:
        return cls(**json.loads(text))


def module_of(arm: str) -> ModuleType:
    """The module of an arm's peer.

    Raises:
        ValueError: naming the arm, if there is no such peer or it has not that option.
    """
    peer, *options = arm.split("+")
    if peer not in PEERS:
        raise ValueError(f"arm {arm!r} is not valid: {peer!r} is none of {', '.join(PEERS)}")
    module = importlib.import_module(f"peers.{peer}")
    for option in options:
        if option not in (*module.OPTIONS, "again"):
            known = ", ".join((*module.OPTIONS, "again"))
            raise ValueError(f"arm {arm!r} is not valid: the options of {peer} are {known}")
    return module


def flops_per_token(task: Task) -> int:
    """Training FLOPs per token of the model that the arm trains (ModelConfig.flops_per_token)."""
    own = getattr(module_of(task.arm), "flops_per_token", None)
    return own(task) if own else task.config.flops_per_token(task.length)
