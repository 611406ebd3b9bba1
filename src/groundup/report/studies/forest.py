"""Paired differences with their intervals, one below the other, and the seeds as dots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from groundup.report import style
from groundup.report.studies.findings import Findings
from groundup.report.studies.intervals import LEVEL, Paired, paired
from groundup.report.studies.reach import reach

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Difference", "draw", "rows"]

_ROW, _TALL_ROW, _REST = 0.27, 0.36, 0.85  # inches
_WIDE = 40  # characters: a longer label stands on two lines, or little would be left for the bars
_LOWER, _HIGHER = style.COLOURS[0], style.COLOURS[1]


@dataclass(frozen=True)
class Difference:
    """One line of the figure: `first` less `second`, and with how many seeds one of them alone came
    to nothing: these are not in the interval."""

    first: str
    second: str
    gap: Paired
    diverged: int = 0

    @property
    def ends(self) -> tuple[float, float]:
        """Of all that is drawn of it."""
        drawn = (*self.gap.values.values(), *(self.gap.interval or ()))
        return min(drawn), max(drawn)


def rows(found: Findings) -> list[Difference]:
    """Every arm against its baseline, in the table's order, then the other pairs of the claims
    (those on differences are not of pairs). A pair the other way round is the same one."""
    study = found.study
    own = [
        (arm.name, study.baselines[arm.name]) for arm in found.arms if arm.name in study.baselines
    ]
    claimed = [(claim.better, claim.worse) for claim in study.claims if not claim.bases]
    differences = []
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for pair in (*own, *claimed):
        pairs.setdefault(frozenset(pair), pair)
    for first, second in pairs.values():
        one, other = found.arm(first), found.arm(second)
        if one and other and (gap := paired(one.values, other.values)):
            alone = len({*one.diverged} ^ {*other.diverged})
            differences.append(Difference(first, second, gap, alone))
    return differences


def draw(differences: list[Difference], found: Findings) -> Figure:
    """Those that are lower with their whole interval are blue, those that are higher orange, where
    no seed was lost; an arrow at the edge where one goes on beyond what is shown."""
    cut = reach([max(map(abs, one.ends)) for one in differences])
    with style.styled():
        names = [_name(one) for one in differences]
        row = _TALL_ROW if any("\n" in name for name in names) else _ROW
        figure = style.new_figure(_REST + row * len(names))
        axes = figure.subplots()
        value = found.study.value
        unit = f", {value.unit}" if value.unit else ""
        axes.axvline(0, color=style.MUTED, linewidth=1.0, zorder=1.5)
        for i, one in enumerate(differences):
            colour = style.MUTED if one.diverged else _colour(one.gap)
            seeds = list(one.gap.values.values())
            axes.plot(seeds, [i + 0.2] * len(seeds), "o", color=colour, markersize=3, alpha=0.6)
            if one.gap.interval is not None:
                axes.hlines(i - 0.1, *one.gap.interval, color=colour, linewidth=2.2)
            axes.plot([one.gap.mean], [i - 0.1], "D", color=colour, markersize=5)
            for edge, marker, end in zip((-1, 1), "<>", one.ends, strict=True):
                if cut and edge * end > cut:
                    axes.plot([edge * cut], [i - 0.1], marker, color=colour, clip_on=False)
        axes.set_yticks(range(len(names)), names, color=style.INK, fontsize=9)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.06)
        if cut:
            axes.set_xlim(-cut, cut)
        axes.xaxis.set_major_formatter(lambda value, _: style.signed(value))
        what = f"difference in {value.name}{unit}; below 0: the first is lower"
        arrows = "; an arrow: it goes on beyond" if cut else ""
        style.remark(figure, f"{what}; bars: {LEVEL:.0%} intervals of the mean{arrows}")
    return figure


def _name(one: Difference) -> str:
    lost = f" ({one.diverged} diverged)" if one.diverged else ""
    return _without_what_is_common(one.first, one.second) + lost


def _without_what_is_common(first: str, second: str) -> str:
    """Points of a sweep are called VARIANT.FIELD-VALUE: what both have is said once."""
    (variant, _, point), (other, _, its) = first.partition("."), second.partition(".")
    if variant == other and point and its:
        return f"{style.label(variant, 30)}: {point} − {its}"
    if point and point == its:
        return f"{style.label(variant, 30)} − {style.label(other, 30)}: {point}"
    said = f"{style.label(first, _WIDE)} − {style.label(second, _WIDE)}"
    return said if len(said) <= _WIDE else said.replace(" − ", "\n− ")


def _colour(gap: Paired) -> str:
    if gap.interval is None or gap.interval[0] <= 0 <= gap.interval[1]:
        return style.MUTED
    return _LOWER if gap.mean < 0 else _HIGHER
