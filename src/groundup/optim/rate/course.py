"""What a parameter group's settings are after each number of updates: a pure function of the step.

A `Course` is one group's peak rate with its factor and whatever else is scheduled; a `Changed` goes
from one course to another without a jump. Both are plain data, and nothing here needs torch.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from groundup._check import count
from groundup.schedules import DepthSchedule, Factor, depth, factor

# λ of a decay by its mode, from the group's own λ and ω, what the peak rate is multiplied by.
MODES: dict[str, Callable[[float, float], float]] = {
    "independent": lambda own, omega: _divided(own, omega),
    "squared": lambda own, omega: own * omega,
}


def _divided(own: float, omega: float) -> float:
    # At a rate of 0 nothing is taken from the weights, whatever λ is.
    quotient = own / omega if omega > 0.0 else math.inf
    return quotient if math.isfinite(quotient) else own


@dataclass(frozen=True)
class Layered:
    """α(layer, n) of a depth schedule, n = step + 1: no update is wasted at rate 0."""

    schedule: DepthSchedule
    layer: int
    depth: int

    def __call__(self, step: int) -> float:
        return _alphas(self.schedule, step + 1, self.depth)[self.layer - 1]


@functools.lru_cache(maxsize=8)  # the groups of an optimizer ask one after the other
def _alphas(schedule: DepthSchedule, n: int, depth: int) -> list[float]:
    return schedule(n, depth)


@dataclass(frozen=True)
class Setting:
    """A hyperparameter besides the rate: `base` times a factor, or a mode of weight decay."""

    name: str
    base: float
    rule: Factor | str

    def __call__(self, step: int, omega: float) -> float:
        if isinstance(self.rule, Factor):
            return self.base * self.rule(step)
        return MODES[self.rule](self.base, omega)


@dataclass(frozen=True)
class Course:
    """The settings of one group.

    Attributes:
        peak: what the factor multiplies.
        factor: resolved, so that it needs no length of the run.
        layered: a depth schedule that multiplies the rate besides.
        settings: what is scheduled other than the rate.
    """

    peak: float
    factor: Factor
    layered: Layered | None = None
    settings: tuple[Setting, ...] = ()

    def omega(self, step: int) -> float:
        """What the peak is multiplied by."""
        value = self.factor(step)
        return value if self.layered is None else value * self.layered(step)

    def __call__(self, step: int) -> dict[str, float]:
        """Every setting's value after `step` updates, the rate as "lr"."""
        omega = self.omega(step)
        values = {"lr": self.peak * omega}
        return values | {setting.name: setting(step, omega) for setting in self.settings}

    def names(self) -> list[str]:
        """What it sets besides the rate."""
        return [setting.name for setting in self.settings]

    def times(self, other: Factor) -> Course:
        """The same with a rate that `other` multiplies too."""
        return replace(self, factor=self.factor * other)

    def holding(self, constants: dict[str, float]) -> Course:
        """The same, also setting these names where it does not yet, to constants."""
        new = {name: base for name, base in constants.items() if name not in self.names()}
        settings = (Setting(name, base, CONSTANT) for name, base in new.items())
        return replace(self, settings=(*self.settings, *settings))

    def plain(self) -> Any:
        layered = self.layered
        return {
            "peak": self.peak,
            "factor": self.factor.plain(),
            "layered": layered and [layered.schedule.to_json(), layered.layer, layered.depth],
            "settings": [
                [s.name, s.base, s.rule.plain() if isinstance(s.rule, Factor) else s.rule]
                for s in self.settings
            ],
        }


@dataclass(frozen=True)
class Changed:
    """`old` up to the step `at`, then gradually `new`: (1 − w)·old + w·new of every setting, with
    w = min(1, (step − at)/length). Of weight decay that holds for lr·λ: with λ = peak·λ₀/lr a mean
    of the λ themselves would, times the mean rate, decay by far more than either schedule does.
    """

    old: Course | Changed
    new: Course | Changed
    at: int
    length: int

    def __call__(self, step: int) -> dict[str, float]:
        if step <= self.at:
            return self.old(step)
        share = min(1.0, (step - self.at) / self.length)
        new = self.new(step)
        if share == 1.0:
            return new
        old = self.old(step)
        values = {name: _between(old[name], new[name], share) for name in new}
        if "weight_decay" in values and values["lr"] > 0.0:
            share *= new["lr"] / values["lr"]
            values["weight_decay"] = _between(old["weight_decay"], new["weight_decay"], share)
        return values

    def names(self) -> list[str]:
        return self.new.names()

    def times(self, other: Factor) -> Changed:
        return replace(self, old=self.old.times(other), new=self.new.times(other))

    def holding(self, constants: dict[str, float]) -> Changed:
        return replace(self, old=self.old.holding(constants), new=self.new.holding(constants))

    def plain(self) -> Any:
        sides = [self.old.plain(), self.new.plain()]
        return {"changed": sides, "at": self.at, "length": self.length}


def _between(old: float, new: float, share: float) -> float:
    return (1.0 - share) * old + share * new


CONSTANT = factor.hold().resolve()

AnyCourse = Course | Changed


def to_json(courses: Sequence[AnyCourse]) -> str:
    """The courses of all groups as JSON, read back by `from_json`."""
    return json.dumps([course.plain() for course in courses])


def from_json(text: str) -> list[AnyCourse]:
    """What `to_json` wrote.

    Raises:
        ValueError: if the text is something else.
    """
    try:
        return [_parsed(plain) for plain in json.loads(text)]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{text!r} does not describe courses of a rate: {error}") from None


def _parsed(plain: dict[str, Any]) -> AnyCourse:
    if "changed" in plain:
        old, new = (_parsed(side) for side in plain["changed"])
        return Changed(old, new, count("at", plain["at"], 0), count("length", plain["length"]))
    layered = plain["layered"]
    return Course(
        plain["peak"],
        _factor(plain["factor"]),
        layered and Layered(depth.from_json(layered[0]), *layered[1:]),
        tuple(
            Setting(name, base, rule if isinstance(rule, str) else _factor(rule))
            for name, base, rule in plain["settings"]
        ),
    )


def _factor(plain: Any) -> Factor:
    return factor.from_json(json.dumps(plain))
