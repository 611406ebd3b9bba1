"""A sweep: every variant with every combination of some fields' values, and what came of it."""

from __future__ import annotations

import csv
import io
import json
import statistics
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup.experiment.compare import Planned
from groundup.train.errors import TrainingStopped
from groundup.train.progress import Watcher
from groundup.train.recipe_file import Axes, Point


@dataclass(frozen=True)
class Result:
    """One run of a sweep; `summary` is None if it stopped before its end, and `why` says why."""

    point: Point
    run: Planned
    summary: dict[str, Any] | None
    why: str = ""

    @property
    def loss(self) -> float | None:
        """Held-out loss at the end."""
        return None if self.summary is None else self.summary["eval_loss"]


def run_sweep(
    runs: Sequence[Planned],
    points: Mapping[str, Point],
    watcher: Callable[[Planned], Watcher],
    command: str = "",
) -> list[Result]:
    """Train all of them, one after the other; one that diverges does not stop the others. A sweep
    that was stopped goes on."""
    from groundup.train import train  # with torch: who only plans does without

    results = []
    for run in runs:
        point = points[run.variant]
        try:
            results.append(Result(point, run, train(run.recipe, run.folder, watcher(run), command)))
        except TrainingStopped as stopped:
            watcher(run).note(str(stopped))
            results.append(Result(point, run, None, str(stopped)))
    return results


def parse_axes(texts: Iterable[str]) -> Axes:
    """Axes as a command line has them: ``rate.warmup=0,0.05,0.2``.

    Raises:
        ValueError: for a text without "=".
    """
    axes: Axes = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise ValueError(f"axes={text!r} is not valid: write it like rate.warmup=0,0.05,0.2")
        axes[key.strip()] = [_value(value.strip()) for value in values.split(",")]
    return axes


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


@dataclass(frozen=True)
class Pivot:
    """Held-out loss by the last axis (columns) and by variant and the other axes (rows)."""

    heading: str
    columns: tuple[Any, ...]
    rows: dict[tuple[str, ...], list[list[float | None]]]

    @classmethod
    def of(cls, results: Sequence[Result], axes: Axes) -> Pivot:
        *others, last = axes or ("",)
        columns = tuple(axes.get(last, [""]))
        rows: dict[tuple[str, ...], list[list[float | None]]] = {}
        for result in results:
            *before, value = result.point.values or ("",)
            name = (result.point.variant, *map("{} {}".format, others, before))
            cells = rows.setdefault(name, [[] for _ in columns])
            cells[columns.index(value)].append(result.loss)
        return cls(last, columns, rows)


def mean(losses: Sequence[float | None]) -> float | None:
    """The mean over seeds; None if a run has none."""
    known = [loss for loss in losses if loss is not None]
    return statistics.fmean(known) if known and len(known) == len(losses) else None


def write_csv(results: Sequence[Result], axes: Axes, path: Path) -> None:
    """One row a run: variant, axes, seed, and what its summary says."""
    text = io.StringIO()
    table = csv.writer(text)
    numbers = ("eval_loss", "eval_perplexity", "wall_seconds", "tokens_per_second")
    table.writerow(["variant", *axes, "seed", "status", *numbers, "folder"])
    for result in results:
        summary = result.summary or {}
        values = [json.dumps(v) if isinstance(v, list | dict) else v for v in result.point.values]
        status = summary.get("status", "stopped")
        cells = [summary.get(name) for name in numbers]
        seed, folder = result.run.seed, result.run.folder
        table.writerow([result.point.variant, *values, seed, status, *cells, folder])
    atomic_write(path, text.getvalue().encode())
