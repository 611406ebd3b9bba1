"""A sweep's results crossed: one setting as columns, the others as rows."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from groundup.report import heldout
from groundup.report.runs import Run
from groundup.report.settings import Setting, differences
from groundup.report.status import status

__all__ = ["Cell", "Pivot", "crossed", "least"]

Place = tuple[Setting, ...]


@dataclass(frozen=True)
class Cell:
    """The runs of one point of the grid: one per seed.

    Attributes:
        loss: mean evaluation loss over seeds; None unless all of them have one, since the mean
            over those that did not diverge would flatter the point.
        seeds: how many runs there are.
        states: status → how many runs, of those that did not finish.
    """

    loss: float | None
    seeds: int
    states: Mapping[str, int]


@dataclass(frozen=True)
class Pivot:
    """Evaluation loss by the last axis (`columns`) and by the variant and the other axes.

    Attributes:
        axes: the settings that were crossed, the one of the columns last.
        columns: the values of the last axis.
        rows: (variant or "", value of each other axis) → one cell per column; None: no run.
        places: name of a point's runs → (variant or "", value of each axis).
        comparable: whether all points were evaluated on the same text.
    """

    axes: tuple[str, ...]
    columns: Place
    rows: Mapping[Place, tuple[Cell | None, ...]]
    places: Mapping[str, Place]
    comparable: bool

    @property
    def cells(self) -> list[Cell]:
        """All points that have runs."""
        return [cell for cells in self.rows.values() for cell in cells if cell is not None]


def least(cells: Iterable[Cell | None]) -> float | None:
    """The least loss among cells; None if none has one."""
    losses = (cell.loss for cell in cells if cell is not None)
    return min((loss for loss in losses if loss is not None), default=None)


def crossed(variants: Sequence[Sequence[Run]]) -> Pivot | None:
    """The grid that variants, each the runs of several seeds, make; None if they make none."""
    runs = [seeds[0] for seeds in variants]
    settings = differences(runs)
    names = [str(run.setting("variant") or run.variant) for run in runs]
    axes = _named(names, settings)
    if axes:
        bases = [_base(i, names[i], runs[i], axes, settings) for i in range(len(runs))]
    else:
        axes, bases = _telling(settings, len(runs)), [""] * len(runs)
    if not axes:
        return None
    places = [(base, *(settings[key][i] for key in axes)) for i, base in enumerate(bases)]
    columns = _ordered(place[-1] for place in places)
    ranks = [_ordered(place[k] for place in places) for k in range(len(axes))]
    points: dict[Place, list[Run]] = {}
    for seeds, place in zip(variants, places, strict=True):
        points.setdefault(place, []).extend(seeds)
    rows = sorted(
        {place[:-1] for place in places},
        key=lambda row: [rank.index(value) for rank, value in zip(ranks, row, strict=True)],
    )
    return Pivot(
        tuple(axes),
        columns,
        {row: tuple(_cell(points.get((*row, value))) for value in columns) for row in rows},
        {run.variant: place for run, place in zip(runs, places, strict=True)},
        heldout.alike(runs),
    )


def _named(names: Sequence[str], settings: Mapping[str, Place]) -> list[str]:
    """The axes of `groundup sweep`, whose points are called by their values, ``lion.warmup-0.1``;
    in the order of the names."""
    at: dict[int, str] = {}
    for key, values in settings.items():
        found = [_place(name, key, value) for name, value in zip(names, values, strict=True)]
        if all(place is not None for place in found) and found[0] is not None:
            at.setdefault(found[0].start(), key)
    return [at[start] for start in sorted(at)]


def _place(name: str, key: str, value: Setting) -> re.Match[str] | None:
    """Where a point's name has the value of a setting, as `train.recipe_file` writes it."""
    texts = {str(value)}
    if isinstance(value, float) and value.is_integer():
        texts.add(str(int(value)))
    called = {re.sub(r"[^\w.-]+", "-", f"{key.rpartition('.')[2]}-{text}") for text in texts}
    either = "|".join(re.escape(text) for text in sorted(called, key=len, reverse=True))
    return re.search(rf"(?:^|\.)(?:{either})(?=\.|$)", name, re.IGNORECASE)


def _base(i: int, name: str, run: Run, axes: Sequence[str], settings: Mapping[str, Place]) -> str:
    """The variant that a point belongs to: its name without the axes' values, with what tells
    apart runs of one name."""
    told = run.variant.removeprefix(name)
    for key in axes:
        if place := _place(name, key, settings[key][i]):
            name = name[: place.start()] + name[place.end() :]
    return name.removeprefix(".") + told


def _telling(settings: Mapping[str, Place], count: int) -> list[str]:
    """Two settings or more whose combinations tell the runs apart and fill more than half of the
    grid; what follows from another setting is no axis."""
    axes = [
        key
        for i, (key, values) in enumerate(settings.items())
        if not any(
            _follows(values, others) and (not _follows(others, values) or j < i)
            for j, others in enumerate(settings.values())
            if i != j
        )
    ]
    size = math.prod(len(set(settings[key])) for key in axes)
    combinations = set(zip(*(settings[key] for key in axes), strict=True))
    whole = len(axes) > 1 and len(combinations) == count and 2 * count > size
    return axes if whole else []


def _follows(values: Place, others: Place) -> bool:
    """Whether a setting's value is the same wherever the other's is."""
    return len(set(zip(values, others, strict=True))) == len(set(others))


def _ordered(values: Iterable[Setting]) -> Place:
    """Each value once: numbers rising, anything else as it comes."""
    once = tuple(dict.fromkeys(values))
    numbers = [value for value in once if isinstance(value, int | float)]
    return tuple(sorted(numbers)) if len(numbers) == len(once) else once


def _cell(runs: Sequence[Run] | None) -> Cell | None:
    if not runs:
        return None
    finals = [None if run.diverged else run.final_eval for run in runs]
    losses = [final[1] for final in finals if final is not None]
    whole = len(losses) == len(runs)
    states = Counter(state for state in map(status, runs) if state != "finished")
    return Cell(math.fsum(losses) / len(losses) if whole else None, len(runs), states)
