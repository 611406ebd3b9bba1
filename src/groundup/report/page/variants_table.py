"""The comparison by variant: means over seeds, with their spread."""

from __future__ import annotations

from groundup.report import words
from groundup.report.page.markup import escape, grid
from groundup.report.table import Comparison, Row, Spikes, Study

__all__ = ["as_html"]


def as_html(group: Study, result: Comparison) -> str:
    """One row per variant, the baseline first, and below what the columns mean."""
    head = ("variant", "evaluation loss")
    gap = ("gap to baseline",) if result.baselines else ()
    tail = ("perplexity", "seeds", "loss spikes", "gradient spikes", "wall time", "tokens/s")
    windows = {row.spikes_loss.windows for row in result.rows if row.spikes_loss}
    ends = {row.eval_steps for row in result.rows if row.eval_steps}
    rows = [
        _row(row, result.baselines, show_window=len(windows) > 1, show_end=len(ends) > 1)
        for row in result.rows
    ]
    return grid([*head, *gap, *tail], rows)


def legend(group: Study, result: Comparison) -> str:
    """What the columns of results mean, in a comparison and in the table of runs."""
    windows = {row.spikes_loss.windows for row in result.rows if row.spikes_loss}
    summed = any("wall_seconds" not in run.summary for run in group.runs)
    time = " Wall time, where no summary states it, is the sum over updates." if summed else ""
    window = (
        f"the {words.counts(next(iter(windows)))} before"
        if len(windows) == 1
        else "the window before"
    )
    own = (
        "Each variant’s baseline is the one without residual warmup that has the same settings "
        "otherwise. "
        if result.baselines and result.baseline is None
        else ""
    )
    gap = (
        "The gap is evaluation loss minus the baseline’s of the same seed, at the last update at "
        "which both were evaluated; below zero is better. "
        if result.baselines
        else ""
    )
    seeds = any(len(variant.runs) > 1 for variant in group.variants)
    spread = "; ± is the standard deviation over seeds" if seeds else ""
    mean = "; perplexity is that of the mean loss" if seeds else ""
    return (
        f"Losses in nats per token on held-out text{spread}{mean}. {gap}{own}"
        "Spikes: the share of updates between 10% and 90% of the run that lie at least 7 standard "
        f"deviations from the mean of {window}.{time}"
    )


def _row(row: Row, baselines: frozenset[str], show_window: bool, show_end: bool) -> list[str]:
    loss = escape(words.cell(row.eval_loss))
    if show_end and row.eval_steps:
        loss += f"<small>after {words.counts(row.eval_steps)} updates</small>"
    name = escape(row.variant)
    if row.diverged:
        name += f"<small>{row.diverged} of {len(row.seeds)} diverged</small>"
    cells = [name, loss]
    if baselines:
        cells.append(
            "baseline" if row.variant in baselines else escape(words.cell(row.gap, sign=True))
        )
    rate = row.tokens_per_second
    cells += [
        words.number(row.perplexity, 2),
        str(len(row.seeds)),
        _spikes(row.spikes_loss, show_window),
        _spikes(row.spikes_grad_norm, show_window),
        words.duration(row.wall_seconds),
        words.number(rate.mean if rate else None, 0),
    ]
    return cells


def _spikes(score: Spikes | None, show_window: bool) -> str:
    """A spike score, with its window where that is not the same for all rows."""
    text = words.spikes(score)
    if score is None or not show_window:
        return text
    return f"{text}<small>window {words.counts(score.windows)}</small>"
