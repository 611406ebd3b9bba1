"""What one run of the study is told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from groundup._check import count, positive, unknown, within
from groundup._json import parse

ARMS = ("standard", "frozen-biases", "random-gradients", "leaky-relu")
"""What is done against large initial updates; `phase.py` says how."""

OPTIMIZERS = ("sgd", "adamw")
AUGMENTATIONS = ("none", "crop-flip")


@dataclass(frozen=True)
class ResNetRun:
    """One run: its result is a pure function of these (to the bit on one CPU).

    Runs of one seed share the images' split, the initial weights and the batches, whatever else
    differs.

    Attributes:
        data: ``digits``, ``cifar10:PATH`` or ``dataset:NAME``; see `images.load_images`.
        arm: one of `ARMS`.
        scale: what every update of the phase is multiplied by (its weight decay too).
        phase: length of the phase in epochs, at least 1 and less than `epochs`.
        epochs: length of the run; the rate falls from `rate` to 0 in half a cosine.
        batch: images of an update, at least 2; what is left over of an epoch is left out.
        optimizer: one of `OPTIMIZERS`: SGD with momentum 0.9, or AdamW.
        rate: the peak rate.
        weight_decay: of weights; biases and the norms' gains have none.
        width: channels of the first stage, 16 in the publication.
        augment: one of `AUGMENTATIONS`; ``crop-flip`` is that of He et al.: four pixels of zeros
            around, a random crop of the old size, mirrored half of the time.
        seed: of the initial weights, the batches and the random gradients.

    Raises:
        ValueError: naming the field and what would be valid.
    """

    data: str = "digits"
    arm: str = "standard"
    scale: float = 1.0
    phase: int = 5
    epochs: int = 50
    batch: int = 128
    optimizer: str = "sgd"
    rate: float = 0.1
    weight_decay: float = 5e-4
    width: int = 16
    augment: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        for field, valid in (
            ("arm", ARMS),
            ("optimizer", OPTIMIZERS),
            ("augment", AUGMENTATIONS),
        ):
            if getattr(self, field) not in valid:
                raise unknown(field, getattr(self, field), valid)
        for field in ("phase", "epochs", "width"):
            count(field, getattr(self, field))
        count("batch", self.batch, least=2)  # of one image a norm knows no variance
        count("seed", self.seed, least=0)
        positive("scale", self.scale)
        positive("rate", self.rate)
        within("weight_decay", self.weight_decay, 0.0, float("inf"))
        if self.phase >= self.epochs:
            raise ValueError(
                f"phase={self.phase} is not valid: it must be shorter than epochs={self.epochs}"
            )

    @property
    def variant(self) -> str:
        """The arm and its scale, as in ``standard-128``: the name of its folder."""
        return f"{self.arm}-{self.scale:g}"

    def to_json(self) -> str:
        """One object, read back by `from_json`."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, content: str | bytes) -> ResNetRun:
        """What `to_json` wrote; a field that is left out has its default.

        Raises:
            ValueError: for anything else, naming the field.
        """
        found: Any = parse(content)
        if not isinstance(found, dict):
            raise ValueError(f"a configuration is a JSON object, not a {type(found).__name__}")
        names = [field.name for field in fields(cls)]
        for name in found:
            if name not in names:
                raise unknown("field", name, names)
        return cls(**found)
