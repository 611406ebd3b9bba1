"""Reads a run folder: recipe.toml, metrics.jsonl, timing.jsonl, summary.json, and what else was
recorded: measurements.jsonl, sketches.jsonl, events.jsonl.

A run may be going on, stopped or killed in mid-write: whatever of it can be read is used, and
what is missing is said in `Run.notes`. Only a folder without a single update is refused.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup._json import parse
from groundup.report import lines, measured
from groundup.report.measured import Measured

__all__ = ["Run", "find_runs", "places", "read_run", "read_runs"]

Numbers = NDArray[np.float64]
_SERIES = ("loss", "grad_norm", "rate", "alpha_mean", "layers_awake", "tokens")
_LAYERS = 10_000  # a recipe that says more is damaged


@dataclass(frozen=True, eq=False)
class Run:
    """One run, as its folder holds it. Series have one entry per update; `nan`: not recorded.

    Attributes:
        folder: where it was read from.
        variant: what it is called in comparisons; runs of one variant differ by their seed.
        seed: its seed, or None if neither summary nor recipe says.
        recipe: the resolved recipe, and `recipe_text` as it stands in the file.
        steps: completed updates when each update began.
        series: "loss", "grad_norm", "rate", "alpha_mean", "layers_awake" and "tokens".
        evals: (completed updates, held-out loss in nats per token), rising.
        parts: of a mixture, the loss of each part's held-out text at the last of `evals`.
        seconds: wall time of each timed update, and `throughput` its tokens per second.
        summary: summary.json, or an empty mapping.
        measured: what measurements.jsonl holds, by name; ``"angle/layers"`` has a column per layer.
        sketches: the lines of sketches.jsonl that can be compared; see `similarity`.
        events: the lines of events.jsonl: spikes, and what was done about them.
        notes: what a reader has to know about this run, in sentences.
    """

    folder: Path
    variant: str
    seed: int | None
    recipe: dict[str, Any]
    recipe_text: str
    steps: NDArray[np.int64]
    series: dict[str, Numbers]
    evals: tuple[tuple[int, float], ...]
    seconds: Numbers
    throughput: Numbers
    summary: dict[str, Any]
    parts: dict[str, float] = field(default_factory=dict)
    measured: dict[str, Measured] = field(default_factory=dict)
    sketches: tuple[dict[str, Any], ...] = ()
    events: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def similarity(self) -> dict[str, Measured]:
        """For each branch, the cosine of its outputs with those of the last sketch: [n, L]."""
        try:
            return measured.similarity(self.sketches)
        except ValueError as error:
            raise ValueError(f"{self.folder / 'sketches.jsonl'} is damaged: {error}") from error

    @property
    def updates(self) -> int:
        """Completed updates at the end of what was recorded."""
        return int(self.steps[-1]) + 1

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.summary.get("status") == "finished"

    @cached_property
    def broken(self) -> NDArray[np.bool_]:
        """Of each update, whether its loss or gradient norm was recorded as not finite."""
        lost, norm = np.isnan(self.series["loss"]), np.isnan(self.series["grad_norm"])
        return lost if norm.all() else lost | norm  # a norm that is nowhere was not recorded

    @property
    def diverged(self) -> bool:
        """Whether it ended with a loss or gradient norm that is not finite: with more such updates
        in a row than its recipe lets a run skip."""
        stated = self.summary.get("eval_loss")
        if stated is not None or self.finished:
            return stated is not None and lines.number(stated) is None
        limit = self.setting("train", "nonfinite")  # older recipes have none, and skipped none
        skipped = limit if isinstance(limit, int) and limit > 0 else 0
        return len(self.steps) > skipped and bool(self.broken[-skipped - 1 :].all())

    @property
    def planned(self) -> int:
        """Updates the run was meant to make; those it made, if no recipe says."""
        planned = self.setting("train", "steps")
        stated = isinstance(planned, int) and 0 < planned <= lines.MOST
        return planned if stated else self.updates

    @property
    def layers(self) -> int | None:
        """Depth of the model, or None if unknown."""
        for layers in (self.setting("model", "layers"), self.summary.get("layers")):
            if isinstance(layers, int) and 0 < layers <= _LAYERS:
                return layers
        return None

    @property
    def final_eval(self) -> tuple[int, float] | None:
        """The last evaluation: (completed updates, nats per token)."""
        loss = lines.number(self.summary.get("eval_loss"))
        if loss is not None:
            steps = self.summary.get("steps")
            return (steps if isinstance(steps, int) else self.updates), loss
        return self.evals[-1] if self.evals else None

    def setting(self, *keys: str) -> Any:
        """A setting of the recipe, e.g. ``setting("residual", "schedule")``; None if absent."""
        value: Any = self.recipe
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value


def read_runs(folders: Sequence[Path | str]) -> list[Run]:
    """Reads run folders, each once and in the order given, and tells apart what has one name.

    Two runs of one variant and seed are different experiments under one name (say, another
    learning rate): such a variant's runs get the name of their place added, so that nothing is
    averaged that does not belong together.
    """
    if not folders:
        raise ValueError("no run folder was given")
    once = {Path(folder).resolve(): folder for folder in folders}
    runs = [read_run(folder) for folder in once.values()]
    count: dict[tuple[str, int | None], int] = {}
    for run in runs:
        count[run.variant, run.seed] = count.get((run.variant, run.seed), 0) + 1
    unclear = {variant for (variant, _), times in count.items() if times > 1}
    paths = places(runs)
    # In OUT/VARIANT/seed-N the folder above tells comparisons apart, and seeds stay together.
    above = [(run.variant, run.seed, path.parent) for run, path in zip(runs, paths, strict=True)]
    told = len(set(above)) == len(above)
    return [
        replace(run, variant=f"{run.variant} ({(path.parent if told else path).as_posix()})")
        if run.variant in unclear
        else run
        for run, path in zip(runs, paths, strict=True)
    ]


def places(runs: Sequence[Run]) -> list[PurePath]:
    """Where each run lies, from the folder that holds them all: short, and different for each."""
    folders = [run.folder.resolve() for run in runs]
    root = os.path.commonpath([folder.parent for folder in folders])
    return [folder.relative_to(root) for folder in folders]


def find_runs(root: Path | str) -> list[Path]:
    """Run folders in `root`: itself, or those below it, sorted by path."""
    root = Path(root)
    if (root / "metrics.jsonl").is_file():
        return [root]
    return sorted(path.parent for path in root.rglob("metrics.jsonl"))


def read_run(folder: Path | str) -> Run:
    """Reads one run folder.

    Raises:
        ValueError: if it holds no recorded update, or its recipe is not TOML.
    """
    folder = Path(folder)
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        raise ValueError(f"{folder} is not a run folder: it has no metrics.jsonl")
    notes: list[str] = []
    recipe_text, recipe = _recipe(folder / "recipe.toml", notes)
    parts = {name: f"eval_loss/{name}" for name in _parts(recipe)}
    names = (*_SERIES, "eval_loss", *parts.values())
    steps, series = lines.columns(metrics, names, notes)
    if not len(steps):
        raise ValueError(f"{metrics} holds no complete update: there is nothing to report yet")
    losses = series.pop("eval_loss")
    at = np.flatnonzero(~np.isnan(losses))
    by_part = {name: series.pop(key)[at] for name, key in parts.items()}
    _, timing = lines.columns(folder / "timing.jsonl", ("seconds", "tokens_per_second"), notes)
    summary = _summary(folder / "summary.json", notes)
    run = Run(
        folder=folder,
        variant=_variant(folder, recipe, summary),
        seed=_seed(recipe, summary),
        recipe=recipe,
        recipe_text=recipe_text,
        steps=steps,
        series=series,
        evals=tuple(zip((steps[at] + 1).tolist(), losses[at].tolist(), strict=True)),
        seconds=timing["seconds"],
        throughput=timing["tokens_per_second"],
        summary=summary,
        parts={name: float(v[-1]) for name, v in by_part.items() if np.isfinite(v[-1:]).any()},
        measured=measured.collect(lines.rows(folder / "measurements.jsonl", notes)),
        sketches=measured.comparable(lines.rows(folder / "sketches.jsonl", notes), notes),
        events=tuple(lines.objects(folder / "events.jsonl", notes)),
    )
    return replace(run, notes=(*notes, *_state(run)))


def _state(run: Run) -> list[str]:
    """Sentences about a run that did not come to its end, or lost updates on the way."""
    notes = []
    if not run.summary and run.diverged:
        notes.append(
            f"It diverged: loss or gradient norm are not finite at update {run.steps[-1]} of "
            f"{run.planned}, where it was stopped."
        )
    elif not run.summary and (stop := next((e for e in run.events if _stops(e)), None)):
        notes.append(
            f"A spike at update {stop['step']} of {run.planned} stopped it: as many as "
            "spikes.limit allows had been acted upon."
        )
    elif not run.summary:
        notes.append(
            f"It is still going on or was stopped: there is no summary.json, so its numbers are "
            f"those of metrics.jsonl, up to update {run.updates} of {run.planned}."
        )
    elif not run.finished:
        status = run.summary.get("status", "unknown")
        notes.append(f"Its status is “{status}”, at update {run.updates} of {run.planned}.")
    if (
        run.summary
        and "eval_loss" in run.summary
        and lines.number(run.summary["eval_loss"]) is None
    ):
        notes.append("It has no finite evaluation loss at its end; the last finite one is shown.")
    if bad := run.steps[run.broken].tolist():
        skipped = {event["step"] for event in run.events if event.get("action") == "skip"}
        end = (
            f" and {'was' if len(bad) == 1 else 'were'} skipped" if skipped.issuperset(bad) else ""
        )
        notes.append(f"{_times(len(bad), 'update')} had no finite loss or gradient norm{end}.")
    return notes


def _stops(event: dict[str, Any]) -> bool:
    return event.get("kind") == "spike" and event.get("action") == "stop"


def _recipe(path: Path, notes: list[str]) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        notes.append("It has no recipe.toml, so its settings are unknown.")
        return "", {}
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested too deep
        raise ValueError(f"{path} is not a recipe: {error}") from error


def _summary(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        summary = parse(path.read_bytes())
    except ValueError:
        summary = None
    if isinstance(summary, dict):
        return summary
    notes.append("Its summary.json could not be read.")
    return {}


def _parts(recipe: dict[str, Any]) -> list[str]:
    """The names of a mixture's parts; [] of any other text."""
    data = recipe.get("data")
    mixture = data.get("mixture") if isinstance(data, dict) else None
    tables = [t for t in mixture if isinstance(t, dict)] if isinstance(mixture, list) else []
    return [t["name"] for t in tables if isinstance(t.get("name"), str)]


def _variant(folder: Path, recipe: dict[str, Any], summary: dict[str, Any]) -> str:
    for name in (summary.get("variant"), recipe.get("variant"), recipe.get("name"), folder.name):
        if isinstance(name, str) and name:
            return name
    return folder.resolve().name or "run"


def _seed(recipe: dict[str, Any], summary: dict[str, Any]) -> int | None:
    train = recipe.get("train")
    for seed in (summary.get("seed"), train.get("seed") if isinstance(train, dict) else None):
        if isinstance(seed, int):
            return seed
    return None


def _times(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
