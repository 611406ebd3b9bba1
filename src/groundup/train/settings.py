"""What a recipe says about warmup on its three axes: residual branches, rate, optimizer.

Lengths: a whole number is updates, a fraction is of the run, text may say "375M tokens", "2k steps"
or "2%".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from groundup._check import count, positive, unknown, within
from groundup.optim.table import info, surely_takes
from groundup.schedules import DepthSchedule, Factor, depth, factor
from groundup.schedules.depth import DORMANT, WAITING
from groundup.schedules.factor import Chain
from groundup.schedules.length import Length, check_length, parse_length
from groundup.schedules.segments import Start


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

    dormant: Literal["run", "skip"] = "run"
    """Of cascade and stagewise-0, layers that wait for their turn: "run" computes them, at α = 0;
    "skip" does not, and leaves their weights untouched."""

    def __post_init__(self) -> None:
        schedule = self.resolve(steps=1)
        if self.dormant not in DORMANT:
            raise unknown("residual.dormant", self.dormant, DORMANT)
        if self.dormant == "skip" and schedule.name not in WAITING:
            raise ValueError(
                f"residual.dormant='skip' is not valid: {schedule.name} declares no layer dormant, "
                f"only {' and '.join(WAITING)} do"
            )

    def resolve(self, steps: int) -> DepthSchedule:
        """The schedule in a run of `steps` updates."""
        lengths = {"T": self.T, "total": self.total, "fraction": self.fraction, "S": self.S}
        known = {name: value for name, value in lengths.items() if value is not None}
        if "fraction" in known:
            known["steps"] = steps
        return depth.by_name(self.schedule, **known)  # type: ignore[arg-type]


MEASUREMENTS = (
    "updates",
    "gradients",
    "noise",
    "rrc",
    "rank",
    "stream",
    "attention",
    "similarity",
    "depth",
    "positions",
)
"""What is measured unless a recipe says otherwise."""

Measurement = Literal[
    "updates",
    "gradients",
    "noise",
    "rrc",
    "rank",
    "relus",
    "stream",
    "attention",
    "similarity",
    "depth",
    "positions",
]


@dataclass(frozen=True)
class MeasureConfig:
    """Measurements around every so many updates, written to measurements.jsonl."""

    every: int = 100
    """Updates between measurements; 0: none. `similarity` is measured 60 times in a run at most,
    `depth` and `rank` 8 times, `positions` at each evaluation."""

    what: tuple[Measurement, ...] = ()
    """Some of: updates (norm, relative size, angle), gradients (norm), noise (φ, gradient against
    momentum), rrc (relative representation change), rank (stable rank), relus (dead ones), stream
    (norms of the residual stream and of branches), attention (entropy, largest logit), similarity
    (sketches of what branches give, for the likeness to the final model), depth (loss without a
    layer), positions (held-out loss by position); all but relus unless given."""

    per_tensor: bool = False
    """Each also for every weight or module, not only for the whole model and its layers."""

    sequences: int = 4
    """Held-out sequences in which layers are looked at, whatever a micro-batch is."""

    def __post_init__(self) -> None:
        count("every", self.every, least=0)
        count("sequences", self.sequences)
        if not self.every and (self.what or self.per_tensor):
            raise ValueError(f"every=0: nothing is measured, and what={self.what!r} ignored")

    def covers(self, word: str) -> bool:
        """Whether it is measured."""
        return bool(self.every) and word in (self.what or MEASUREMENTS)


Shape = Literal["linear", "cosine", "sqrt", "exponential", "inverse-sqrt"]


@dataclass(frozen=True)
class RateConfig:
    """The learning rate: warmup, hold, decay (WSD; with decay = "rest" no hold)."""

    peak: float = 1e-3
    """The rate that the factor multiplies."""

    warmup: int | float | str = 0.02
    """Length of the warmup; 0 for none; "untuned": the one that Adam's β₂ asks for, 2/(1 − β₂) or,
    for an exponential warmup, τ = 1/(1 − β₂)."""

    warmup_shape: Literal["linear", "cosine", "exponential", "constant", "radam"] = "linear"
    """Form of the warmup; radam has the length that β₂ gives it (warmup = "untuned")."""

    initial: float = 0.0
    """The factor from which a linear or cosine warmup rises, or that of a constant one."""

    start: Start = "one"
    """"one": the first update has the factor 1/W; "zero": 0, as in older libraries."""

    decay: int | float | str = 0.1
    """Length of the decay at the end; "rest": all that the warmup leaves; 0 for none."""

    shape: Shape = "linear"
    """Form of the decay; inverse-sqrt has the warmup's length as its timescale."""

    floor: float = 0.0
    """Where the decay ends, as a fraction of the peak."""

    weight_decay: Literal["coupled", "independent", "squared"] = "coupled"
    """What the factor does to the weight decay of an update: it falls with the rate, stays, or
    falls with its square."""

    layers: ResidualConfig = field(default_factory=ResidualConfig)
    """A warmup of the rate of each layer, deeper ones later: the schedules of [residual]."""

    def __post_init__(self) -> None:
        positive("peak", self.peak)
        if self.layers.dormant != "run":
            raise ValueError(
                f"rate.layers.dormant={self.layers.dormant!r} would be ignored: a layer that "
                "learns later is computed all the same; say residual.dormant"
            )
        self.factor(beta2=0.95)

    def factor(self, beta2: float | None) -> Factor:
        """The multiplier of `peak`, a pure function of the step. `beta2` is the optimizer's."""
        warmup = self._warmup(beta2)
        if self.decay == 0:
            return warmup >> self._hold()
        if self.decay == "rest":
            return warmup >> self._decay(None, beta2)
        length = _length("decay", self.decay)
        return warmup >> self._hold() >> self._decay(length, beta2)

    def _warmup(self, beta2: float | None) -> Chain:
        if self.warmup_shape == "constant":
            positive("initial", self.initial)
        elif self.initial and self.warmup_shape not in ("linear", "cosine"):
            raise ValueError(
                f"initial={self.initial!r} would be ignored by a warmup_shape={self.warmup_shape!r}"
            )
        if self.warmup == 0:
            return Chain()
        if self.warmup_shape == "radam" and self.warmup != "untuned":
            raise ValueError(
                f"warmup={self.warmup!r} would be ignored: radam has the length that β₂ gives it; "
                'say warmup="untuned"'
            )
        if self.warmup != "untuned":
            return _SIZED[self.warmup_shape](self, _length("warmup", self.warmup))
        if self.warmup_shape in _UNTUNED:
            return _UNTUNED[self.warmup_shape](self, _known(beta2))
        return _SIZED[self.warmup_shape](self, factor.untuned_length(_known(beta2)))

    def _hold(self) -> Chain:
        """What an endless warmup goes on doing, the others have ended."""
        endless = self.warmup != 0 and self.warmup_shape in ("exponential", "radam")
        return Chain() if endless else factor.hold()

    def _decay(self, length: Length | None, beta2: float | None) -> Chain:
        if self.shape != "inverse-sqrt":
            return factor.decay(self.shape, length, self.floor)
        if self.floor:
            raise ValueError(f"floor={self.floor!r} would be ignored by shape='inverse-sqrt'")
        if self.warmup == 0:
            raise ValueError("shape='inverse-sqrt' takes its timescale from warmup, which is 0")
        timescale = (
            factor.untuned_length(_known(beta2))
            if self.warmup == "untuned"
            else _length("warmup", self.warmup)
        )
        return factor.inverse_sqrt(timescale, length, start=self.start)


_SIZED: dict[str, Callable[[RateConfig, Length], Chain]] = {
    "linear": lambda c, W: factor.linear(W, initial=c.initial, start=c.start),
    "cosine": lambda c, W: factor.cosine(W, initial=c.initial, start=c.start),
    "constant": lambda c, W: factor.constant(W, c.initial),
    "exponential": lambda c, W: factor.exponential(W, start=c.start),
}
# Those that β₂ shapes, not only their length.
_UNTUNED: dict[str, Callable[[RateConfig, float], Chain]] = {
    "exponential": lambda c, beta2: factor.untuned_exponential(beta2, start=c.start),
    "radam": lambda c, beta2: factor.radam(beta2, start=c.start),
}


def _length(name: str, value: int | float | str) -> Length:
    return parse_length(name, value) if isinstance(value, str) else check_length(name, value)


def _known(beta2: float | None) -> float:
    if beta2 is None:
        raise ValueError(
            "warmup='untuned' needs β₂, the decay of a second moment, which this optimizer lacks: "
            "give a length"
        )
    return beta2


# What is said elsewhere than in [optimizer.options].
_OWN_FIELDS = {
    "lr": "rate.peak",
    "params": "nothing: all parameters are trained",
    "weight_decay": "optimizer.weight_decay",
    "betas": "optimizer.betas",
    "eps": "optimizer.eps",
}


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer by its name; the defaults are those of arXiv:2603.05369."""

    name: str = "adamw"
    """A name of groundup.optim: adamw, lion, liona, lionar, rotational-adamw, muon, …"""

    betas: tuple[float, float] | None = None
    """Decay of the running means of the gradient and of its square; the optimizer's own default
    unless given: (0.9, 0.95) for AdamW."""

    eps: float | None = None
    """Added to the root of the second moment; the optimizer's own default unless given."""

    weight_decay: float | None = None
    """Weight decay of matrices; norms, biases and embeddings have none. The optimizer's own default
    unless given: 0.1 for AdamW."""

    clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""

    options: dict[str, Any] = field(default_factory=dict)
    """Everything else that the optimizer takes: beta, nesterov, bias_correction, …"""

    rrc: bool = False
    """Scale the updates by the RRC correction, an automatic warmup (docs/derivations.md)."""

    def __post_init__(self) -> None:
        if self.betas is not None and not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas={self.betas!r} is not valid: two numbers in [0, 1)")
        if self.eps is not None:
            positive("eps", self.eps)
        for name, field_ in _OWN_FIELDS.items():
            if name in self.options:
                raise ValueError(
                    f"options={{{name!r}: {self.options[name]!r}}} is not valid: say {field_}"
                )
        if self.weight_decay is not None:
            within("weight_decay", self.weight_decay, 0.0, float("inf"))
        if not (self._is_usual and surely_takes(self.name, ["weight_decay", *self.arguments()])):
            self._try_out()
        within("clip", self.clip, 0.0, float("inf"))

    @property
    def _is_usual(self) -> bool:
        """Whether no value is of a kind that a class may refuse."""
        return not self.options and all(type(beta) is float for beta in self.betas or ())

    def _try_out(self) -> None:
        # It makes an update, for which torch takes seconds to import.
        from groundup.optim import registry

        registry.check(self.name, weight_decay=self.weight_decay, **self.arguments())

    def arguments(self) -> dict[str, Any]:
        """What the optimizer is made with, other than its parameters, rate and weight decay."""
        given = {"betas": self.betas, "eps": self.eps}
        return {name: value for name, value in given.items() if value is not None} | self.options

    @property
    def beta2(self) -> float | None:
        """The decay of the second moment; None if the optimizer has none."""
        settings = {**info(self.name).defaults, **self.arguments()}
        # Lion has two β as well, and no root of a second moment that would need an ε.
        return settings["betas"][1] if {"betas", "eps"} <= settings.keys() else None
