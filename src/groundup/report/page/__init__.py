"""The report: one HTML file with everything in it, that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from groundup._atomic import atomic_write
from groundup.report import health, heldout, settings, words
from groundup.report.page import (
    beside,
    evaluations,
    events,
    gallery,
    parts_table,
    pivot_table,
    runs_table,
    variants_table,
)
from groundup.report.page.markup import bullets, details, escape
from groundup.report.runs import Run, read_runs
from groundup.report.table import Comparison, Study, compare, study

__all__ = ["render", "write_csv", "write_report"]

_SCRIPTS = ("tables.js", "pointer.js")
_NOTES = 3  # notes on more runs than these are folded away


def write_report(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    title: str | None = None,
    baseline: str | None = None,
) -> Path:
    """Writes the report on the runs in `folders` to the file `out` and returns its path.

    The file appears complete or not at all. The same runs give the same bytes.

    Args:
        folders: run folders, in the order in which they should appear.
        out: the file to write; in a folder that exists, report.html.
        title: what to call it; otherwise the recipe's name.
        baseline: the variant to compare all with; see `table.study` for the choice without it.

    Raises:
        ValueError: if a folder is not a run's, or no variant has the baseline's name.
    """
    page = render(read_runs(folders), title=title, baseline=baseline)
    return _write(page, Path(out), "report.html")


def write_csv(
    folders: Sequence[Path | str], out: Path | str, *, baseline: str | None = None
) -> Path:
    """Writes one row a run to the file `out` (in a folder that exists, report.csv) and returns its
    path: folder, variant, the settings in which the recipes differ, seed, results.

    Raises:
        ValueError: as `write_report`.
    """
    group = study(read_runs(folders), baseline)
    return _write(runs_table.as_csv(group), Path(out), "report.csv")


def render(runs: Sequence[Run], *, title: str | None = None, baseline: str | None = None) -> str:
    """The page's HTML."""
    group = study(runs, baseline)
    result = compare(group)
    title = title or _title(group)
    body = [
        f"<h1>{escape(title)}</h1>",
        _headline(group, result),
        _notes(group),
        _health(group),
        _results(group, result),
        beside.as_html(group, result),
        _runs(group),
        f'<p class="muted">{escape(variants_table.legend(group, result))}</p>',
        evaluations.as_html(group),
        events.as_html(group),
        parts_table.as_html(group),
        "<h2>Figures</h2>",
        gallery.as_html(group),
        _recipes(group),
        _origin(group),
    ]
    return _document(title, "\n".join(part for part in body if part))


def _document(title: str, body: str) -> str:
    css = _asset("page.css")
    script = "\n" + "".join(_asset(name) for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n"
        f"{body}\n<script>{script}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("groundup.report.page").joinpath(name).read_text(encoding="utf-8")


def _write(text: str, out: Path, name: str) -> Path:
    if out.is_dir():
        out = out / name
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, text.encode("utf-8", errors="replace"))
    return out


def _title(group: Study) -> str:
    names = {str(run.setting("name") or "") for run in group.runs} - {""}
    what = "sweep" if group.pivot else "comparison" if len(group.variants) > 1 else "run"
    return f"{names.pop()}: {what}" if len(names) == 1 else f"groundup: {what}"


def _headline(group: Study, result: Comparison) -> str:
    if group.pivot is not None and group.baseline is None:
        main, more = pivot_table.headline(group.pivot, result)
    else:
        main, more = words.headline(result)
    return f'<p class="headline">{escape(main)}</p>\n{bullets(more, "details")}'


def _notes(group: Study) -> str:
    apart = heldout.note(group.runs)
    noted = [run for run in group.runs if run.notes]
    above = f"<p>{escape(apart)}</p>" if apart else ""
    if not noted and not above:
        return ""
    items = (
        f"<li><b>{escape(words.run_name(run))}</b>: {escape(' '.join(run.notes))}</li>"
        for run in noted
    )
    text = f"<ul>{''.join(items)}</ul>" if noted else ""
    if len(noted) > _NOTES:
        text = details(f"Notes on {len(noted)} of {len(group.runs)} runs", text)
    return f'<div class="notes" role="note">{above}{text}</div>'


def _health(group: Study) -> str:
    """What the measurements say, in sentences under headings."""
    parts = [
        f"<h3>{escape(heading)}</h3>\n{bullets(sentences, 'plain')}"
        for heading, sentences in health.summary(group)
    ]
    blocks = "\n".join(f"<section>{part}</section>" for part in parts)
    return f'<h2>Health</h2>\n<div class="health">{blocks}</div>' if parts else ""


def _results(group: Study, result: Comparison) -> str:
    """The runs by point of the grid, and by variant where means over seeds add something."""
    parts = []
    if group.pivot is not None:
        parts.append(f"<h2>Sweep</h2>\n{pivot_table.as_html(group.pivot)}")
    if any(len(variant.runs) > 1 for variant in group.variants):
        table = variants_table.as_html(group, result)
        if group.pivot is None:
            parts.append(f"<h2>{'Comparison' if len(group.variants) > 1 else 'Mean'}</h2>\n{table}")
        else:
            parts.append(details("Means and deviations over seeds, by variant", table))
    return "\n".join(parts)


def _runs(group: Study) -> str:
    if len(group.runs) == 1:
        return f"<h2>Numbers</h2>\n{runs_table.as_list(group)}"
    return f"<h2>Runs</h2>\n{runs_table.as_html(group)}"


def _recipes(group: Study) -> str:
    texts: dict[str, str] = {}
    for variant in group.variants:
        run = variant.runs[0]
        if run.recipe_text:
            texts.setdefault(run.recipe_text.strip(), words.run_name(run))
    parts = [
        details(f"Whole recipe of {name}", f"<pre>{escape(text)}</pre>")
        for text, name in texts.items()
    ]
    if len(parts) > _NOTES:
        parts = [details(f"{len(parts)} whole recipes", "\n".join(parts))]
    return "<h2>Recipes</h2>\n" + "\n".join(parts) if parts else ""


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
        parts += [f"<dt>{k}</dt><dd>{escape('; '.join(v))}</dd>" for k, v in entries if v]
        parts.append("</dl>")
    if commands:
        text = escape("\n".join(commands))
        parts.append(f'<h2>Commands</h2>\n<pre class="wrap">{text}</pre>')
    return "\n".join(parts)


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))
