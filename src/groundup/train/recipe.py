"""A recipe: everything that decides what a run computes, as dataclasses read from TOML.

Every field is also a command-line flag (``--train.steps 100``), typed and documented by what
stands under it here. Lengths: a whole number is updates, a fraction is of the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from groundup._check import count, positive, within
from groundup.data.config import DataConfig
from groundup.model.config import ModelConfig
from groundup.schedules import DepthSchedule, Factor, depth, factor
from groundup.schedules.length import Length, check_length

# Names become folders.
NAME = re.compile(r"\w[\w.-]*")
NAME_RULE = "it must hold only letters, digits, '_', '-' and '.', and not begin with the last two"


@dataclass(frozen=True)
class ResidualConfig:
    """Residual warmup: the schedule of α and its length, said in exactly one way."""

    schedule: str = "none"
    """A schedule of groundup.depth: linear, linear-square, stagewise-L, …; "none": no warmup."""

    T: float | None = None
    """Warmup length of the first layer, in updates."""

    total: float | None = None
    """Updates until every layer is at 1."""

    fraction: float | None = None
    """The same as a fraction of the run."""

    S: float | None = None
    """For cascade only: updates between the starts of two layers."""

    def __post_init__(self) -> None:
        self.resolve(steps=1)

    def resolve(self, steps: int) -> DepthSchedule:
        """The schedule in a run of `steps` updates."""
        lengths = {"T": self.T, "total": self.total, "fraction": self.fraction, "S": self.S}
        known = {name: value for name, value in lengths.items() if value is not None}
        if "fraction" in known:
            known["steps"] = steps
        return depth.by_name(self.schedule, **known)  # type: ignore[arg-type]


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019); the defaults are those of arXiv:2603.05369."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the running means of the gradient and of its square."""

    eps: float = 1e-8
    """Added to the root of the second moment."""

    weight_decay: float = 0.1
    """Decoupled weight decay of matrices; norms, biases and embeddings have none."""

    clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas={self.betas!r} is not valid: two numbers in [0, 1)")
        positive("eps", self.eps)
        within("weight_decay", self.weight_decay, 0.0, float("inf"))
        within("clip", self.clip, 0.0, float("inf"))


@dataclass(frozen=True)
class RateConfig:
    """The learning rate: linear warmup, hold, decay (WSD; with decay = "rest" no hold)."""

    peak: float = 1e-3
    """The rate that the factor multiplies."""

    warmup: Length = 0.02
    """Length of the linear warmup; 0 for none."""

    decay: Length | Literal["rest"] = 0.1
    """Length of the decay at the end; "rest": all that the warmup leaves; 0 for none."""

    shape: Literal["linear", "cosine", "sqrt"] = "linear"
    """Form of the decay."""

    floor: float = 0.0
    """Where the decay ends, as a fraction of the peak."""

    def __post_init__(self) -> None:
        positive("peak", self.peak)
        self.factor()

    def factor(self) -> Factor:
        """The multiplier of `peak`, a pure function of the step."""
        chain = Factor() if self.warmup == 0 else factor.linear(self.warmup)
        if self.decay == "rest":
            return chain >> factor.decay(self.shape, None, self.floor)
        chain = chain >> factor.hold()
        if self.decay == 0:
            return chain
        return chain >> factor.decay(self.shape, check_length("decay", self.decay), self.floor)


@dataclass(frozen=True)
class TrainConfig:
    """The loop: how long, how much at a time, in which precision, what is kept."""

    steps: int = 1000
    """Optimizer updates."""

    batch: int = 16
    """Sequences per update."""

    micro_batch: int | None = None
    """Sequences per forward; it divides the batch. Left out, the whole batch at once."""

    seed: int = 0
    """Decides the initial weights and the order of the data."""

    precision: Literal["bf16", "float32"] = "bf16"
    """Compute precision; master weights and optimizer state are float32 either way."""

    compile: bool = True
    """Compile each block (one graph serves all layers)."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU if there is one."""

    deterministic: bool = False
    """Use deterministic algorithms on CUDA (slower); the CPU is deterministic anyway."""

    eval_every: int = 100
    """Updates between evaluations on held-out text; the end is always evaluated."""

    eval_tokens: int = 65536
    """Held-out tokens per evaluation, at most; 0: all of them."""

    checkpoint_every: int = 200
    """Updates between checkpoints."""

    keep: int = 2
    """How many checkpoints stay on disk."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "eval_every", "checkpoint_every", "keep"):
            count(name, getattr(self, name))
        count("eval_tokens", self.eval_tokens, least=0)
        count("seed", self.seed, least=0)
        if self.micro_batch is not None:
            count("micro_batch", self.micro_batch)
            if self.batch % self.micro_batch:
                raise ValueError(
                    f"micro_batch={self.micro_batch} is not valid: it must divide "
                    f"batch={self.batch}"
                )


@dataclass(frozen=True)
class Recipe:
    """One run. ValueError names what is out of range or does not fit together."""

    name: str = "run"
    """What the run is called; its folder is runs/NAME unless told otherwise."""

    variant: str = ""
    """Which of the compared variants this is; filled in by `groundup compare`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    residual: ResidualConfig = field(default_factory=ResidualConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rate: RateConfig = field(default_factory=RateConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r} is not valid: {NAME_RULE}")
        # What would only show in the middle of a run is found out here.
        self.rate.factor().lengths(self.train.steps)
        schedule = self.residual.resolve(self.train.steps)
        schedule(1, self.model.layers)
