"""A sweep's grid on the page, and in a sentence."""

from __future__ import annotations

from groundup.report import words
from groundup.report.page.markup import escape
from groundup.report.pivot import Cell, Pivot, least
from groundup.report.settings import Setting
from groundup.report.table import Comparison, perplexity

__all__ = ["as_html", "headline"]


def as_html(pivot: Pivot) -> str:
    """Evaluation loss with the last axis as columns; the least of each row and of all marked."""
    *others, last = pivot.axes
    best = least(pivot.cells) if pivot.comparable else None
    heads = [*(["variant"] if _has_variants(pivot) else []), *others]
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    values = "".join(f'<th scope="col">{escape(_shown(value))}</th>' for value in pivot.columns)
    blank = f'<td colspan="{len(heads)}"></td>' if heads else ""
    rows = "\n".join(
        f"<tr>{_row_heads(row, pivot)}"
        + "".join(_cell(cell, best if best is None else least(cells), best) for cell in cells)
        + "</tr>"
        for row, cells in pivot.rows.items()
    )
    return (
        '<div class="scroll" tabindex="0"><table class="pivot"><thead>'
        f'<tr>{blank}<th scope="colgroup" colspan="{len(pivot.columns)}">{escape(last)}</th></tr>\n'
        f"<tr>{names}{values}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n"
        f'<p class="muted">{escape(_legend(pivot))}</p>'
    )


def headline(pivot: Pivot, result: Comparison) -> words.Headline:
    """At how many points residual warmup helped, where that can be said; which point is best, and
    what that is worth."""
    main, details = _best(pivot)
    gaps = words.paired(result, _places(pivot, result))
    if gaps is None:
        return main, details
    return gaps[0], [*gaps[1], main, *details]


def _places(pivot: Pivot, result: Comparison) -> dict[str, str]:
    """Where variants that have a gap stand: all settings by name for the first, then values."""
    rows = [row for row in result.rows if row.gap]
    several = len({row.schedule for row in rows}) > 1
    found: dict[str, str] = {}
    for row in rows:
        variant, *values = pivot.places[row.variant]
        told = [variant or row.schedule] if several or _several_variants(pivot, result) else []
        for key, value in zip(pivot.axes, values, strict=True):
            if not key.startswith("residual."):
                told.append(_shown(value) if found else f"{key} {_shown(value)}")
        found[row.variant] = ", ".join(map(str, told))
    return found


def _several_variants(pivot: Pivot, result: Comparison) -> bool:
    return len({pivot.places[row.variant][0] for row in result.rows if row.gap}) > 1


def _best(pivot: Pivot) -> words.Headline:
    cells = pivot.cells
    best = least(cells)
    if best is None:
        return f"None of the {len(cells)} points of this sweep has an evaluation loss yet.", []
    if not pivot.comparable:
        text = "The points of this sweep were evaluated on different text: none of them is best."
        return text, []
    where = next(
        _named(pivot, row, value)
        for row, row_cells in pivot.rows.items()
        for value, cell in zip(pivot.columns, row_cells, strict=True)
        if cell is not None and cell.loss == best
    )
    known = sorted(cell.loss for cell in cells if cell.loss is not None)
    seeds = max(cell.seeds for cell in cells)
    over = "one seed" if seeds == 1 else f"mean of {seeds} seeds"
    details = []
    if len(known) > 1:
        details.append(
            f"The next best is {words.number(known[1] - best)} nats per token behind, the worst "
            f"{words.number(known[-1] - best)}; being picked afterwards flatters the best."
        )
    if seeds == 1:
        details.append("One seed says nothing about the spread: differences can be chance.")
    missing = [f"{n} {state}" for state, n in _states(pivot).items()]
    if missing:
        details.append(f"Of {sum(cell.seeds for cell in cells)} runs {words.listing(missing)}.")
    return (
        f"Of {len(cells)} points the one with {where} has the least evaluation loss, "
        f"{words.number(best)} (perplexity {words.number(perplexity(best), 1)}), {over}."
    ), details


def _states(pivot: Pivot) -> dict[str, int]:
    found: dict[str, int] = {}
    for cell in pivot.cells:
        for state, n in cell.states.items():
            found[state] = found.get(state, 0) + n
    return found


def _named(pivot: Pivot, row: tuple[Setting, ...], value: Setting) -> str:
    variant, *before = row
    pairs = zip(pivot.axes, [*before, value], strict=True)
    parts = [f"{key} {_shown(setting)}" for key, setting in pairs]
    return ", ".join([f"“{variant}”", *parts] if variant else parts)


def _has_variants(pivot: Pivot) -> bool:
    return any(row[0] for row in pivot.rows)


def _row_heads(row: tuple[Setting, ...], pivot: Pivot) -> str:
    values = row if _has_variants(pivot) else row[1:]
    return "".join(f'<th scope="row">{escape(_shown(value))}</th>' for value in values)


def _cell(cell: Cell | None, row_best: float | None, best: float | None) -> str:
    if cell is None:
        return "<td>–</td>"
    said = ", ".join(
        state if n == cell.seeds else f"{n} of {cell.seeds} {state}"
        for state, n in cell.states.items()
    )
    if cell.loss is None:
        return f'<td class="state">{escape(said or "not evaluated")}</td>'
    text = words.number(cell.loss, 4)
    if cell.loss == row_best:
        text = f"<b>{text}</b>"
    is_best = cell.loss == best
    note = " · ".join(filter(None, ["best of all" if is_best else "", escape(said)]))
    small = f"<small>{note}</small>" if note else ""
    mark = ' class="best"' if is_best else ""
    return f"<td{mark}>{text}{small}</td>"


def _legend(pivot: Pivot) -> str:
    seeds = sorted({cell.seeds for cell in pivot.cells})
    means = f", means over {words.counts(seeds)} seeds" if seeds[-1] > 1 else ""
    partly = " A point of which a run diverged has no mean." if seeds[-1] > 1 else ""
    bold = "; the least of each row is bold" if pivot.comparable else ""
    return f"Evaluation loss in nats per token on held-out text{means}{bold}.{partly}"


def _shown(value: Setting) -> str:
    return "–" if value is None else str(value)
