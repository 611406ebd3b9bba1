"""How long a warmup lasts: in steps or as a fraction of the run, and how long is advisable."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from groundup._check import count, positive, within

Length = int | float
"""An int is a number of optimizer updates, a float in (0, 1] a fraction of the run."""


def check_length(field: str, length: Length) -> Length:
    """`length` as it is if it is an int ≥ 1 or a float in (0, 1]; ValueError otherwise."""
    if isinstance(length, float) and not 0.0 < length <= 1.0:
        hint = f" (write {int(length)} for steps)" if length > 1 and length.is_integer() else ""
        raise ValueError(
            f"{field}={length!r} is not valid: a float is a fraction of the run, "
            f"above 0 and at most 1{hint}"
        )
    if not isinstance(length, float):
        count(field, length)
    return length


def in_steps(field: str, length: Length, steps: int | None) -> int:
    """The number of updates that `length` stands for in a run of `steps` updates (at least 1)."""
    if not isinstance(length, float):
        return int(length)
    if steps is None:
        raise ValueError(f"{field}={length!r} is a fraction of the run: say how long the run is")
    return max(1, round(length * steps))


def total_length(
    T: float | None, total: float | None, fraction: float | None, steps: int | None
) -> tuple[float | None, float | None]:
    """(T, total) of a depth schedule from exactly one of T, total, fraction (which needs steps)."""
    given = {"T": T, "total": total, "fraction": fraction}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        said = ", ".join(f"{name}={given[name]!r}" for name in named) or "nothing"
        raise ValueError(
            "the length of a depth schedule is given by exactly one of T, total, fraction: "
            f"got {said}"
        )
    if fraction is None:
        if steps is not None:
            raise ValueError(f"steps={steps!r} has a meaning only together with fraction")
        positive(named[0], given[named[0]])
        return T, total
    within("fraction", fraction, 0.0, 1.0)
    positive("fraction", fraction)
    if steps is None:
        raise ValueError(f"fraction={fraction!r} needs steps, the length of the run")
    return None, fraction * count("steps", steps)


@dataclass(frozen=True)
class Suggestion:
    """A warmup length of the first layer, in steps, and why."""

    T: int
    reason: str


def suggest(depth: int, steps: int, decay: Length = 0.1) -> Suggestion:
    """A length T for `gu.depth.linear` in a run of `steps` updates of a model of `depth` layers.

    Table 6 of arXiv:2603.05369 (24 layers, 60k steps) is flat from T·L = 10% to 40% of the run and
    best at 20%: T = 0.2·steps/depth. Runs so short that T falls below one update get T = 1.

    Args:
        depth: number of layers L.
        steps: length of the run in updates.
        decay: length of the final rate decay. A warmup that would still be going on when the decay
            begins is warned about: the last layers would learn at a falling rate only.

    Raises:
        ValueError: for a depth or a run below 1 or a length that is not valid.
    """
    count("depth", depth)
    count("steps", steps)
    check_length("decay", decay)
    T = max(1, round(0.2 * steps / depth))
    before_decay = steps - in_steps("decay", decay, steps)
    reason = (
        f"T = {T}: all {depth} layers are awake after {T * depth} of {steps} steps "
        f"({T * depth / steps:.0%}); arXiv:2603.05369, Table 6, is flat from 10% to 40%"
    )
    if T * depth > before_decay:
        warnings.warn(
            f"residual warmup would last {T * depth} steps, but the rate decays from step "
            f"{before_decay}: train longer, or use gu.depth.equal",
            stacklevel=2,
        )
    return Suggestion(T, reason)
