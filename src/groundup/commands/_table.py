"""The table that a comparison ends with: what was measured, and in words what it says."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from groundup.report import Comparison, Row, Spikes
from groundup.report.words import cell, duration, number, spikes


def as_table(comparison: Comparison) -> Table:
    """One row per variant, the baseline first."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("variant")
    for heading in (
        "held-out loss",
        "perplexity",
        "gap to baseline",
        "spike score: loss",
        "gradient norm",
        "wall time",
        "tokens/s",
    ):
        table.add_column(heading, justify="right")
    for row in comparison.rows:
        table.add_row(*_cells(row, row.variant == comparison.baseline))
    return table


def _cells(row: Row, is_baseline: bool) -> Iterator[str]:
    yield row.variant + (f" ({len(row.seeds)} seeds)" if len(row.seeds) > 1 else "")
    yield cell(row.eval_loss, 4)
    yield number(row.perplexity, 2)
    yield "" if is_baseline else cell(row.gap, 4, sign=True)
    yield _with_window(row.spikes_loss)
    yield _with_window(row.spikes_grad_norm)
    yield duration(row.wall_seconds)
    yield number(row.tokens_per_second.mean if row.tokens_per_second else None, 0)


def _with_window(score: Spikes | None) -> str:
    if score is None:
        return "–"
    return f"{spikes(score)} (window {', '.join(map(str, score.windows))})"
