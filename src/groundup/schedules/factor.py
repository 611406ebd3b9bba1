"""Learning-rate factors: pure functions of the step that are joined with ``>>``.

A factor multiplies the peak rate. `step` counts completed updates, so update number n = step + 1.
Warmups are functions of n (no update is wasted at rate 0); a decay over D updates starts at 1 and
ends at 1/D (no update is wasted at its end either).

>>> f = linear(2000) >> hold() >> decay("linear", 0.1)  # WSD: warmup, hold, decay
>>> f(0, steps=100_000), f(50_000, steps=100_000), f(99_999, steps=100_000)
(0.0005, 1.0, 0.0001)

Lengths: an int is updates, a float a fraction of the run; one segment may leave its length out and
takes what the others leave. After the last segment its final value is kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

from groundup._check import count, unknown, within
from groundup.schedules.length import Length, check_length, in_steps

Start = Literal["one", "zero"]


@dataclass(frozen=True)
class Segment:
    """One stretch of a factor: a warmup, a hold or a decay.

    `name` picks a row of the table below; `initial` is where a warmup starts from (the value of a
    constant one), `floor` where a decay ends; both are relative to the neighbouring segment.
    """

    name: str
    length: Length | None = None
    start: Start = "one"
    initial: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in _SHAPES:
            raise unknown("factor", self.name, _SHAPES)
        if self.length is not None:
            check_length(f"length of {self.name}", self.length)
        if self.start not in ("one", "zero"):
            raise unknown("start", self.start, ("one", "zero"))
        within("initial", self.initial, 0.0, 1.0)
        within("floor", self.floor, 0.0, 1.0)

    def value(self, done: int, length: int) -> float:
        """The factor after `done` of `length` updates of this segment."""
        return _SHAPES[self.name](self, done, length)

    @property
    def end(self) -> float:
        """The value that the next segment starts from."""
        return self.floor if self.name.endswith("decay") else 1.0


def _warm_linear(s: Segment, done: int, length: int) -> float:
    u = (done + (s.start == "one")) / length
    return s.initial * (1.0 - u) + u


def _decay(fall: Callable[[float], float], s: Segment, done: int, length: int) -> float:
    return s.floor + (1.0 - s.floor) * fall((length - done) / length)


# By what is left of the decay, r = 1 − u: near the end u would have lost its last digits.
_DECAYS: dict[str, Callable[[float], float]] = {
    "linear": lambda r: r,
    "cosine": lambda r: math.sin(math.pi * r / 2.0) ** 2,
    "sqrt": lambda r: 1.0 - math.sqrt(1.0 - r),
}
_SHAPES: dict[str, Callable[[Segment, int, int], float]] = {
    "linear": _warm_linear,
    "constant": lambda s, done, length: s.initial,
    "hold": lambda s, done, length: 1.0,
} | {f"{name}-decay": partial(_decay, fall) for name, fall in _DECAYS.items()}


@dataclass(frozen=True)
class Factor:
    """A chain of segments, itself a pure function of the step. Join two with ``>>``."""

    segments: tuple[Segment, ...] = field(default=())

    def __post_init__(self) -> None:
        open_ended = [s.name for s in self.segments if s.length is None]
        if len(open_ended) > 1:
            raise ValueError(
                f"only one segment may leave its length open, got {len(open_ended)}: "
                f"{', '.join(open_ended)}"
            )

    def __rshift__(self, other: Factor) -> Factor:
        return Factor(self.segments + other.segments)

    def __call__(self, step: int, steps: int | None = None) -> float:
        """The factor at `step` completed updates of a run of `steps` (needed for fractions and
        for a segment of open length).

        Raises:
            ValueError: if step is negative, steps is missing, or the segments do not fit into it.
        """
        count("step", step, least=0)
        level, begin = 1.0, 0
        for segment, length in zip(self.segments, self.lengths(steps), strict=True):
            if step < begin + length:
                return level * segment.value(step - begin, length)
            level *= segment.end
            begin += length
        return level

    def lengths(self, steps: int | None = None) -> list[int]:
        """The number of updates of each segment in a run of `steps`."""
        if steps is not None:
            count("steps", steps)
        wanted = [s.length for s in self.segments]
        if steps is None:
            if None in wanted:
                raise ValueError("a segment of open length needs steps, the length of the run")
            return [in_steps("length", n, None) for n in wanted if n is not None]
        if sum(_exact(n, steps) for n in wanted) > steps * (1 + 1e-12):
            parts = ", ".join(f"{s.name} {s.length or 'open'}" for s in self.segments)
            raise ValueError(f"the segments ({parts}) are longer than the run of {steps} steps")
        found = [0 if n is None else in_steps("length", n, steps) for n in wanted]
        # Fractions were rounded, to one update at least: what that is too much is given back, by
        # the longest first, the later of two.
        fractions = [i for i, n in enumerate(wanted) if isinstance(n, float)]
        for _ in range(sum(found) - steps):
            found[max(fractions, key=lambda i: (found[i], i))] -= 1
        rest = steps - sum(found)
        return [rest if n is None else m for n, m in zip(wanted, found, strict=True)]

    def to_json(self) -> str:
        """The factor as JSON, read back by `from_json`."""
        return json.dumps([asdict(s) for s in self.segments])

    @staticmethod
    def from_json(text: str) -> Factor:
        """The factor that `to_json` wrote."""
        return Factor(tuple(Segment(**fields) for fields in json.loads(text)))


def _exact(length: Length | None, steps: int) -> float:
    return length * steps if isinstance(length, float) else length or 0


def linear(length: Length, *, initial: float = 0.0, start: Start = "one") -> Factor:
    """Linear warmup over W = `length`: min(1, n/W), n = step + 1 (Goyal et al. 2017).

    `initial` is the factor it rises from: initial + (1 − initial)·n/W. With ``start="zero"``
    n = step as in older libraries, so that the first update has the factor `initial`.
    """
    return Factor((Segment("linear", length, start, initial),))


def constant(length: Length, value: float) -> Factor:
    """Constant warmup: `value` for n ≤ W, then 1 (He et al. 2016 for deep ResNets)."""
    return Factor((Segment("constant", length, initial=value),))


def hold(length: Length | None = None) -> Factor:
    """The value reached so far, for `length` updates (None: what the other segments leave)."""
    return Factor((Segment("hold", length),))


def decay(shape: str, length: Length | None = None, floor: float = 0.0) -> Factor:
    """A decay over D = `length` updates to `floor`, u = k/D with k = 0…D−1 updates of it done:

    ==========  ==============================  =========================================
    ``linear``  1 − u                           ends at 1/D
    ``cosine``  (1 + cos πu)/2                  Loshchilov & Hutter 2017
    ``sqrt``    1 − √u                          Hägele et al. 2024 ("1-sqrt")
    ==========  ==============================  =========================================

    The factor is floor + (1 − floor)·shape(u); `length` None takes what the others leave.
    """
    if shape not in _DECAYS:
        raise unknown("shape", shape, _DECAYS)
    return Factor((Segment(f"{shape}-decay", length, floor=floor),))


def wsd(warmup: Length, decay_length: Length, shape: str = "linear", floor: float = 0.0) -> Factor:
    """Warmup, stable, decay (Hu et al. 2024; the trapezoid): linear, hold, decay."""
    return linear(warmup) >> hold() >> decay(shape, decay_length, floor)


_BUILDERS: dict[str, Callable[..., Factor]] = {
    "linear": linear,
    "constant": constant,
    "hold": hold,
    "decay": decay,
    "wsd": wsd,
}


def by_name(name: str, *args: Any, **kwargs: Any) -> Factor:
    """The factor that the function of that name makes: ``by_name("linear", 2000)``."""
    if name not in _BUILDERS:
        raise unknown("factor", name, _BUILDERS)
    return _BUILDERS[name](*args, **kwargs)


from_json = Factor.from_json
