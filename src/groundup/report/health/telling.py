"""How findings become sentences: who, where, how much; short, however many variants there are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from groundup.report.runs import Run
from groundup.report.table import Study, Variant, eval_gap
from groundup.report.words import listing, number

__all__ = [
    "MANY",
    "Finding",
    "Rule",
    "layer_list",
    "observed",
    "quoted",
    "shown",
    "significant",
    "tell",
]

MANY = 6
"""With more variants than this besides the baseline, counts and extremes stand for the rest."""


@dataclass(frozen=True)
class Finding:
    """What one run shows that is unusual.

    Attributes:
        text: what was seen, with its numbers; follows the variant's name.
        size: how bad it is; the runs of one rule are ranked by it.
        then: ranks those of one size.
    """

    text: str
    size: float
    then: float = 0.0


@dataclass(frozen=True)
class Rule:
    """One thing to look for in a run.

    Attributes:
        title: what is said where it is found.
        topic: what it looks at, as told where nothing was found.
        why: why that matters: one or two sentences, with the source.
        look: what a run shows: [] if nothing unusual, None if it was not measured.
    """

    title: str
    topic: str
    why: str
    look: Callable[[Run], list[Finding] | None]


def observed(group: Study, rules: Sequence[Rule]) -> tuple[list[str], list[str]]:
    """(sentences on what was found, topics that were looked at)."""
    found, topics = [], []
    for rule in rules:
        seen = {id(run): rule.look(run) for run in group.runs}
        if all(findings is None for findings in seen.values()):
            continue
        topics.append(rule.topic)
        per_variant = [
            (variant, [(run, f) for run in variant.runs for f in seen[id(run)] or []])
            for variant in group.variants
        ]
        hit = [(variant, findings) for variant, findings in per_variant if findings]
        if hit:
            found.append(tell(rule, hit, len(group.variants)))
    return found, list(dict.fromkeys(topics))


def tell(
    rule: Rule, hit: Sequence[tuple[Variant, list[tuple[Run, Finding]]]], variants: int
) -> str:
    """One sentence for a rule: what every variant shows, or of many variants the worst one."""
    worst = [(variant, findings, max(findings, key=_size)) for variant, findings in hit]
    if variants > MANY + 1:
        variant, findings, first = max(worst, key=lambda entry: _size(entry[2]))
        told = f"in {len(hit)} of {variants} variants; worst {_told(variant, findings, first)}"
    else:
        told = "; ".join(_told(*entry) for entry in worst)
    return f"{rule.title}: {told}. {rule.why}".strip()


def quoted(variant: Variant) -> str:
    """A variant's name as sentences have it."""
    return f"“{variant.name}”"


def layer_list(layers: Iterable[int]) -> str:
    """“layer 3”, “layers 1–3 and 7”; counted from 1, the shallowest."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    count = sum(map(len, runs))
    parts = []
    for run in runs:
        ends = [str(run[0])] if len(run) == 1 else [str(run[0]), str(run[-1])]
        parts.append(("–" if len(run) > 2 else ", ").join(ends))
    return f"layer{'' if count == 1 else 's'} {listing(parts)}"


def significant(value: float, digits: int = 2) -> str:
    """A number of any size in a few digits: 0.0013, 4.7, 12,000; 3.1e−08, 6.7e11 where it is
    tiny or huge."""
    if not math.isfinite(value) or value == 0:
        return "0" if value == 0 else number(None if math.isnan(value) else value)
    size = math.floor(math.log10(abs(value)))
    if not -4 <= size < 7:
        return f"{value:.{digits - 1}e}".replace("e+", "e").replace("-", "−")
    return number(round(value, digits - 1 - size), max(0, digits - 1 - size))


def shown(group: Study) -> tuple[list[Variant], str]:
    """(the variants to describe one by one, a sentence that says which where it is not all).

    Of many: the baseline, and those with the lowest and the highest evaluation loss against it.
    """
    if len(group.others) <= MANY:
        return list(group.variants), ""
    gaps = [(_mean_gap(group, variant), variant) for variant in group.others]
    ranked = [v for gap, v in sorted(gaps, key=lambda entry: entry[0]) if math.isfinite(gap)]
    if not ranked:
        return [*([group.baseline] if group.baseline else []), group.others[0]], ""
    ends = [ranked[0], ranked[-1]][: len(ranked)]
    found = {v.name: v for v in map(group.counterpart, ends) if v is not None}
    base = [v for v in found.values() if v not in ends]
    note = f"Of {len(group.others)} variants the best, {quoted(ends[0])}"
    note += f", and the worst, {quoted(ends[-1])}, by evaluation loss" if len(ends) > 1 else ""
    return [*base, *ends], f"{note}, are described here."


def _told(variant: Variant, findings: list[tuple[Run, Finding]], first: tuple[Run, Finding]) -> str:
    run, finding = first
    several = len(variant.runs) > 1
    seeds = len({id(run) for run, _ in findings})
    seed = ""
    if several and run.seed is not None:
        count = f"; {seeds} of {len(variant.runs)} seeds" if seeds > 1 else ""
        seed = f" ({'worst ' if count else ''}seed {run.seed}{count})"
    return f"{quoted(variant)}{seed} {finding.text}"


def _size(entry: tuple[Run, Finding]) -> tuple[float, float]:
    return entry[1].size, entry[1].then


def _mean_gap(group: Study, variant: Variant) -> float:
    gaps = [gap for gap in (eval_gap(*pair) for pair in group.pairs(variant)) if gap]
    return math.fsum(gap.value for gap in gaps) / len(gaps) if gaps else math.nan
