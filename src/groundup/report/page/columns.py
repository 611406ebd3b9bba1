"""What is known of each run, as columns: what differs between the recipes first, then the results.

The page's table of runs and the CSV are two ways to write these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.report import settings, words
from groundup.report.page import beside
from groundup.report.published import beside as published_for
from groundup.report.runs import Run, places
from groundup.report.settings import Setting
from groundup.report.status import status
from groundup.report.table import (
    Study,
    eval_gap,
    perplexity,
    spike_score,
    tokens_per_second,
    wall_seconds,
)

__all__ = ["Column", "columns"]


@dataclass(frozen=True)
class Column:
    """One thing about every run.

    Attributes:
        key: its name in a CSV, and `heading` that on the page.
        values: one per run of the study, in its order; None where a run has none.
        show: a value in words.
        choose: whether it sorts the runs into kinds, one of which a reader may want to see.
    """

    key: str
    heading: str
    values: tuple[Setting, ...]
    show: Callable[[Any], str] = str
    choose: bool = False


def columns(group: Study) -> list[Column]:
    """The columns that at least one run has a value for; those of settings only if they differ."""
    runs = group.runs
    found = [
        Column("variant", "variant", tuple(run.variant for run in runs), choose=True),
        *(
            Column(key, key, values, choose=True)
            for key, values in settings.differences(runs).items()
        ),
        Column("seed", "seed", tuple(run.seed for run in runs), choose=True),
        *_results(runs, group),
        Column("folder", "folder", tuple(path.as_posix() for path in places(runs))),
    ]
    return [column for column in found if any(value is not None for value in column.values)]


def _results(runs: Sequence[Run], group: Study) -> list[Column]:
    finals = [None if run.diverged else run.final_eval for run in runs]
    losses = [None if final is None else final[1] for final in finals]
    steps = tuple(None if final is None else final[0] for final in finals)
    known = [None if at is None else at.perplexity for at in map(published_for, runs)]
    return [
        Column("eval_loss", "evaluation loss", tuple(losses), _digits(4)),
        Column(
            "eval_perplexity",
            "perplexity",
            tuple(None if loss is None else perplexity(loss) for loss in losses),
            _digits(2),
        ),
        Column("gap", "gap to baseline", _gaps(group), lambda gap: words.number(gap, 4, sign=True)),
        Column("published_perplexity", "published perplexity", tuple(known), beside.shown),
        Column("status", "status", tuple(map(status, runs)), choose=True),
        Column("spikes_loss", "loss spikes", _spikes(runs, "loss"), _percent),
        Column("spikes_grad_norm", "gradient spikes", _spikes(runs, "grad_norm"), _percent),
        Column("events", "events", _events(runs), words.count),
        *_unless_last(steps, runs),
        Column("updates", "updates", tuple(run.updates for run in runs), _grouped),
        Column("tokens", "tokens", _stated(runs, "tokens"), _grouped),
        Column("parameters", "parameters", _stated(runs, "parameters"), _grouped),
        Column("tokens_per_second", "tokens/s", tuple(map(tokens_per_second, runs)), _digits(0)),
        Column("wall_seconds", "wall time", tuple(map(wall_seconds, runs)), words.seconds),
    ]


def _unless_last(steps: tuple[int | None, ...], runs: Sequence[Run]) -> list[Column]:
    """After which update the loss was measured, if it is not always the last one."""
    if all(step is None or step == run.updates for step, run in zip(steps, runs, strict=True)):
        return []
    return [Column("eval_step", "evaluated after", steps, _grouped)]


def _gaps(group: Study) -> tuple[float | None, ...]:
    """Evaluation loss minus that of the baseline's run of the same seed; None for a baseline."""
    gaps = {
        id(run): gap.value
        for variant in group.variants
        for run, base in group.pairs(variant)
        if not (run.diverged or base.diverged) and (gap := eval_gap(run, base))
    }
    return tuple(gaps.get(id(run)) for run in group.runs)


def _spikes(runs: Sequence[Run], name: str) -> tuple[float | None, ...]:
    scores = [spike_score([run], name) for run in runs]
    return tuple(None if score is None else score.percent for score in scores)


def _events(runs: Sequence[Run]) -> tuple[int | None, ...]:
    """How often the spike monitor of each run spoke; nothing if it never did in any."""
    counts = tuple(len(run.events) for run in runs)
    return counts if any(counts) else (None,) * len(runs)


def _stated(runs: Sequence[Run], name: str) -> tuple[int | None, ...]:
    values = (run.summary.get(name) for run in runs)
    return tuple(value if isinstance(value, int) else None for value in values)


def _digits(digits: int) -> Callable[[float], str]:
    return lambda value: words.number(value, digits)


def _grouped(value: int) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    return f"{value:.2f}%"
