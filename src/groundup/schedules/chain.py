"""Factors and how they are combined: `f >> g` one after the other, `f * g` at the same time, and
`blend`, from one to the other. Each is itself a pure function of the step, and plain data."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from groundup._check import count, unknown
from groundup.schedules.length import Length, exact_steps, in_steps
from groundup.schedules.segments import Level, Segment, segment


class Factor:
    """What the peak rate (or another hyperparameter) is multiplied by: a pure function of the step.

    >>> import groundup as gu
    >>> f = gu.factor.linear(2000) >> gu.factor.hold() >> gu.factor.decay("linear", 0.1)
    >>> f(0, steps=100_000)
    0.0005
    """

    def __call__(
        self, step: int, steps: int | None = None, tokens_per_step: int | None = None
    ) -> float:
        """The factor at `step` completed updates.

        Args:
            step: completed updates, at least 0.
            steps: length of the run in updates; needed for fractions and for a segment that takes
                what the others leave.
            tokens_per_step: tokens of an update; needed for lengths in tokens.

        Raises:
            ValueError: if step is negative, something needed is missing, or the segments do not
                fit into the run.
        """
        count("step", step, least=0)
        if (steps, tokens_per_step) not in self._resolved:
            self._resolved[steps, tokens_per_step] = self.resolve(steps, tokens_per_step)
        return self._resolved[steps, tokens_per_step].at(step)

    # On the instance, not in a cache by value: the lengths 1 and 1.0 are equal and differ.
    @functools.cached_property
    def _resolved(self) -> dict[tuple[int | None, int | None], Factor]:
        return {}

    def at(self, step: int) -> float:
        """The value of a factor that `resolve` has returned."""
        raise NotImplementedError

    def resolve(self, steps: int | None = None, tokens_per_step: int | None = None) -> Factor:
        """The same factor with all lengths in whole updates, so that it needs neither any more.

        Raises:
            ValueError: as for a call.
        """
        raise NotImplementedError

    def joints(self, steps: int | None = None, tokens_per_step: int | None = None) -> list[int]:
        """The updates at which a segment begins, other than 0, rising."""
        raise NotImplementedError

    def plain(self) -> Any:
        raise NotImplementedError

    def to_json(self) -> str:
        """The factor as JSON, read back by `from_json`."""
        return json.dumps(self.plain())

    def __rshift__(self, other: Factor) -> Factor:
        raise _not_chains(self, other)

    def __mul__(self, other: Factor | float) -> Factor:
        if not isinstance(other, Factor):
            other = Chain((Level(None, other),))
        return Product((*_factors(self), *_factors(other)))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Chain(Factor):
    """Segments one after the other, each starting from the level that the one before left.

    One of them may leave its length out and takes what the others leave. After the last its final
    value is kept.
    """

    segments: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        open_ended = [s.label for s in self.segments if s.length is None]
        if len(open_ended) > 1:
            raise ValueError(
                f"only one segment may leave its length open, got {len(open_ended)}: "
                f"{', '.join(open_ended)}"
            )

    def __rshift__(self, other: Factor) -> Chain:
        if not isinstance(other, Chain):
            raise _not_chains(self, other)
        return Chain(self.segments + other.segments)

    def at(self, step: int) -> float:
        level, begin = 1.0, 0
        for part in self.segments:
            length = math.inf if part.length is None else part.length
            assert isinstance(length, int | float)
            if step < begin + length:
                return level * part.value(step - begin, length)
            level *= part.end(length)
            begin += int(length)
        return level

    def resolve(self, steps: int | None = None, tokens_per_step: int | None = None) -> Chain:
        lengths = self.lengths(steps, tokens_per_step)

        def to_steps(field: str, length: Length) -> int:
            return in_steps(field, length, steps, tokens_per_step)

        parts = zip(self.segments, lengths, strict=True)
        # In a run of a few updates rounding may leave nothing of a segment.
        kept = ((part, length) for part, length in parts if length != 0)
        return Chain(tuple(part.resolved(length, to_steps) for part, length in kept))

    def lengths(
        self, steps: int | None = None, tokens_per_step: int | None = None
    ) -> list[int | None]:
        """The number of updates of each segment; None for a last one without end, which is possible
        only where `steps` is not given.

        Raises:
            ValueError: as for a call.
        """
        wanted = [s.length for s in self.segments]
        exact = [
            0.0 if n is None else exact_steps(f"length of {s.label}", n, steps, tokens_per_step)
            for s, n in zip(self.segments, wanted, strict=True)
        ]
        found = [0 if n is None else max(1, round(m)) for n, m in zip(wanted, exact, strict=True)]
        if steps is None:
            if None in wanted[:-1] or (None in wanted and not self.segments[-1].endless):
                raise ValueError("a segment of open length needs steps, the length of the run")
            return [None if n is None else m for n, m in zip(wanted, found, strict=True)]
        if sum(exact) > count("steps", steps) * (1 + 1e-12):
            parts = ", ".join(
                f"{s.label} {'open' if s.length is None else s.length}" for s in self.segments
            )
            raise ValueError(f"the segments ({parts}) are longer than the run of {steps} steps")
        # What is not whole was rounded, to one update at least: what that is too much is given
        # back, by the longest first, the later of two.
        rounded = [i for i, n in enumerate(wanted) if n is not None and not isinstance(n, int)]
        for _ in range(sum(found) - steps):
            found[max(rounded, key=lambda i: (found[i], i))] -= 1
        rest = steps - sum(found)
        return [rest if n is None else m for n, m in zip(wanted, found, strict=True)]

    def joints(self, steps: int | None = None, tokens_per_step: int | None = None) -> list[int]:
        lengths = self.lengths(steps, tokens_per_step)
        begins = itertools.accumulate((n or 0 for n in lengths[:-1]), initial=0)
        # In a run of a few updates rounding may leave nothing of a segment.
        return sorted({at for at, n in zip(begins, lengths, strict=False) if at and n != 0})

    def plain(self) -> Any:
        return {"chain": [part.plain() for part in self.segments]}


@dataclass(frozen=True)
class Product(Factor):
    """Several factors at the same time, multiplied."""

    factors: tuple[Factor, ...]

    def at(self, step: int) -> float:
        return math.prod(factor.at(step) for factor in self.factors)

    def resolve(self, steps: int | None = None, tokens_per_step: int | None = None) -> Product:
        return Product(tuple(f.resolve(steps, tokens_per_step) for f in self.factors))

    def joints(self, steps: int | None = None, tokens_per_step: int | None = None) -> list[int]:
        return sorted({at for f in self.factors for at in f.joints(steps, tokens_per_step)})

    def plain(self) -> Any:
        return {"product": [factor.plain() for factor in self.factors]}


@dataclass(frozen=True)
class Blend(Factor):
    """From one factor to another; see `blend`."""

    old: Factor
    new: Factor
    begin: int
    length: int

    def __post_init__(self) -> None:
        count("at", self.begin, least=0)
        count("length", self.length)

    def at(self, step: int) -> float:
        if step <= self.begin:
            return self.old.at(step)
        share = min(1.0, (step - self.begin) / self.length)
        new = self.new.at(step)
        return new if share == 1.0 else (1.0 - share) * self.old.at(step) + share * new

    def resolve(self, steps: int | None = None, tokens_per_step: int | None = None) -> Blend:
        old = self._resolved_old(steps, tokens_per_step)
        return Blend(old, self.new.resolve(steps, tokens_per_step), self.begin, self.length)

    def _resolved_old(self, steps: int | None, tokens_per_step: int | None) -> Factor:
        # Where it says all its lengths itself it may be of a longer run than this one.
        try:
            return self.old.resolve(None, tokens_per_step)
        except ValueError:
            return self.old.resolve(steps, tokens_per_step)

    def joints(self, steps: int | None = None, tokens_per_step: int | None = None) -> list[int]:
        old = self._resolved_old(steps, tokens_per_step)
        before = [at for at in old.joints() if at < self.begin]
        after = [at for at in self.new.joints(steps, tokens_per_step) if at > self.begin]
        return sorted({*before, self.begin, self.begin + self.length, *after} - {0})

    def plain(self) -> Any:
        return {
            "blend": [self.old.plain(), self.new.plain()],
            "at": self.begin,
            "length": self.length,
        }


def blend(old: Factor, new: Factor, *, at: int, length: int) -> Factor:
    """`old` up to the update `at`, then gradually `new`: (1 − w)·old + w·new with
    w = min(1, (step − at)/length). So a schedule is changed in a run without a jump.

    In a run whose length has changed, `old` is ``old.resolve(steps)`` with the steps that it had:

    >>> import groundup as gu
    >>> plan = gu.factor.wsd(10, 0.2)
    >>> longer = gu.factor.blend(plan.resolve(100), plan, at=90, length=20)
    >>> [round(longer(step, steps=200), 3) for step in (89, 90, 91, 109, 110)]
    [0.55, 0.5, 0.477, 0.95, 1.0]

    Raises:
        ValueError: for an `at` below 0 or a `length` below 1.
    """
    return Blend(old, new, at, length)


def from_json(text: str) -> Factor:
    """The factor that `to_json` wrote.

    Raises:
        ValueError: if the text is something else.
    """
    try:
        return _parsed(json.loads(text))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{text!r} is not a factor as to_json writes it: {error}") from None


def _parsed(plain: dict[str, Any]) -> Factor:
    if "chain" in plain:
        return Chain(tuple(segment(part) for part in plain["chain"]))
    if "product" in plain:
        return Product(tuple(_parsed(factor) for factor in plain["product"]))
    if "blend" in plain:
        old, new = plain["blend"]
        return Blend(_parsed(old), _parsed(new), plain["at"], plain["length"])
    raise unknown("kind of factor", next(iter(plain), ""), ("chain", "product", "blend"))


def _not_chains(left: Factor, right: object) -> TypeError:
    return TypeError(
        f"{type(left).__name__} >> {type(right).__name__}: only chains of segments are joined; "
        "join first, multiply or blend afterwards"
    )


def _factors(factor: Factor) -> Sequence[Factor]:
    return factor.factors if isinstance(factor, Product) else (factor,)
