"""The report: one HTML file with everything in it, that asks the network for nothing."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup.report import settings, svg, words
from groundup.report.figures import FIGURES, NothingToShow
from groundup.report.runs import Run, places, read_runs
from groundup.report.table import Comparison, Row, Spikes, Study, compare, study

__all__ = ["render", "write_report"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_TALL = 370  # points; such a figure stands beside two others


def write_report(
    folders: Sequence[Path], out: Path, *, title: str | None = None, baseline: str | None = None
) -> Path:
    """Writes the report on the runs in `folders` to the file `out` and returns its path.

    The file appears complete or not at all. The same runs give the same bytes.

    Args:
        folders: run folders, in the order in which they should appear.
        out: the file to write; in a folder that exists, report.html.
        title: what to call it; otherwise the recipe's name.
        baseline: the variant to compare with; see `table.study` for the choice without it.

    Raises:
        ValueError: if a folder is not a run's, or no variant has the baseline's name.
    """
    page = render(read_runs(folders), title=title, baseline=baseline)
    out = Path(out)
    if out.is_dir():
        out = out / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, page.encode("utf-8", errors="replace"))
    return out


def render(runs: Sequence[Run], *, title: str | None = None, baseline: str | None = None) -> str:
    """The page's HTML."""
    group = study(runs, baseline)
    result = compare(group)
    title = title or _title(group)
    css = resources.files("groundup.report").joinpath("page.css").read_text(encoding="utf-8")
    body = [
        f"<h1>{_h(title)}</h1>",
        _headline(group, result),
        _notes(group),
        f"<h2>{'Comparison' if len(group.variants) > 1 else 'Numbers'}</h2>",
        _table(group, result),
        "<h2>Figures</h2>",
        _figures(group),
        "<h2>Settings</h2>",
        _settings(group),
        "<h2>Runs</h2>",
        _runs(group),
        _origin(group),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_h(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _title(group: Study) -> str:
    names = {str(run.setting("name") or "") for run in group.runs} - {""}
    what = "comparison" if len(group.variants) > 1 else "run"
    return f"{names.pop()}: {what}" if len(names) == 1 else f"groundup: {what}"


def _headline(group: Study, result: Comparison) -> str:
    main, details = words.headline(result, max(run.planned for run in group.runs))
    items = "".join(f"<li>{_h(line)}</li>" for line in details)
    return f'<p class="headline">{_h(main)}</p>\n' + (
        f'<ul class="details">{items}</ul>' if items else ""
    )


def _notes(group: Study) -> str:
    items = [
        f"<li><b>{_h(_run_name(run))}</b>: {_h(' '.join(run.notes))}</li>"
        for run in group.runs
        if run.notes
    ]
    return f'<div class="notes" role="note"><ul>{"".join(items)}</ul></div>' if items else ""


def _run_name(run: Run) -> str:
    return run.variant if run.seed is None else f"{run.variant}, seed {run.seed}"


def _table(group: Study, result: Comparison) -> str:
    head = ("variant", "evaluation loss")
    gap = ("gap to baseline",) if result.baseline is not None else ()
    tail = ("perplexity", "seeds", "loss spikes", "gradient spikes", "wall time", "tokens/s")
    used = [row.spikes_loss for row in result.rows if row.spikes_loss]
    windows = {score.windows for score in used}
    ends = {row.eval_steps for row in result.rows if row.eval_steps}
    rows = [
        _row(row, result.baseline, show_window=len(windows) > 1, show_end=len(ends) > 1)
        for row in result.rows
    ]
    parts = [_grid([*head, *gap, *tail], rows)]
    summed = any("wall_seconds" not in run.summary for run in group.runs)
    parts.append(f'<p class="muted">{_h(_legend(result, windows, summed))}</p>')
    return "\n".join(parts)


def _legend(result: Comparison, windows: set[tuple[int, ...]], summed: bool) -> str:
    """What the columns mean."""
    time = " Wall time, where no summary states it, is the sum over updates." if summed else ""
    window = (
        f"the {words.counts(next(iter(windows)))} before"
        if len(windows) == 1
        else "the window before"
    )
    gap = (
        "The gap is evaluation loss minus the baseline’s of the same seed, at the last update at "
        "which both were evaluated; below zero is better. "
        if result.baseline is not None
        else ""
    )
    return (
        "Losses in nats per token on held-out text; ± is the standard deviation over seeds; "
        f"perplexity is that of the mean loss. {gap}"
        "Spikes: the share of updates between 10% and 90% of the run that lie at least 7 standard "
        f"deviations from the mean of {window}.{time}"
    )


def _row(row: Row, baseline: str | None, show_window: bool, show_end: bool) -> list[str]:
    loss = _h(words.cell(row.eval_loss))
    if show_end and row.eval_steps:
        loss += f"<small>after {words.counts(row.eval_steps)} updates</small>"
    cells = [_h(row.variant), loss]
    if baseline is not None:
        is_base = row.variant == baseline
        cells.append("baseline" if is_base else _h(words.cell(row.gap, sign=True)))
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


def _figures(group: Study) -> str:
    parts, missing = [], []
    for name, spec in FIGURES.items():
        try:
            drawn = svg.inline(spec.draw(group), name, spec.title)
        except NothingToShow as reason:
            missing.append(f"{spec.title}: {reason}.")
            continue
        caption = _h(spec.caption(group))
        tall = " tall" if svg.height(drawn) > _TALL else ""
        parts.append(
            f'<figure class="{name}{tall}"><h3>{_h(spec.title)}</h3>\n{drawn}\n'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    note = f'<p class="muted">Not shown — {_h(" ".join(missing))}</p>' if missing else ""
    return '<div class="figures">\n' + "\n".join(parts) + f"\n</div>{note}"


def _settings(group: Study) -> str:
    differing = settings.differences(group)
    parts = []
    if differing:
        parts.append("<p>What differs between the variants:</p>")
        rows = [[_h(key), *(_h(value) for value in values)] for key, values in differing]
        parts.append(_grid(["setting", *(v.name for v in group.variants)], rows, "settings"))
    elif len(group.variants) > 1:
        parts.append("<p>The recipes of the variants do not differ.</p>")
    for variant in group.variants:
        run = variant.runs[0]
        if run.recipe_text:
            parts.append(
                f"<details><summary>Whole recipe of {_h(_run_name(run))}</summary>"
                f"<pre>{_h(run.recipe_text.strip())}</pre></details>"
            )
    return "\n".join(parts)


def _runs(group: Study) -> str:
    head = ["folder", "variant", "seed", "status", "updates", "tokens", "parameters"]
    rows = []
    for run, place in zip(group.runs, places(group.runs), strict=True):
        status = run.summary.get("status", "no summary")
        rows.append(
            [
                _h(place.as_posix()),
                _h(run.variant),
                "–" if run.seed is None else str(run.seed),
                _h(str(status)),
                f"{run.updates:,}",
                _count(run.summary.get("tokens")),
                _count(run.summary.get("parameters")),
            ]
        )
    return _grid(head, rows, "runs")


def _origin(group: Study) -> str:
    """Hardware, versions and commands, each thing once."""
    hardware = _once(
        " · ".join(str(run.summary[key]) for key in ("device", "hardware") if run.summary.get(key))
        for run in group.runs
    )
    versions = _once(settings.versions(run) for run in group.runs)
    commands = _once(str(run.summary.get("command") or "") for run in group.runs)
    parts = []
    if hardware or versions:
        entries = [("Hardware", hardware), ("Versions", versions)]
        parts.append("<h2>Hardware and versions</h2>\n<dl>")
        parts += [f"<dt>{k}</dt><dd>{_h('; '.join(v))}</dd>" for k, v in entries if v]
        parts.append("</dl>")
    if commands:
        parts.append(f'<h2>Commands</h2>\n<pre class="wrap">{_h(chr(10).join(commands))}</pre>')
    return "\n".join(parts)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]], name: str = "numbers") -> str:
    """A table; `head` is plain text, cells are HTML already."""
    top = "".join(f'<th scope="col">{_h(cell)}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="{name}"><thead><tr>{top}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"


def _h(text: str) -> str:
    """Escaped for HTML, control characters made visible."""
    return html.escape(
        "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text), quote=True
    )
