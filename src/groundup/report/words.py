"""The report in words: numbers as people write them, and the sentences computed from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from groundup.report.runs import Run
from groundup.report.table import Comparison, Gap, Row, Spikes, Spread

__all__ = [
    "LEVEL",
    "Headline",
    "cell",
    "count",
    "counts",
    "duration",
    "headline",
    "listing",
    "number",
    "paired",
    "plans",
    "run_name",
    "seconds",
    "spikes",
]

Headline = tuple[str, list[str]]
"""The one sentence on top, and those that qualify it."""

_TOLD = 6  # gaps told one by one; of more, the lowest and the highest
LEVEL = 5e-4
"""Nats per token; a smaller gap shows as 0.000, and nothing is said to lead by it."""


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number with a real minus sign; a dash for None."""
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def cell(spread: Spread | None, digits: int = 3, sign: bool = False) -> str:
    """Mean ± standard deviation, the latter only where there are several seeds."""
    if spread is None:
        return "–"
    mean = number(spread.mean, digits, sign)
    return mean if spread.sd is None else f"{mean} ± {number(spread.sd, digits)}"


def duration(spread: Spread | None) -> str:
    """A mean time; a dash for none."""
    return "–" if spread is None else seconds(spread.mean)


def seconds(value: float) -> str:
    """Seconds as “2 min 30 s”."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def spikes(score: Spikes | None) -> str:
    """A spike score in percent."""
    return "–" if score is None else f"{score.percent:.2f}%"


def run_name(run: Run) -> str:
    """A run in a sentence."""
    return run.variant if run.seed is None else f"{run.variant}, seed {run.seed}"


def listing(words: Sequence[str]) -> str:
    """“a”, “a and b”, “a, b and c”."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def count(value: int) -> str:
    """1000, but 10,000."""
    return f"{value:,}" if abs(value) >= 10_000 else str(value)


def counts(values: Iterable[int]) -> str:
    """“100”, or “50 and 100” where runs differ in length."""
    return listing([count(value) for value in sorted(values)])


def headline(result: Comparison) -> Headline:
    """What the comparison says, in plain words."""
    if result.baseline is None:
        return paired(result, {}) or (_alone(result.rows[0]), [])
    rows = [row for row in result.rows if row.variant != result.baseline]
    # Those that came furthest first, so that nobody leads by being compared earlier.
    ranked = sorted((row for row in rows if row.gap), key=lambda row: (-_reached(row), _mean(row)))
    base = result.row(result.baseline)
    if not ranked:
        return _unpaired(rows, base), []
    first, *rest = ranked
    details = [*_lengths(ranked), *_evidence(first)]
    if rest:
        rivals = sum(_reached(row) == _reached(first) for row in ranked)
        if rivals > 1:
            best = f"It is the best of {rivals} variants, and being picked afterwards flatters it."
            details.insert(0, best)
        others = listing([f"“{row.variant}” {_difference(row)}{_when(row, first)}" for row in rest])
        details.append(f"The others against the baseline: {others}.")
    details += [_unpaired([row], base) for row in rows if row.gap is None]
    return _outcome(first, base), details


def paired(result: Comparison, places: Mapping[str, str]) -> Headline | None:
    """What variants say that are each compared with their own baseline; None if none has a gap.

    `places` says where each stands, in words; without it, its name does.
    """
    compared = [row for row in result.rows if row.baseline is not None]
    broken = [_broken(row, result.row(str(row.baseline))) for row in compared]
    rows = [row for row, why in zip(compared, broken, strict=True) if row.gap and not why]
    more = [*filter(None, broken), *_lengths(rows)]
    waiting = sum(row.gap is None and not why for row, why in zip(compared, broken, strict=True))
    if waiting:
        more.append(f"{count(waiting)} more have no gap to their baselines yet.")
    if not rows:
        return (f"There is no gap to state: {more[0]}", more[1:]) if any(broken) else None
    if len(rows) == 1:
        (row,) = rows
        return _outcome(row, result.row(str(row.baseline))), [*_evidence(row), *more]
    told = [f"{_signed(row)} ({places.get(row.variant, row.variant)})" for row in rows]
    if len(told) > _TOLD:
        low, high = (pick(range(len(rows)), key=lambda i: _mean(rows[i])) for pick in (min, max))
        told = [f"from {told[low]} to {told[high]}"]
    schedules = {row.schedule for row in rows}
    named = f" ({schedules.pop()})" if len(schedules) == 1 else ""
    verb = "ends" if all(gap.ended for row in rows for gap in row.gaps) else "is so far"
    lower = sum(_mean(row) <= -LEVEL for row in rows)
    seeds = sorted({len(row.gaps) for row in rows})
    over = "one seed" if seeds == [1] else f"mean of {counts(seeds)} seeds"
    points = "points of the grid" if places else "variants"
    gaps = [gap.value for row in rows for gap in row.gaps]
    if seeds != [1]:
        below = sum(gap < 0 for gap in gaps)
        few = " Two seeds say little about the spread." if seeds[-1] == 2 else ""
        told_seeds = f"Paired by seed, it is lower in {below} of {len(gaps)} pairs of runs.{few}"
        more.insert(0, told_seeds)
    main = (
        f"Residual warmup{named} {verb} lower than without it at {lower or 'none'} of {len(rows)} "
        f"{points}: {', '.join(told)} nats per token, {over}."
    )
    return main, more


def _broken(row: Row, base: Row) -> str:
    """That a variant or its baseline diverged, so that there is no gap at the end; else ""."""
    who = [f"“{one.variant}”" for one in (row, base) if one.diverged]
    return f"{listing(who)} diverged." if who else ""


def plans(planned: int, baseline_planned: int) -> str:
    """How far a run and its baseline were meant to go, where that differs; else ""."""
    if planned == baseline_planned:
        return ""
    return (
        f"its run is planned for {count(planned)} updates, the baseline’s for "
        f"{count(baseline_planned)}, so their rates differ"
    )


def _lengths(rows: Sequence[Row]) -> list[str]:
    """What `plans` says of each row, where it says something."""
    found = [
        (row, said)
        for row in rows
        for said in dict.fromkeys(plans(gap.planned, gap.baseline_planned) for gap in row.gaps)
        if said
    ]
    return [f"“{row.variant}”: {said}." for row, said in found]


def _outcome(row: Row, base: Row) -> str:
    """“With residual warmup (linear) the evaluation loss ends 0.045 lower (…) after …”."""
    assert row.gap is not None
    steps = {gap.step for gap in row.gaps}
    planned = max(gap.planned for gap in row.gaps)
    whole = all(gap.ended for gap in row.gaps)
    at_end = min(steps) >= max(planned, *(gap.baseline_planned for gap in row.gaps))
    verb = ("ends" if at_end else "is") if whole else "is so far"
    after = f"after {counts(steps)}"
    if not whole and max(steps) < planned:
        after += f" of {count(planned)}"
    ours, theirs = (_perplexity(row.gaps, which) for which in ("loss", "baseline_loss"))
    seeds = "one seed" if row.gap.n == 1 else f"mean of {row.gap.n} seeds"
    return (
        f"With {_named(row, base)} the evaluation loss {verb} {_difference(row)} "
        f"(perplexity {ours} against {theirs}) {after} updates, {seeds}."
    )


def _signed(row: Row) -> str:
    return number(_mean(row), 3, sign=True)


def _difference(row: Row) -> str:
    """“0.045 lower”, of the evaluation loss."""
    assert row.gap is not None
    gap = row.gap.mean
    if abs(gap) < LEVEL:
        return "level with the baseline’s"
    return f"{abs(gap):.3f} {'lower' if gap < 0 else 'higher'}"


def _reached(row: Row) -> int:
    """The update up to which all of a variant's seeds have been compared with the baseline."""
    return min(gap.step for gap in row.gaps)


def _mean(row: Row) -> float:
    assert row.gap is not None
    return row.gap.mean


def _when(row: Row, first: Row) -> str:
    """When a variant was compared, if not when the first one was."""
    if _reached(row) == _reached(first):
        return ""
    return f" (after {counts({gap.step for gap in row.gaps})} updates)"


def _evidence(row: Row) -> list[str]:
    """How much the seeds say about the gap."""
    gap = row.gap
    assert gap is not None
    if gap.sd is None:
        return [
            "One seed is not evidence of a difference in general: with another seed it can turn "
            "out the other way."
        ]
    lower = sum(g.value < 0 for g in row.gaps)
    agree = max(lower, sum(g.value > 0 for g in row.gaps))
    seeds = (
        f"{'both' if gap.n == 2 else f'all {gap.n}'} seeds agree in sign"
        if agree == gap.n
        else f"{lower} of {gap.n} seeds have it lower, so they do not agree in sign"
    )
    paired = f"{number(gap.mean, 3, sign=True)} ± {number(gap.sd, 3)}"
    few = " Two seeds say little about the spread." if gap.n == 2 else ""
    return [
        f"Paired by seed, the gap is {paired} nats per token (mean ± standard deviation over "
        f"{gap.n} seeds); {seeds}.{few}"
    ]


def _named(row: Row, base: Row) -> str:
    """What a variant adds to the baseline, as far as its residual schedule tells."""
    if row.schedule and not base.schedule:
        return f"residual warmup ({row.variant})"
    return f"“{row.variant}”"


def _perplexity(gaps: Sequence[Gap], which: str) -> str:
    mean = math.fsum(getattr(gap, which) for gap in gaps) / len(gaps)
    return number(math.exp(mean) if mean < 700 else math.inf, 1 if mean > 2.3 else 2)


def _alone(row: Row) -> str:
    if row.eval_loss is None or not row.eval_steps:
        return f"“{row.variant}” has not been evaluated yet ({count(row.updates[0])} updates made)."
    seeds = "one seed" if row.eval_loss.n == 1 else f"mean of {row.eval_loss.n} seeds"
    verb = "ended at" if row.finished == len(row.seeds) else "has so far reached"
    return (
        f"“{row.variant}” {verb} an evaluation loss of {number(row.eval_loss.mean)} nats per token "
        f"(perplexity {number(row.perplexity, 1)}) after {counts(row.eval_steps)} updates, "
        f"{seeds}."
    )


def _unpaired(rows: Sequence[Row], base: Row) -> str:
    names = listing([f"“{row.variant}”" for row in rows])
    if any(row.apart for row in rows):
        return (
            f"There is no gap to state: {names} and the baseline “{base.variant}” were evaluated "
            "on different text, and their losses cannot be compared."
        )
    if any(set(row.seeds) & set(base.seeds) for row in rows):
        why = "were never evaluated after the same number of updates"
    else:
        why = "have no seed in common"
    return f"There is no gap to state yet: {names} and the baseline “{base.variant}” {why}."
