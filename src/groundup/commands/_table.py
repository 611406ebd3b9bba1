"""The table that a comparison ends with: what was measured, and in words what it says."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from groundup.report import Comparison, Row, Spikes
from groundup.report.words import cell, duration, number, spikes


def print_table(console: Console, comparison: Comparison) -> None:
    """One row per variant, the baseline first; below it how the spike scores were measured."""
    # A table that is cut or folded cannot be read: rather let the terminal wrap it.
    wide = Console(file=console.file, width=max(console.width, 160), highlight=False)
    wide.print(_table(comparison))
    windows = {w for row in comparison.rows for s in _scores(row) if s for w in s.windows}
    if windows:
        wide.print(
            "\nspikes: points at least 7 standard deviations from the mean of the "
            f"{' or '.join(map(str, sorted(windows)))} before, in 10–90% of the run"
        )


def _table(comparison: Comparison) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("variant", no_wrap=True)
    for heading in (
        "held-out loss",
        "perplexity",
        "gap",
        "spikes: loss",
        "gradient",
        "time",
        "tokens/s",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*_cells(row, row.variant == comparison.baseline))
    return table


def _cells(row: Row, is_baseline: bool) -> Iterator[str]:
    yield row.variant + (f" ({len(row.seeds)} seeds)" if len(row.seeds) > 1 else "")
    yield cell(row.eval_loss, 4)
    yield number(row.perplexity, 2)
    yield "" if is_baseline else cell(row.gap, 4, sign=True)
    for score in _scores(row):
        yield spikes(score)
    yield duration(row.wall_seconds)
    yield number(row.tokens_per_second.mean if row.tokens_per_second else None, 0)


def _scores(row: Row) -> tuple[Spikes | None, Spikes | None]:
    return row.spikes_loss, row.spikes_grad_norm
