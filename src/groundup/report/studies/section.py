"""A study's section of a page, in Markdown: a pure function of its findings."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.experiment.studies.shown import Grid
from groundup.report.studies import about, forest
from groundup.report.studies.figures import Picture
from groundup.report.studies.findings import ArmFindings, Findings, RunFindings
from groundup.report.studies.intervals import Paired, paired
from groundup.report.studies.verdicts import Verdict, by_chance, tally, verdicts
from groundup.report.table import Spread, perplexity, spread
from groundup.report.words import cell, listing, number

__all__ = ["difference", "heading", "rate", "section"]

_DIGITS = 4  # of losses


def heading(found: Findings) -> str:
    """The section's heading."""
    return f"{found.study.title} ({found.scale})"


def section(found: Findings, pictures: Sequence[Picture]) -> str:
    """The section, its last line ended; `pictures` stand beside the page, in results/."""
    judged = verdicts(found)
    parts = [
        f"## {heading(found)}",
        found.study.question,
        *([f"**{tally(judged)}**, of what was published or expected."] if judged else []),
        *about.paragraphs(found),
        *([_table(_rows(found))] if _any(found) else ["No run has ended yet."]),
        *_notes(found),
        *(f"{grid.title}.\n\n{_table(_grid(grid, found))}" for grid in _grids(found)),
        *([_table(_judged(judged, found))] if judged else []),
        *filter(None, [by_chance(_gaps(judged, found))]),
        *(f"![{picture.title}](results/{picture.file})" for picture in pictures),
    ]
    return "\n\n".join(parts) + "\n"


def rate(peak: float) -> str:
    """A peak rate as a recipe would say it: 0.004, 5e-05."""
    return f"{peak:g}"


def difference(gap: Paired | None, digits: int = _DIGITS) -> str:
    """“−0.0413 (−0.0530 to −0.0296)”: mean and interval."""
    if gap is None:
        return "–"
    mean = number(gap.mean, digits, sign=True)
    if gap.interval is None:
        return mean
    low, high = (number(end, digits, sign=True) for end in gap.interval)
    return f"{mean} ({low} to {high})"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _any(found: Findings) -> bool:
    return found.about.ended > 0


def _gaps(judged: Sequence[Verdict], found: Findings) -> list[Paired | None]:
    """Of all that is compared, in the table or by a claim, each once."""
    on_differences = [verdict.gap for verdict in judged if verdict.claim.bases]
    return [*(one.gap for one in forest.rows(found)), *on_differences]


def _rows(found: Findings) -> list[list[str]]:
    """The table, of the arms of which anything is known."""
    study, arms = found.study, [arm for arm in found.arms if _begun(arm)]
    tuned = any(arm.tuned for arm in arms)
    columns = {
        "arm": [f"`{arm.name}`" for arm in arms],
        **({"peak rate": list(map(_rates, arms))} if tuned else {}),
        study.value.name: [_value(arm) for arm in arms],
        **({"perplexity": [_perplexity(arm) for arm in arms]} if study.value.perplexity else {}),
    }
    if study.baselines:
        gaps = [_gap(arm, found) for arm in arms]
        columns["against"] = [f"`{b}`" if (b := study.baselines.get(a.name)) else "" for a in arms]
        columns["paired difference"] = [
            difference(gap) if arm.name in study.baselines else ""
            for arm, gap in zip(arms, gaps, strict=True)
        ]
        columns["seeds that agree"] = [f"{g.agreeing} of {g.n}" if g else "" for g in gaps]
    if any(run.spikes for arm in arms for run in _finished(arm)):
        columns["gradient spikes"] = [_spikes(arm) for arm in arms]
    for column in study.columns:
        over = [_numbers(arm, column.key, column.factor) for arm in arms]
        columns[column.heading] = [cell(one, column.digits) for one in over]
    if study.speed:
        columns["speed"] = [_speed(arm, found) for arm in arms]
    return [list(columns), *map(list, zip(*columns.values(), strict=True))]


def _begun(arm: ArmFindings) -> bool:
    return any(one.ended for one in arm.tuned) or any(run.ended for run in arm.runs)


def _grids(found: Findings) -> list[Grid]:
    """Those of which an arm is there at this scale."""
    names = {arm.name for arm in found.arms}
    asked = [(grid, {*row.values()}) for grid in found.study.grids for row in grid.cells.values()]
    return list(dict.fromkeys(grid for grid, arms in asked if arms & names))


def _grid(grid: Grid, found: Findings) -> list[list[str]]:
    """What the arms end with; the least mean of each row is bold."""
    columns = list(dict.fromkeys(column for row in grid.cells.values() for column in row))
    rows = [[grid.corner, *columns]]
    for name, row in grid.cells.items():
        arms = [found.arm(row.get(column, "")) for column in columns]
        overs = [spread(arm.values.values()) if arm else None for arm in arms]
        least = min((over.mean for over in overs if over), default=None)
        told = [_value(arm) if arm else "–" for arm in arms]
        best = [over is not None and over.mean == least for over in overs]
        rows.append([name, *(f"**{t}**" if b else t for t, b in zip(told, best, strict=True))])
    return rows


def _rates(arm: ArmFindings) -> str:
    tried = [rate(one.peak) for one in arm.tuned]
    if arm.peak is None:
        return f"of {', '.join(tried)}" + (" none" if arm.hopeless else "")
    edge = " (edge)" if arm.at_edge else ""
    return f"**{rate(arm.peak)}**{edge} of {', '.join(tried)}" if tried else rate(arm.peak)


def _value(arm: ArmFindings) -> str:
    diverged = len(arm.diverged)
    if arm.hopeless:
        return "diverged"
    over = spread(arm.values.values())
    if over is None:
        return "–"
    lost = f", {diverged} diverged" if diverged else ""
    return f"{cell(over, _DIGITS)} ({over.n}{lost})"


def _perplexity(arm: ArmFindings) -> str:
    over = spread(arm.values.values())
    return "–" if over is None else number(perplexity(over.mean), 2)


def _gap(arm: ArmFindings, found: Findings) -> Paired | None:
    base = found.arm(found.study.baselines.get(arm.name, ""))
    return paired(arm.values, base.values) if base else None


def _finished(arm: ArmFindings) -> list[RunFindings]:
    """The runs that came to their end: of a part of one spikes, speed and numbers are others."""
    return [run for run in arm.runs if run.value is not None]


def _spikes(arm: ArmFindings) -> str:
    known = [run.spikes for run in _finished(arm)]
    over = spread(spikes["grad_norm"][0] for spikes in known if "grad_norm" in spikes)
    return "–" if over is None else f"{number(over.mean, 2)}%"


def _numbers(arm: ArmFindings, key: str, factor: float) -> Spread | None:
    return spread(run.numbers[key] * factor for run in _finished(arm) if key in run.numbers)


def _speed(arm: ArmFindings, found: Findings) -> str:
    """Tokens per second, of the runs that ended, against the baseline's."""
    base = found.arm(found.study.baselines.get(arm.name, ""))
    ours, theirs = (
        spread(run.tokens_per_second for run in _finished(one)) if one else None
        for one in (arm, base)
    )
    return f"{ours.mean / theirs.mean:.0%}" if ours and theirs else "–"


def _notes(found: Findings) -> list[str]:
    """What the table leaves open, a sentence each, in one paragraph."""
    said = []
    value = found.study.value
    unit = f", in {value.unit}" if value.unit else ""
    if _any(found):
        said.append(
            f"{value.name[0].upper()}{value.name[1:]}: mean ± standard deviation over seeds (how "
            f"many){unit}. Differences are paired by seed, with the 95% interval of their mean; "
            "below 0 is better."
        )
    finished = [run for arm in found.arms for run in _finished(arm)]
    if any(run.spikes for run in finished):
        scores = (score for run in finished for score in run.spikes.values())
        windows = sorted({window for _, _, window in scores})
        said.append(
            "Spikes: points at least 7 standard deviations from the mean of the "
            f"{listing([str(window) for window in windows])} before, in 10–90% of the run."
        )
    if found.study.speed:
        said.append(
            "Speed: tokens per second over all updates, against the arm it is compared with; what "
            "else the machine did meanwhile is in it."
        )
    if edge := [f"`{arm.name}`" for arm in found.arms if arm.at_edge]:
        said.append(
            f"(edge): the best of the rates that were tried is the lowest or the highest of them "
            f"for {listing(edge)}; a better one may lie beyond."
        )
    for arm in found.arms:
        stopped = [(f"seed {run.seed}", run.why) for run in arm.runs if run.why]
        stopped += [(f"rate {rate(tried.peak)}", tried.why) for tried in arm.tuned if tried.why]
        said += [f"`{arm.name}`, {which}: {why.rstrip('.')}." for which, why in stopped]
    return [" ".join(said)] if said else []


def _judged(judged: Sequence[Verdict], found: Findings) -> list[list[str]]:
    claim = f"claim: lower {found.study.value.name}"
    rows = [[claim, "source", "verdict", "paired difference", "seeds"]]
    for verdict in judged:
        gap, told = verdict.gap, verdict.claim
        rows.append(
            [
                told.said,
                told.source,
                f"**{verdict.kind}**" + (f": {verdict.why}" if verdict.why else ""),
                difference(gap),
                f"{gap.agreeing} of {gap.n}" if gap else "",
            ]
        )
    return rows
