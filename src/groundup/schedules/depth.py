"""Residual warmup: α(l, t), the multiplier of layer l's residual branches at step t.

t counts completed optimizer updates (the first update sees t = 0); l = 1…L is the layer, 1 the
shallowest; T is the warmup length of the first layer. A schedule is a pure function:

>>> linear(T=10)(15, depth=4)
[1.0, 0.75, 0.5, 0.375]

Source: Progressive Residual Warmup, arXiv:2603.05369, Section 3 and Table 6; `cascade` is ours.
BranchNorm (Liu et al. 2024) is Post-LN with `equal`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from groundup._check import count, is_number, positive, unknown
from groundup.schedules.length import total_length


def _clip(x: float) -> float:
    return min(max(x, 0.0), 1.0)


def _rise(start: float, s: float) -> float:
    """s·(1 − start) + start, written so that s = 1 gives exactly 1 and s = 0 exactly start."""
    return start * (1.0 - s) + s


def _stage(t: float, l: int, T: float) -> float:
    return _clip((t - T * (l - 1)) / T)


# The table of the paper, one row each: α(t, l, L, T).
Formula = Callable[[float, int, int, float], float]
_WARMING: dict[str, Formula] = {
    "linear": lambda t, l, L, T: _clip(t / (T * l)),
    "linear-sqrt": lambda t, l, L, T: _clip(t / (T * l)) ** 0.5,
    "linear-square": lambda t, l, L, T: _clip(t / (T * l)) ** 2,
    "equal": lambda t, l, L, T: _clip(t / T),
    "reverse": lambda t, l, L, T: _clip(t / (T * (L - l + 1))),
    "stagewise-0": lambda t, l, L, T: _stage(t, l, T),
    "stagewise-L": lambda t, l, L, T: _rise(1 / L, _stage(t, l, T)),
    "stagewise-sqrt-L": lambda t, l, L, T: _rise(1 / math.sqrt(L), _stage(t, l, T)),
    "stagewise-sqrt-l": lambda t, l, L, T: _rise(1 / math.sqrt(l), _stage(t, l, T)),
}
_FIXED: dict[str, Callable[[int, int], float]] = {
    "fix-L": lambda l, L: 1 / L,
    "fix-sqrt-L": lambda l, L: 1 / math.sqrt(L),
    "fix-sqrt-l": lambda l, L: 1 / math.sqrt(l),
    "none": lambda l, L: 1.0,
}
NAMES = (*_WARMING, "cascade", *_FIXED)
"""Every schedule's name, as `by_name` takes it."""

FIXED = tuple(_FIXED)
"""Those that do not depend on the step and take no length."""

WAITING = ("stagewise-0", "cascade")
"""Those that declare layers dormant until their turn."""

DORMANT = ("run", "skip")
"""What may be done with dormant layers: compute them all the same, or not."""


@dataclass(frozen=True)
class DepthSchedule:
    """α as a pure function of the step; make one with a function of this module or `by_name`.

    Attributes:
        name: a row of the table.
        T: warmup length of the first layer in updates, where it was given.
        total: updates until every α is 1, where that was given instead.
        S: `cascade` only: updates between the starts of two neighbouring layers (None: T).
    """

    name: str
    T: float | None = None
    total: float | None = None
    S: float | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise unknown("schedule", self.name, NAMES)
        if self.S is not None:
            if self.name != "cascade":
                raise ValueError(f"S={self.S!r} belongs to cascade; {self.name} has no such length")
            positive("S", self.S)
        if self.name in _FIXED:
            if self.T is not None or self.total is not None:
                raise ValueError(
                    f"schedule {self.name!r} does not depend on the step and takes no length"
                )
        else:
            total_length(self.T, self.total, None, None)

    def __call__(self, step: float, depth: int) -> list[float]:
        """α of the layers 1…depth at `step` completed updates: `depth` floats in [0, 1].

        Raises:
            ValueError: if step is negative or not finite, or depth below 1.
        """
        if not is_number(step) or not math.isfinite(step) or step < 0:
            raise ValueError(f"step={step!r} is not valid: it must be a finite number ≥ 0")
        layers = range(1, count("depth", depth) + 1)
        if self.name in _FIXED:
            return [_FIXED[self.name](l, depth) for l in layers]
        # Exactly 1 at the end, whatever the rounding of total / depth.
        if step >= self.end(depth):
            return [1.0] * depth
        T = self.first_length(depth)
        if self.name == "cascade":
            return [_clip((step - self._apart(depth) * (l - 1)) / T) for l in layers]
        formula = _WARMING[self.name]
        return [formula(step, l, depth, T) for l in layers]

    def waits(self, depth: int) -> list[float]:
        """Updates for which layers 1…depth are declared dormant: it is as if they were not there.

        `cascade` and `stagewise-0` declare it of layer l for S·(l−1) updates (T·(l−1)), all others
        of none. That α is 0 says less: `linear` begins there too, with layers that are at work from
        the first update.

        >>> cascade(T=10, S=5).waits(depth=3)
        [0.0, 5.0, 10.0]
        """
        layers = count("depth", depth)
        if self.name not in WAITING:
            return [0.0] * layers
        return [float(self._apart(depth) * l) for l in range(layers)]

    def dormant(self, step: float, depth: int) -> list[bool]:
        """Whether layers 1…depth still wait for their turn at `step` completed updates."""
        return [step < wait for wait in self.waits(depth)]

    def end(self, depth: int) -> float:
        """Updates until every α is exactly 1: 0 for `none`, infinite for `fix-*`."""
        if self.name in _FIXED:
            return 0.0 if self.name == "none" else math.inf
        if self.total is not None:
            return self.total
        assert self.T is not None
        if self.name == "cascade" and self.S is not None:
            return self.S * (depth - 1) + self.T
        return self.T * self._lengths(depth)

    def first_length(self, depth: int) -> float:
        """T, the warmup length of the first layer, in a model of `depth` layers."""
        if self.name in _FIXED:
            raise ValueError(f"schedule {self.name!r} has no length")
        if self.T is not None:
            return self.T
        assert self.total is not None
        if self.name == "cascade" and self.S is not None:
            return positive("T = total − S·(depth − 1)", self.total - self.S * (depth - 1))
        return self.total / self._lengths(depth)

    def to_json(self) -> str:
        """The schedule as JSON, read back by `from_json`."""
        given = {"T": self.T, "total": self.total, "S": self.S}
        return json.dumps({"name": self.name} | {k: v for k, v in given.items() if v is not None})

    def _apart(self, depth: int) -> float:
        """Updates between the starts of two neighbouring layers, where layers wait."""
        return self.first_length(depth) if self.S is None else self.S

    def _lengths(self, depth: int) -> int:
        """How many T the whole warmup lasts."""
        return 1 if self.name == "equal" else depth


def by_name(
    name: str,
    *,
    T: float | None = None,
    total: float | None = None,
    fraction: float | None = None,
    steps: int | None = None,
    S: float | None = None,
) -> DepthSchedule:
    """The schedule of that name, its length given by exactly one of T, total, fraction.

    Args:
        name: a row of the table (`NAMES`).
        T: warmup length of the first layer, in updates.
        total: updates until every layer is at 1.
        fraction: the same as a fraction of `steps`, the length of the run.
        steps: length of the run, with `fraction` only.
        S: for `cascade`: updates between the starts of two layers.

    >>> by_name("linear", fraction=0.12, steps=100_000).end(depth=12)
    12000.0

    Raises:
        ValueError: for an unknown name (with the nearest valid ones); for a length that is zero,
            negative or not finite, given twice, not at all, or to a schedule that has none.
    """
    if name not in NAMES:
        raise unknown("schedule", name, NAMES)
    if name not in _FIXED:
        T, total = total_length(T, total, fraction, steps)
    elif fraction is not None or steps is not None:
        raise ValueError(f"schedule {name!r} does not depend on the step and takes no length")
    return DepthSchedule(name, T, total, S)


def takes_length(name: str) -> bool:
    """Whether a schedule of that name depends on the step, and so needs a length.

    >>> takes_length("linear"), takes_length("none")
    (True, False)
    """
    return name not in _FIXED


def from_json(text: str) -> DepthSchedule:
    """The schedule that `DepthSchedule.to_json` wrote."""
    fields: dict[str, Any] = json.loads(text)
    return by_name(fields.pop("name"), **fields)


def _warming(name: str) -> Callable[..., DepthSchedule]:
    def schedule(
        T: float | None = None,
        *,
        total: float | None = None,
        fraction: float | None = None,
        steps: int | None = None,
    ) -> DepthSchedule:
        return by_name(name, T=T, total=total, fraction=fraction, steps=steps)

    return _called(schedule, name)


def _fixed(name: str) -> Callable[[], DepthSchedule]:
    return _called(lambda: by_name(name), name)


def _called(function: Callable[..., DepthSchedule], name: str) -> Callable[..., DepthSchedule]:
    function.__name__ = function.__qualname__ = name.replace("-", "_")
    function.__doc__ = f"The schedule {name!r} of the table; see `by_name` for its length."
    return function


def cascade(
    T: float | None = None,
    *,
    S: float | None = None,
    total: float | None = None,
    fraction: float | None = None,
    steps: int | None = None,
) -> DepthSchedule:
    """Layer l is dormant until S·(l−1) and rises over T updates; without S it is stagewise-0."""
    return by_name("cascade", T=T, S=S, total=total, fraction=fraction, steps=steps)


linear = _warming("linear")
linear_sqrt = _warming("linear-sqrt")
linear_square = _warming("linear-square")
equal = _warming("equal")
reverse = _warming("reverse")
stagewise_0 = _warming("stagewise-0")
stagewise_L = _warming("stagewise-L")
stagewise_sqrt_L = _warming("stagewise-sqrt-L")
stagewise_sqrt_l = _warming("stagewise-sqrt-l")
fix_L = _fixed("fix-L")
fix_sqrt_L = _fixed("fix-sqrt-L")
fix_sqrt_l = _fixed("fix-sqrt-l")
none = _fixed("none")
