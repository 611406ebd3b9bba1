"""The course of a factor over a run: how much its warmup holds back, where it begins to fall, and
whether a residual warmup fits in between."""

from __future__ import annotations

import math

from groundup.schedules.chain import Factor
from groundup.schedules.depth import DepthSchedule
from groundup.schedules.length import into_decay
from groundup.schedules.published import percent


def effective_length(factor: Factor, steps: int, tokens_per_step: int | None = None) -> int:
    """The linear warmup that holds the rate back as much: 1 + 2·Σ(1 − ωₙ), 0 for none.

    Σ(1 − ωₙ) is the effective warmup period of Ma & Yarats 2021 (arXiv:1910.04209), counted up to
    the decay and relative to the factor's peak. For linear and cosine warmups over W updates the
    result is W.

    >>> from groundup.schedules import factor as F
    >>> effective_length(F.linear(40) >> F.hold(), 1000)
    40
    >>> effective_length(F.untuned_exponential(0.95), 1000)
    40
    """
    resolved = factor.resolve(steps, tokens_per_step)
    peak, end = _peak(resolved, steps)
    lost = 0.0
    for step in range(end):
        missing = 1.0 - resolved.at(step) / peak
        if missing < 1e-9:
            break
        lost += missing
    return 1 + round(2.0 * lost) if lost else 0


def decay_begin(factor: Factor, steps: int, tokens_per_step: int | None = None) -> int | None:
    """The last update at the peak, from where on the factor falls; None if it does not.

    >>> from groundup.schedules import factor as F
    >>> decay_begin(F.wsd(10, 0.2), 1000)
    800
    """
    at = _peak(factor.resolve(steps, tokens_per_step), steps)[1]
    return at if at < steps - 1 else None


def residual_warnings(
    schedule: DepthSchedule,
    depth: int,
    factor: Factor,
    steps: int,
    tokens_per_step: int | None = None,
) -> tuple[str, ...]:
    """What does not fit together of a residual warmup and the rate's factor: a warmup that has not
    ended when the rate decays, or when the run ends.

    Where the rate is not held before it decays, the former is said if it is below half of its peak
    at the end of the residual warmup; the half is ours.
    """
    end = schedule.end(depth)
    if not math.isfinite(end):
        return ()
    if end > steps:
        return (
            f"residual warmup would last {end:g} steps, but the run has {steps}: at its end the "
            f"least α is {min(schedule(steps, depth)):.2g}",
        )
    resolved = factor.resolve(steps, tokens_per_step)
    peak, begin = _peak(resolved, steps)
    # A warmup's last update is at the peak, and a decay's first one, with no hold between them too.
    if begin > 1 and _digits(resolved.at(begin - 2)) == peak:
        message = into_decay(end, begin) if begin < steps - 1 else None
        return (message,) if message else ()
    share = resolved.at(min(math.ceil(end), steps - 1)) / peak
    if end > begin and share < 0.5:
        return (
            f"residual warmup would last {end:g} steps, when the rate is down to "
            f"{percent(share)} of its peak: make it shorter, or let the rate decay later",
        )
    return ()


def _peak(resolved: Factor, steps: int) -> tuple[float, int]:
    """The largest value, and the last update that has it."""
    # Between its joints a factor rises or falls throughout, unless it is a blend: hence the grid.
    joints = {at for joint in resolved.joints() for at in (joint - 1, joint) if at < steps}
    grid = range(0, steps, max(1, steps // 500))
    return max((_digits(resolved.at(at)), at) for at in {*joints, *grid, steps - 1})


def _digits(value: float) -> float:
    return round(value, 12)
