"""A plan in text: pictures for the terminal, a table, comma-separated values, advice."""

from __future__ import annotations

import csv
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from groundup.experiment.preview import OF_LAYERS, Preview, alike
from groundup.report.plan import terminal
from groundup.train.recipe import Recipe

_COLUMNS = 6  # layers of the table
_ROWS = 12  # layers of a heat map
_NAMES = 4  # variants that are named
_REASONS = 3  # pieces of advice that are still read


def pictures(previews: Sequence[Preview], until: int | None, width: int) -> str:
    """Rate, weight decay and α over the first `until` updates (None: all), in lines of `width`
    characters. Variants that share a course share a picture."""
    parts: list[str] = []
    several = len(previews) > 1

    def add(title: str, names: Sequence[str], picture: str = "") -> None:
        said = title + _of(names, several)
        parts.append("\n".join(filter(None, [_filled(said, width), picture])))

    def last(p: Preview) -> int:
        return p.steps if until is None else min(until, p.steps)

    for names, p in alike(previews, lambda p: p.rate_key):
        ends = [f" to {end}" for end, _ in p.segments[1:]] + [""]
        parts_of = (f"{said}{end}" for (_, said), end in zip(p.segments, ends, strict=True))
        picture = terminal.curve(p.rate, last(p), p.recipe.rate.peak, width)
        add(f"learning rate: {', '.join(parts_of)}", names, picture)
    # Coupled, it is the picture of the rate once more.
    coupled = [p for p in previews if p.recipe.rate.weight_decay == "coupled" or not p.decays]
    for names, p in alike(coupled, lambda p: p.decay_note):
        add(p.decay_note, names)
    for names, p in alike([p for p in previews if p not in coupled], lambda p: p.decay_key):
        top = p.recipe.rate.peak * p.own_decay
        add(p.decay_note, names, terminal.curve(p.decay, last(p), top, width))
    for what in OF_LAYERS:
        for names, p in alike([p for p in previews if what.schedule(p)], what.key):
            rows = terminal.heat(what.of(p), last(p), p.some_layers(_ROWS), width)
            add(f"{what.title}; {terminal.SHADES}", names, rows)
    return "\n\n".join(parts)


def tables(previews: Sequence[Preview], every: int | None) -> str:
    """A table for each different course: the updates at which something begins or ends, or
    `every` so many."""
    parts = []
    for names, p in alike(previews, lambda p: (p.decay_key, p.alpha_key)):
        rows = [_header(p), *_rows(p, every)]
        title = [", ".join(names)] if len(previews) > 1 else []
        parts.append("\n".join([*title, _aligned(rows), "", p.decay_note]))
    return "\n\n".join(parts)


def write_csv(previews: Sequence[Preview], every: int | None, out: TextIO) -> None:
    """The same numbers of all variants and layers, in full, as one comma-separated table."""
    layers = range(1, max(p.depth for p in previews) + 1)
    own = any(p.layers for p in previews)
    writer = csv.writer(out, lineterminator="\n")
    header = ["variant", "step", "moment", "rate", "weight_decay", "rate_times_weight_decay"]
    writer.writerow(header + [f"alpha_{l}" for l in layers] + [f"rate_{l}" for l in layers if own])
    for p in previews:
        moments = p.moments()
        for step in _steps(p, every):
            rates = [p.rate(step, l) for l in range(1, p.depth + 1)] if own else []
            missing = [""] * (len(layers) - p.depth)
            now = [p.rate(step), p.weight_decay(step), p.decay(step)]
            by_layer = [*p.alphas(step), *missing, *rates, *(missing if own else [])]
            writer.writerow([p.name, step, moments.get(step, ""), *now, *by_layer])


def advice(previews: Sequence[Preview], width: int) -> str:
    """What there is to say on the lengths, each thing once; of many variants the warnings only."""
    several = len(previews) > 1
    reasons = _shared((p.advice.reason, p.name) for p in previews)
    warnings = _shared((said, p.name) for p in previews for said in p.advice.warnings)
    said = []
    if len(reasons) <= _REASONS:
        said += [f"Advice{_of(names, several)}: {reason}" for reason, names in reasons]
    said += [f"Warning{_of(names, several)}: {warning}." for warning, names in warnings]
    return "\n".join(_filled(one, width, "  ") for one in said)


def heading(previews: Sequence[Preview]) -> str:
    """What is planned, in a line."""

    def each(value: Callable[[Recipe], object]) -> str:
        return " or ".join(dict.fromkeys(str(value(p.recipe)) for p in previews))

    several = f", {len(previews)} variants" if len(previews) > 1 else ""
    first = previews[0].recipe
    named = f", variant {first.variant}" if first.variant and not several else ""
    return (
        f"{first.name}{named}: {each(lambda r: r.train.steps)} updates of "
        f"{each(lambda r: r.tokens_per_step)} tokens, {each(lambda r: r.model.layers)} layers, "
        f"{each(lambda r: r.optimizer.name)}{several}"
    )


def _header(p: Preview) -> list[str]:
    layers = p.some_layers(_COLUMNS)
    return [
        "step",
        "rate",
        *(["λ"] if p.own_decay else []),
        *(["rate·λ"] if p.decays else []),
        *([f"α {l}" for l in layers] if p.residual else []),
        *([f"rate {l}" for l in layers] if p.layers else []),
        "",
    ]


def _rows(p: Preview, every: int | None) -> Iterable[list[str]]:
    layers, moments = p.some_layers(_COLUMNS), p.moments()
    for step in _steps(p, every):
        alphas = p.alphas(step)
        yield [
            str(step),
            f"{p.rate(step):.3g}",
            *([f"{p.weight_decay(step):.3g}"] if p.own_decay else []),
            *([f"{p.decay(step):.3g}"] if p.decays else []),
            *([f"{alphas[l - 1]:.3g}" for l in layers] if p.residual else []),
            *([f"{p.rate(step, l):.3g}" for l in layers] if p.layers else []),
            moments.get(step, ""),
        ]


def _steps(p: Preview, every: int | None) -> Iterable[int]:
    return p.moments() if every is None else range(0, p.steps, every)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Numbers to the right, the words of the last column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([*map(str.rjust, row[:-1], widths), row[-1]]).rstrip() for row in rows
    )


def _shared(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Each text once, with all names that it goes with."""
    found: dict[str, list[str]] = {}
    for text, name in pairs:
        found.setdefault(text, []).append(name)
    return list(found.items())


def _of(names: Sequence[str], several: bool) -> str:
    """Whose it is, where there is a choice."""
    if not several:
        return ""
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f" ({', '.join(names[:_NAMES])}{more})"


def _filled(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False)
