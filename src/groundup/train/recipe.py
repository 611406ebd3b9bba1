"""A recipe: everything that decides what a run computes, as dataclasses read from TOML.

Every field is also a command-line flag (``--train.steps 100``), typed and documented by what
stands under it here. Lengths: a whole number is updates, a fraction is of the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from groundup._check import count
from groundup.data.config import DataConfig
from groundup.model.config import ModelConfig
from groundup.optim.table import info
from groundup.schedules import Factor
from groundup.train.evaluating import EvaluateConfig
from groundup.train.parallel.config import ParallelConfig
from groundup.train.settings import MeasureConfig, OptimizerConfig, RateConfig, ResidualConfig
from groundup.train.sinks.config import LogConfig
from groundup.train.spikes.config import SpikesConfig

# Names become folders.
NAME = re.compile(r"\w[\w.-]*")
NAME_RULE = "it must hold only letters, digits, '_', '-' and '.', and not begin with the last two"


@dataclass(frozen=True)
class TrainConfig:
    """The loop: how long, how much at a time, in which precision, what is kept."""

    steps: int = 1000
    """Optimizer updates."""

    batch: int = 16
    """Sequences per update."""

    micro_batch: int | None = None
    """Sequences per forward, in each process; it divides the batch. Left out, all at once."""

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
    """How many of the newest checkpoints stay on disk."""

    keep_every: int | None = None
    """Checkpoints after a multiple of so many updates stay too; none unless given."""

    recompute: Literal["none", "full", "ops"] = "none"
    """Activation checkpointing: of each layer keep only its input ("full"), or what its matrix
    products and attention give ("ops"), and compute the rest again in the backward."""

    nonfinite: int = 10
    """Updates in a row whose loss or gradient is infinite or NaN, which are skipped; one more stops
    the run."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "eval_every", "checkpoint_every", "keep"):
            count(name, getattr(self, name))
        count("eval_tokens", self.eval_tokens, least=0)
        count("nonfinite", self.nonfinite, least=0)
        if self.keep_every is not None:
            count("keep_every", self.keep_every)
            if self.keep_every % self.checkpoint_every:
                raise ValueError(
                    f"keep_every={self.keep_every} is not valid: it must be a multiple of "
                    f"checkpoint_every={self.checkpoint_every}"
                )
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
    """Which of a recipe's variants this is; where there are several, the one that is meant."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    residual: ResidualConfig = field(default_factory=ResidualConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    rate: RateConfig = field(default_factory=RateConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    log: LogConfig = field(default_factory=LogConfig)
    spikes: SpikesConfig = field(default_factory=SpikesConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r} is not valid: {NAME_RULE}")
        # What would only show in the middle of a run is found out here.
        self.factor()
        self._refuse_other_decays()
        self._refuse_other_tokens()
        self._refuse_other_attention()
        for schedule in (self.residual, self.rate.layers):
            schedule.resolve(self.train.steps)(1, self.model.layers)
        limit = self.model.longest
        if limit is not None and self.data.length > limit[1]:
            raise ValueError(
                f"data.length={self.data.length} is not valid: the model takes {limit[1]} tokens "
                f"at most (model.hf_config.{limit[0]})"
            )
        # A mixture may follow the warmup of the recipe that this is a baseline of.
        if self.data.mixture and not (self.data.follows_warmup and self.warmup_end is None):
            self.data.shares(self.train.steps, self.train.batch, self.warmup_end)

    def _refuse_other_decays(self) -> None:
        mode, name = self.rate.weight_decay, self.optimizer.name
        if mode != "coupled" and (kind := info(name).decay) != "decoupled":
            raise ValueError(
                f"rate.weight_decay={mode!r} is not valid with optimizer.name={name!r}, whose "
                f"weight decay is of the kind {kind!r}: it needs a decoupled one"
            )

    def _refuse_other_tokens(self) -> None:
        weights, tokenizer = self.model.weights, self.data.tokenizer
        if weights is not None and tokenizer == "train":
            where = f"{weights!r} (its folder)"
            if not Path(weights).expanduser().is_dir():  # one on the Hub
                where = "the folder of its tokenizer.json"
            raise ValueError(
                f"data.tokenizer={tokenizer!r} is not valid with model.weights={weights!r}: the "
                f"weights know the tokens of their own tokenizer; say data.tokenizer = {where}, or "
                "another file with the same tokens"
            )

    def _refuse_other_attention(self) -> None:
        kind = self.model.hf or self.model.hf_config.get("model_type")
        if kind is not None and self.data.documents != "together":
            raise ValueError(
                f"data.documents={self.data.documents!r} is not valid with model.hf={kind!r}: what "
                "a model of transformers attends to is its own; it needs 'together'"
            )

    @property
    def warmup_end(self) -> float | None:
        """Updates until every layer is at 1; None without residual warmup."""
        schedule = self.residual.resolve(self.train.steps)
        return None if schedule.name == "none" else schedule.end(self.model.layers)

    @property
    def tokens_per_step(self) -> int:
        """Tokens that an update learns from."""
        return self.train.batch * self.data.length

    def factor(self) -> Factor:
        """The multiplier of the peak rate in this run, its lengths in updates."""
        beta2 = self.optimizer.beta2
        return self.rate.factor(beta2).resolve(self.train.steps, self.tokens_per_step)
