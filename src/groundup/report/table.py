"""The numbers of a comparison: variants side by side, each paired with its baseline by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from groundup._check import unknown
from groundup.measure.spikes import run_spike_score
from groundup.report import heldout
from groundup.report.pivot import Pivot, crossed
from groundup.report.runs import Run
from groundup.report.settings import flat

__all__ = [
    "Comparison",
    "Gap",
    "Row",
    "Spikes",
    "Spread",
    "Study",
    "Variant",
    "comparison",
    "study",
]

# What a baseline is called where nobody says which variant it is.
USUAL_BASELINES = ("baseline", "none")

# In what a run and its counterpart may differ: what is asked about, names, and what only observes.
_FREE = ("residual", "name", "variant", "train.seed", "log", "measure", "spikes")


@dataclass(frozen=True)
class Variant:
    """The runs of one variant, which differ by their seed."""

    name: str
    runs: tuple[Run, ...]

    @property
    def schedule(self) -> str | None:
        """Its residual schedule by name; None where there is none or it is unknown."""
        name = self.runs[0].setting("residual", "schedule")
        return name if isinstance(name, str) and name != "none" else None


@dataclass(frozen=True)
class Study:
    """Runs grouped by variant, in the order in which they came, but a baseline of all first.

    Attributes:
        variants: all of them.
        baseline: the one that all others are compared with; None: there is none, or each has its
            own.
        counterparts: name of a variant → the one without residual warmup whose recipe is the same
            otherwise, where each is compared with its own.
        pivot: the grid that the variants make; None: they make none.
    """

    variants: tuple[Variant, ...]
    baseline: Variant | None
    counterparts: Mapping[str, Variant] = field(default_factory=dict)
    pivot: Pivot | None = None

    @property
    def others(self) -> tuple[Variant, ...]:
        """Every variant but the baseline of all."""
        return tuple(v for v in self.variants if v is not self.baseline)

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, in the order of the variants."""
        return tuple(run for variant in self.variants for run in variant.runs)

    def counterpart(self, variant: Variant) -> Variant | None:
        """The baseline of a variant; None for a baseline, and where there is none."""
        if self.baseline is None:
            return self.counterparts.get(variant.name)
        return None if variant.name == self.baseline.name else self.baseline

    def pairs(self, variant: Variant) -> list[tuple[Run, Run]]:
        """(run, baseline's run) of every seed that a variant and its baseline have, where both
        were evaluated on the same text."""
        return pairs(variant, self.counterpart(variant))


@dataclass(frozen=True)
class Spread:
    """Mean of one number over seeds, with the sample standard deviation (None for one seed)."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Gap:
    """Evaluation loss of a run and of the baseline's of the same seed, after `step` updates;
    `planned` and `baseline_planned` say how many they are to make, `ended` whether both did."""

    seed: int | None
    step: int
    loss: float
    baseline_loss: float
    planned: int
    baseline_planned: int
    ended: bool

    @property
    def value(self) -> float:
        """Below zero: better than the baseline."""
        return self.loss - self.baseline_loss


@dataclass(frozen=True)
class Spikes:
    """Spike score over seeds: the mean percentage, points scored in all, windows used."""

    percent: float
    scored: int
    windows: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """One variant. A number that no run of it has is None.

    Attributes:
        variant: its name; `schedule` its residual schedule, None if it has none.
        baseline: the variant that it is compared with, None if there is none; `apart`: they were
            evaluated on different text, so that there is no gap.
        seeds: the seeds of its runs, and how many of these `finished`, or `diverged`.
        updates: completed updates of each run.
        eval_loss: last evaluation loss of each run, in nats per token, over seeds.
        eval_steps: the updates after which those were measured, each once, rising.
        perplexity: exp of the mean evaluation loss.
        gaps: one per seed that the baseline has too, at the last update at which both runs were
            evaluated; `gap` is the mean of their values.
        spikes_loss, spikes_grad_norm: spike scores.
        wall_seconds, tokens_per_second: over seeds.
    """

    variant: str
    schedule: str | None
    baseline: str | None
    apart: bool
    seeds: tuple[int | None, ...]
    finished: int
    diverged: int
    updates: tuple[int, ...]
    eval_loss: Spread | None
    eval_steps: tuple[int, ...]
    perplexity: float | None
    gaps: tuple[Gap, ...]
    gap: Spread | None
    spikes_loss: Spikes | None
    spikes_grad_norm: Spikes | None
    wall_seconds: Spread | None
    tokens_per_second: Spread | None


@dataclass(frozen=True)
class Comparison:
    """The table: one row per variant, and the name of the baseline of all (None: there is none, or
    each row has its own)."""

    baseline: str | None
    rows: tuple[Row, ...]

    @property
    def baselines(self) -> frozenset[str]:
        """The variants that others are compared with."""
        return frozenset(row.baseline for row in self.rows if row.baseline is not None)

    def row(self, variant: str) -> Row:
        """The row of a variant."""
        names = [row.variant for row in self.rows]
        if variant not in names:
            raise unknown("variant", variant, names)
        return self.rows[names.index(variant)]


def study(runs: Sequence[Run], baseline: str | None = None) -> Study:
    """Groups runs by variant, and says what each variant is compared with.

    All are compared with `baseline`, or else with the variant called "baseline" or "none", or else
    with the first one without residual warmup, or else the first of several; a single variant has
    none. But where variants make a grid, or several of them are the counterparts of others, each
    has its own: the variant without residual warmup whose recipe is the same in all but the
    residual schedule, names, the seed and what only observes. In a grid any other one would be
    arbitrary, unless it is called a baseline.

    Raises:
        ValueError: if there is no run, or no variant called `baseline`.
    """
    if not runs:
        raise ValueError("there are no runs to compare")
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.variant, []).append(run)
    variants = [Variant(name, tuple(sorted(group, key=_by_seed))) for name, group in groups.items()]
    pivot = crossed([variant.runs for variant in variants])
    if baseline is None:
        own = _counterparts(variants)
        several = len({variant.name for variant in own.values()}) > 1
        usual = any(variant.name in USUAL_BASELINES for variant in variants)
        if (several or not usual) if pivot else (several and not usual):
            return Study(tuple(variants), None, own, pivot)
    chosen = _choose(variants, baseline)
    variants.sort(key=lambda variant: variant is not chosen)
    return Study(tuple(variants), chosen, pivot=pivot)


def comparison(runs: Sequence[Run], baseline: str | None = None) -> Comparison:
    """The numbers that compare `runs` with the variant called `baseline`.

    Raises:
        ValueError: if there is no run, or no variant of that name.
    """
    return compare(study(runs, baseline))


def compare(group: Study) -> Comparison:
    """The same for runs that are grouped already."""
    rows = tuple(_row(variant, group) for variant in group.variants)
    return Comparison(group.baseline.name if group.baseline else None, rows)


def pairs(variant: Variant, baseline: Variant | None) -> list[tuple[Run, Run]]:
    """(run, baseline's run) of every seed that both have, where both were evaluated on the same
    text."""
    if baseline is None or variant is baseline:
        return []
    other = {run.seed: run for run in baseline.runs}
    both = [(run, other[run.seed]) for run in variant.runs if run.seed in other]
    return [pair for pair in both if heldout.alike(pair)]


def eval_gap(run: Run, base: Run) -> Gap | None:
    """The gap at the last update at which both runs were evaluated."""
    ours, theirs = evaluations(run), evaluations(base)
    common = ours.keys() & theirs.keys()
    if not common:
        return None
    step = max(common)
    ended = run.finished and base.finished
    return Gap(run.seed, step, ours[step], theirs[step], run.planned, base.planned, ended)


def evaluations(run: Run) -> dict[int, float]:
    """Evaluation loss by completed updates; the summary's counts for the end of the run."""
    final = run.final_eval
    return dict(run.evals) | (dict([final]) if final else {})


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and sample standard deviation of the finite numbers among `values`."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return None
    mean = math.fsum(known) / len(known)
    if len(known) == 1:
        return Spread(mean, None, 1)
    square = math.fsum((v - mean) ** 2 for v in known) / (len(known) - 1)
    return Spread(mean, math.sqrt(square), len(known))


def _row(variant: Variant, group: Study) -> Row:
    runs = variant.runs
    base = group.counterpart(variant)
    finals = [final for final in (run.final_eval for run in runs) if final]
    gaps = tuple(g for g in (eval_gap(*pair) for pair in group.pairs(variant)) if g)
    loss = spread(value for _, value in finals)
    return Row(
        variant=variant.name,
        schedule=variant.schedule,
        baseline=base.name if base else None,
        apart=base is not None and not heldout.alike([runs[0], base.runs[0]]),
        seeds=tuple(run.seed for run in runs),
        finished=sum(run.finished for run in runs),
        diverged=sum(run.diverged for run in runs),
        updates=tuple(run.updates for run in runs),
        eval_loss=loss,
        eval_steps=tuple(sorted({step for step, _ in finals})),
        perplexity=perplexity(loss.mean) if loss else None,
        gaps=gaps,
        gap=spread(gap.value for gap in gaps),
        spikes_loss=spike_score(runs, "loss"),
        spikes_grad_norm=spike_score(runs, "grad_norm"),
        wall_seconds=spread(wall_seconds(run) for run in runs),
        tokens_per_second=spread(tokens_per_second(run) for run in runs),
    )


def spike_score(runs: Sequence[Run], name: str) -> Spikes | None:
    """The spike score of "loss" or "grad_norm" over runs; None if none of them has one."""
    found = [score for score in (_score(run, name) for run in runs) if score]
    if not found:
        return None
    return Spikes(
        percent=math.fsum(percent for percent, _, _ in found) / len(found),
        scored=sum(scored for _, scored, _ in found),
        windows=tuple(sorted({window for _, _, window in found})),
    )


def _score(run: Run, name: str) -> tuple[float, int, int] | None:
    """(percent, points scored, window): as the summary says, else measured on what there is."""
    stored = run.summary.get("spike_score")
    stored = stored.get(name) if isinstance(stored, dict) else None
    if isinstance(stored, dict) and {"percent", "scored", "window"} <= stored.keys():
        percent, scored, window = stored["percent"], stored["scored"], stored["window"]
    else:
        values = run.series[name]
        if np.isnan(values).all():
            return None
        score = run_spike_score(values)
        percent, scored, window = score.percent, score.scored, score.window
    return None if percent is None else (float(percent), int(scored), int(window))


def wall_seconds(run: Run) -> float | None:
    """Wall time of a run: as its summary says, else the sum over its updates."""
    stated = run.summary.get("wall_seconds")
    if isinstance(stated, int | float):
        return float(stated)
    return float(np.nansum(run.seconds)) if len(run.seconds) else None


def tokens_per_second(run: Run) -> float | None:
    """Speed of a run: as its summary says, else the median over its updates."""
    stated = run.summary.get("tokens_per_second")
    if isinstance(stated, int | float):
        return float(stated)
    return float(np.nanmedian(run.throughput)) if np.isfinite(run.throughput).any() else None


def _choose(variants: Sequence[Variant], name: str | None) -> Variant | None:
    names = [variant.name for variant in variants]
    if name is not None:
        if name not in names:
            raise unknown("baseline", name, names)
        return variants[names.index(name)]
    if len(variants) == 1:
        return None
    for usual in USUAL_BASELINES:
        if usual in names:
            return variants[names.index(usual)]
    return next((v for v in variants if v.schedule is None), variants[0])


def _counterparts(variants: Sequence[Variant]) -> dict[str, Variant]:
    """For each variant with residual warmup the one without that is the same otherwise."""
    plain: dict[str, Variant] = {}
    for variant in variants:
        if variant.schedule is None and (key := _apart_from_warmup(variant)):
            plain.setdefault(key, variant)
    warmed = (variant for variant in variants if variant.schedule is not None)
    return {v.name: plain[key] for v in warmed if (key := _apart_from_warmup(v)) in plain}


def _apart_from_warmup(variant: Variant) -> str:
    """A variant's settings that its counterpart shares; "" if no recipe says them."""
    settings = sorted(
        (key, repr(value))
        for key, value in flat(variant.runs[0].recipe)
        if not any(key == free or key.startswith(f"{free}.") for free in _FREE)
    )
    return repr(settings) if settings else ""


def _by_seed(run: Run) -> tuple[bool, int]:
    return (run.seed is None, run.seed or 0)


def perplexity(loss: float) -> float:
    """e^loss, infinite where that is no float64 any more."""
    return math.exp(loss) if loss < 700 else math.inf
