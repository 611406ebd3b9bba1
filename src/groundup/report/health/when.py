"""When residual warmup helped: the gap of the training loss to the baseline's, over the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.report import curves
from groundup.report.health.reading import awake
from groundup.report.health.telling import quoted
from groundup.report.table import Study, Variant
from groundup.report.words import LEVEL, count, listing, number, plans

__all__ = ["sentences"]

Numbers = NDArray[np.float64]

ERRORS = 3.0
"""A gap within this many standard errors of 0 is called noise: of the 50 windows of a run the
farthest lies 2.3 away by chance. The error is that from batch to batch, not from seed to seed."""

TOLD = 4
"""Variants described one by one; more are counted, and those at both ends described."""

STEEP = 0.1
"""Of the run: there the gap itself moves from update to update, which is not noise."""


@dataclass(frozen=True)
class Course:
    """The gap of one variant, mean over seeds.

    Attributes:
        variant: whose.
        seeds: how many are averaged.
        steps: completed updates when each compared update began.
        gap: smoothed training loss minus the baseline's, nats per token; `raw` the same unsmoothed.
        width: updates that are averaged over.
        error: standard error of a smoothed value.
        crossings: for each seed, the step from which its smoothed gap stays below 0; None: its
            gap over the last window is not, or by less than can be read.
        plan: what to say where the runs and the baseline's are planned for different lengths.
    """

    variant: Variant
    seeds: int
    steps: Numbers
    gap: Numbers
    raw: Numbers
    width: int
    error: float
    crossings: tuple[float | None, ...]
    plan: str

    @property
    def crossing(self) -> float | None:
        """The step from which the mean gap stays below 0, to the end of what was compared."""
        return _crossing(self.steps, self.gap)

    @property
    def final(self) -> float:
        """The mean gap over the last window."""
        return self.before(math.inf)

    @property
    def below(self) -> bool:
        """Whether it ends below the baseline by more than noise, and more than 0.000."""
        return self.final < -ERRORS * self.error and self.final <= -LEVEL

    def before(self, step: float) -> float:
        """The mean gap over the last window before `step`."""
        return _final(self.raw[self.steps < step], self.width)

    @property
    def agreed(self) -> bool:
        """Whether all seeds end below the baseline, or none does."""
        return len({at is None for at in self.crossings}) == 1


def sentences(group: Study) -> list[str]:
    """What the gap says about each variant with residual warmup; [] where there is none."""
    warmed = [variant for variant in group.others if variant.schedule is not None]
    found = [c for c in (_course(variant, group) for variant in warmed) if c is not None]
    told = []
    if found and group.baseline is None:
        told.append(
            "Each variant is compared with the one without residual warmup that has the same "
            "settings otherwise; “the baseline” is that one."
        )
    if len(found) > TOLD:
        told.append(_overall(found))
        ends = sorted(found, key=lambda course: course.final)
        ends = [*ends[: TOLD // 2], *ends[-TOLD // 2 :]]
        told.append(
            f"Those with the lowest and the highest gap at the end are described here, {len(ends)} "
            f"of {len(found)}."
        )
        found = [course for course in found if any(course is end for end in ends)]
    return told + [_told(course) for course in found]


def _course(variant: Variant, group: Study) -> Course | None:
    paired = group.pairs(variant)
    gaps = [curves.difference(run, base, "loss", 1) for run, base in paired]
    gaps = [(steps, values) for steps, values in gaps if np.isfinite(values).any()]
    if not gaps:
        return None
    steps, raw = curves.average(gaps)
    known = np.isfinite(raw)
    if not known.any():
        return None
    steps, raw = steps[known], raw[known]
    width = curves.window([run for run, _ in paired])
    gap = curves.smooth(raw, width)
    return Course(
        variant=variant,
        seeds=len(gaps),
        steps=steps,
        gap=gap,
        raw=raw,
        width=width,
        error=_error(raw, width),
        crossings=tuple(
            _crossing(at, curves.smooth(v, width)) if _final(v, width) <= -LEVEL else None
            for at, v in gaps
        ),
        plan=next((p for p in (plans(run.planned, base.planned) for run, base in paired) if p), ""),
    )


def _final(raw: Numbers, width: int) -> float:
    """Mean of the finite values among the last `width`."""
    values = raw[-width:]
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _error(raw: Numbers, width: int) -> float:
    """Of noise that is independent from batch to batch: by neighbours, which share the trend."""
    steps = np.diff(raw[int(STEEP * len(raw)) :])
    return float(np.std(steps)) / math.sqrt(2 * width) if len(steps) > 1 else 0.0


def _crossing(steps: Numbers, gap: Numbers) -> float | None:
    """The step from which `gap` stays below 0; None if it does not end there."""
    known = np.isfinite(gap)
    steps, gap = steps[known], gap[known]
    if not len(gap) or gap[-1] >= 0:
        return None
    above = np.flatnonzero(gap >= 0)
    return float(steps[above[-1] + 1]) if len(above) else float(steps[0])


def _overall(found: Sequence[Course]) -> str:
    below = [course for course in found if course.below and course.crossing is not None]
    text = (
        f"Of {len(found)} variants with residual warmup, {len(below)} end with a training loss "
        "below the baseline’s by more than noise"
    )
    if len(below) > 1:
        first, *_, last = sorted(below, key=lambda course: course.crossing or 0.0)
        text += (
            f"; the first to stay below is {quoted(first.variant)}, from update "
            f"{_at(first.crossing)}, the last {quoted(last.variant)}, from {_at(last.crossing)}"
        )
    return f"{text}."


def _told(course: Course) -> str:
    """All that is said about one variant."""
    run = course.variant.runs[0]
    end = awake(run)
    decay = next((s for s in map(curves.decay_start, course.variant.runs) if s is not None), None)
    last = int(course.steps[-1]) + 1
    waking = end if end is not None and 0 < end < last else None
    parts = [f"{quoted(course.variant)}: {_while_waking(course, end, last)}"]
    parts.append(_from_then_on(course, waking, decay, last))
    if decay is not None and course.steps[0] < decay < course.steps[-1]:
        parts.append(_through_decay(course, decay))
    seeds = "One seed" if course.seeds == 1 else f"Mean of {course.seeds} seeds"
    smoothed = f", smoothed over {course.width} updates" if course.width > 1 else ""
    parts.append(f"{seeds}{smoothed}; {_seeds(course)}.")
    if course.plan:
        parts.append(f"{course.plan[0].upper()}{course.plan[1:]}.")
    return " ".join(parts)


def _while_waking(course: Course, end: float | None, last: int) -> str:
    """How far the loss lies above the baseline's while α is small."""
    if end is None:
        span, when = course.gap, ""
    else:
        span = course.gap[course.steps < end]
        when = f" while its layers wake (to update {_at(end)}"
        when += f", beyond the {count(last)} made so far)" if end > last else ")"
    top = float(np.max(span)) if len(span) else -math.inf
    if top <= max(ERRORS * course.error, 0.1 * LEVEL):  # which shows as 0.0000
        return f"at no time{when} is its training loss above the baseline’s by more than noise."
    at = course.steps[int(np.argmax(span))]
    most = f"most at update {_at(at)}"
    return f"its training loss lies up to {_nats(top)} nats above the baseline’s{when}; {most}."


def _from_then_on(course: Course, waking: float | None, decay: int | None, last: int) -> str:
    """From when on it is below for good, against the moments of the schedules."""
    gap = f"{number(course.final, 3, sign=True)} at the end"
    if abs(course.final) <= ERRORS * course.error:
        return (
            f"At the end it cannot be told from the baseline’s ({gap}, noise "
            f"±{_nats(ERRORS * course.error)})."
        )
    if abs(course.final) < LEVEL:
        return f"At the end it is within {LEVEL} nats of the baseline’s."
    at = course.crossing
    if at is None or course.final > 0:
        return f"It never comes to stay below ({gap})."
    it = "It stays" if course.agreed else "The seeds do not agree; their mean stays"
    if at <= course.steps[0]:
        return f"{it} below from the first update on ({gap})."
    moments = [("residual warmup ends", waking), ("the rate’s decay begins", decay)]
    told = [_relative(at, moment, name) for name, moment in moments if moment is not None]
    share = f"{100 * at / last:.0f}% of the run"
    return f"{it} below from update {_at(at)} on ({', '.join([share, *told])}; {gap})."


def _relative(at: float, moment: float, name: str) -> str:
    apart = math.ceil(at) - math.ceil(moment)
    if apart == 0:
        return f"as {name}"
    return f"{count(abs(apart))} updates {'after' if apart > 0 else 'before'} {name}"


def _through_decay(course: Course, decay: int) -> str:
    first, final = course.before(decay + 1), course.final
    change = final - first
    if abs(change) <= ERRORS * math.sqrt(2) * course.error:
        verdict = "leaves it as it is, within noise"
    elif abs(change) < LEVEL:
        verdict = "leaves it as it is"
    elif abs(final) > abs(first) and (final < 0) == (first < 0):
        verdict = "widens it"
    elif (final < 0) == (first < 0):
        verdict = "narrows it"
    else:
        verdict = "turns it around"
    return (
        f"The rate’s decay {verdict}: {number(first, 3, sign=True)} when it begins (update "
        f"{count(decay)}), {number(final, 3, sign=True)} at the end."
    )


def _seeds(course: Course) -> str:
    """How far the seeds agree on when."""
    if course.seeds == 1:
        return "with another seed the moment can be another"
    stay = [at for at in course.crossings if at is not None]
    if len(stay) < course.seeds:
        return f"{len(stay) or 'none'} of {course.seeds} seeds end below the baseline"
    return f"by seed it stays below from update {listing([_at(at) for at in sorted(stay)])}"


def _at(step: float | None) -> str:
    return count(math.ceil(step or 0))


def _nats(value: float) -> str:
    return number(value, 3 if value >= 0.0095 else 4)
