"""The shapes that a factor is joined from: each a small dataclass, a pure function of the step.

`value(k, length)` is the factor after `k` = 0, 1, … updates of a segment that lasts `length`
updates (infinity for one without end), `end(length)` the level that it leaves to the next. Warmups
count n = k + 1, so that no update is wasted at rate 0; with ``start="zero"`` n = k, as in older
libraries.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from groundup._check import positive, unknown, within
from groundup.schedules.length import Length, Tokens, check_length

Start = Literal["one", "zero"]
STARTS = ("one", "zero")


@dataclass(frozen=True)
class Segment:
    """One stretch of a factor."""

    length: Length | None = None

    name: ClassVar[str]
    scales: ClassVar[tuple[str, ...]] = ()
    """Fields other than `length` that are lengths too."""
    endless: ClassVar[bool] = False
    """Whether the value depends on k alone, so that it needs no end."""

    def __post_init__(self) -> None:
        for field in ("length", *self.scales):
            value, said = getattr(self, field), f"{field} of {self.label}"
            if isinstance(value, tuple):
                value = tuple(check_length(said, one) for one in value)
            elif value is not None:
                value = check_length(said, value)
            # As an int, where it was another kind of whole number, such as NumPy's.
            object.__setattr__(self, field, value)

    def value(self, k: int, length: float) -> float:
        raise NotImplementedError

    def end(self, length: float) -> float:
        return 1.0

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return self.name

    def resolved(self, length: int | None, in_steps: Callable[[str, Length], int]) -> Segment:
        """This segment with all its lengths in updates."""
        found: dict[str, Any] = {"length": length}
        for field in self.scales:
            value = getattr(self, field)
            if isinstance(value, tuple):
                found[field] = tuple(in_steps(field, one) for one in value)
            elif value is not None:
                found[field] = in_steps(field, value)
        return replace(self, **found)

    def plain(self) -> dict[str, Any]:
        """As JSON has it: its name, and the fields that are not at their defaults."""
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        # By type too: the lengths 1 and 1.0 are equal and differ.
        return {"name": self.name} | {
            n: _plain(v) for n, v, d in values if (type(v), v) != (type(d), d)
        }


@dataclass(frozen=True)
class Warmup(Segment):
    """A segment that rises: n = k + 1, or k with ``start="zero"``."""

    start: Start = "one"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in STARTS:
            raise unknown("start", self.start, STARTS)

    def value(self, k: int, length: float) -> float:
        return self.after(k + (self.start == "one"), length)

    def after(self, n: int, length: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class Rise(Warmup):
    """From `initial` to 1 by a shape of u = n/W."""

    initial: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        within("initial", self.initial, 0.0, 1.0)

    def after(self, n: int, length: float) -> float:
        u = self.shape(n / length)
        return self.initial * (1.0 - u) + u

    def shape(self, u: float) -> float:
        raise NotImplementedError


class Linear(Rise):
    name = "linear"

    def shape(self, u: float) -> float:
        return u


class Cosine(Rise):
    name = "cosine"

    def shape(self, u: float) -> float:
        return math.sin(math.pi * u / 2.0) ** 2  # (1 − cos πu)/2 without its cancellation


@dataclass(frozen=True)
class Constant(Segment):
    """`level` for W updates, then 1 at once."""

    level: float = 1.0

    name = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        within("level", self.level, 0.0, math.inf)

    def value(self, k: int, length: float) -> float:
        return self.level


class Hold(Segment):
    name = "hold"
    endless = True

    def value(self, k: int, length: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Level(Segment):
    """A number for ever: what a factor is multiplied with."""

    level: float = 1.0

    name = "level"
    endless = True

    def __post_init__(self) -> None:
        super().__post_init__()
        within("level", self.level, 0.0, math.inf)

    def value(self, k: int, length: float) -> float:
        return self.level

    def end(self, length: float) -> float:
        return self.level


@dataclass(frozen=True)
class Exponential(Warmup):
    """1 − exp(−n/τ), τ in updates or, from Adam's β₂, 1/(1 − β₂)."""

    tau: Length | None = None
    beta2: float | None = None

    name = "exponential"
    scales = ("tau",)
    endless = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.tau is None) == (self.beta2 is None):
            raise ValueError(f"give one of tau={self.tau!r} and beta2={self.beta2!r}")
        if self.beta2 is not None:
            check_beta2(self.beta2)

    def after(self, n: int, length: float) -> float:
        if self.beta2 is not None:
            return -math.expm1(-n * (1.0 - self.beta2))
        assert isinstance(self.tau, int)
        return -math.expm1(-n / self.tau)

    def end(self, length: float) -> float:
        return 1.0 if math.isinf(length) else self.value(int(length) - 1, length)


@dataclass(frozen=True)
class RAdam(Warmup):
    """Adam's rectification term rₙ, from the first n on at which it is defined."""

    beta2: float = 0.999

    name = "radam"
    endless = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta2(self.beta2)
        if self.beta2 <= 0.6:
            raise ValueError(
                f"beta2={self.beta2!r} is not valid: ρₙ exceeds 4, from where on RAdam's "
                "rectification is defined, only for β₂ above 0.6"
            )

    def after(self, n: int, length: float) -> float:
        if n == 0:
            return 0.0
        return rectification(n + self._offset() - 1, self.beta2)

    def end(self, length: float) -> float:
        return 1.0 if math.isinf(length) else self.value(int(length) - 1, length)

    def _offset(self) -> int:
        """The first n with ρₙ > 4."""
        n = 1
        while _rho(n, self.beta2) <= 4.0:
            n += 1
        return n


@dataclass(frozen=True)
class Decay(Segment):
    """From 1 to `floor` by a shape of what is left, r = 1 − k/D."""

    shape: str = "linear"
    floor: float = 0.0

    name = "decay"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape not in DECAYS:
            raise unknown("shape", self.shape, DECAYS)
        within("floor", self.floor, 0.0, 1.0)
        if self.shape == "exponential" and self.floor == 0.0:
            raise ValueError(
                "floor=0.0 is not valid for an exponential decay, floor^(k/D): it never gets to 0; "
                "give a floor above 0, such as 0.01"
            )

    def value(self, k: int, length: float) -> float:
        return DECAYS[self.shape]((length - k) / length, self.floor)

    def end(self, length: float) -> float:
        return self.floor

    @property
    def label(self) -> str:
        return f"{self.shape} decay"


def _between(fall: Callable[[float], float]) -> Callable[[float, float], float]:
    return lambda r, floor: floor + (1.0 - floor) * fall(r)


# By what is left of the decay, r = 1 − u: near the end u would have lost its last digits.
DECAYS: dict[str, Callable[[float, float], float]] = {
    "linear": _between(lambda r: r),
    "cosine": _between(lambda r: math.sin(math.pi * r / 2.0) ** 2),
    "sqrt": _between(lambda r: 1.0 - math.sqrt(1.0 - r)),
    "exponential": lambda r, floor: floor ** (1.0 - r),
}


@dataclass(frozen=True)
class InverseSqrt(Warmup):
    """√(s/(s + n)), s = `timescale`."""

    timescale: Length = 1

    name = "inverse-sqrt"
    scales = ("timescale",)
    endless = True

    def after(self, n: int, length: float) -> float:
        assert isinstance(self.timescale, int)
        return math.sqrt(self.timescale / (self.timescale + n))

    def end(self, length: float) -> float:
        return 0.0 if math.isinf(length) else self.after(int(length), length)


@dataclass(frozen=True)
class Steps(Segment):
    """Times γ after every `every` updates, or at each of the moments `at`."""

    gamma: float = 0.1
    every: Length | None = None
    at: tuple[Length, ...] = ()

    name = "steps"
    scales = ("every", "at")
    endless = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("gamma", self.gamma)
        if (self.every is None) == (not self.at):
            raise ValueError(f"give one of every={self.every!r} and at={list(self.at)!r}")

    def value(self, k: int, length: float) -> float:
        if self.every is not None:
            assert isinstance(self.every, int)
            return self.gamma ** (k // self.every)
        return self.gamma ** bisect.bisect_right(sorted(self.at), k)  # type: ignore[type-var]

    def end(self, length: float) -> float:
        return 0.0 if math.isinf(length) else self.value(int(length), length)


KINDS: dict[str, type[Segment]] = {
    kind.name: kind
    for kind in (
        Linear, Cosine, Constant, Hold, Level, Exponential, RAdam, Decay, InverseSqrt, Steps,
    )
}  # fmt: skip


def segment(plain: dict[str, Any]) -> Segment:
    """The segment that `Segment.plain` described.

    Raises:
        ValueError: for an unknown name or field.
    """
    values = {key: _parsed(value) for key, value in plain.items() if key != "name"}
    if plain.get("name") not in KINDS:
        raise unknown("segment", plain.get("name"), KINDS)
    kind = KINDS[plain["name"]]
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            raise unknown(f"field of {kind.name}", key, known)
    return kind(**values)


def check_beta2(beta2: float) -> float:
    """`beta2` if it is a number in (0, 1), as Adam's second β must be."""
    within("beta2", beta2, 0.0, 1.0)
    if not 0.0 < beta2 < 1.0:
        raise ValueError(f"beta2={beta2!r} is not valid: it must lie between 0 and 1")
    return beta2


def rectification(n: int, beta2: float) -> float:
    """RAdam's rₙ (Liu et al. 2020, arXiv:1908.03265, Algorithm 2), for n with ρₙ > 4."""
    rho, limit = _rho(n, beta2), 2.0 / (1.0 - beta2) - 1.0
    return math.sqrt((rho - 4.0) * (rho - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * rho))


def _rho(n: int, beta2: float) -> float:
    """ρₙ = ρ∞ − 2nβ₂ⁿ/(1 − β₂ⁿ), ρ∞ = 2/(1 − β₂) − 1."""
    # 1 − βⁿ by expm1: for β near 1 the difference would have lost its digits.
    log = n * math.log(beta2)
    return 2.0 / (1.0 - beta2) - 1.0 + 2.0 * n * math.exp(log) / math.expm1(log)


def _plain(value: Any) -> Any:
    if isinstance(value, Tokens):
        return {"tokens": value.tokens}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _parsed(value: Any) -> Any:
    if isinstance(value, dict):
        return Tokens(**value)
    return tuple(_parsed(one) for one in value) if isinstance(value, list) else value
