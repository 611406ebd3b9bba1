"""Run folders made by hand: every number in them is known."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w

RECIPE = """name = {name}
variant = {variant}

[model]
layers = {layers}
width = 64

[residual]
schedule = {schedule}
{length}

[rate]
peak = 0.001

[train]
steps = {steps}
seed = {seed}
"""


def make_rows(steps, *, offset=0.0, seed=0, every=10):
    """Metrics whose loss falls from 8 towards 3, plus `offset`; evaluated every few updates."""
    result = []
    for step in range(steps):
        base = 3 + 5 / (1 + step / 5)
        row = {
            "step": step,
            "loss": base + offset + 0.01 * ((step * 7 + seed) % 5),
            "grad_norm": 1.0 + 0.1 * ((step * 3 + seed) % 4),
            "rate": 1e-3 * min(1.0, (step + 1) / 5, (steps - step) / (0.2 * steps)),
            "alpha_mean": 1.0,
            "layers_awake": 4,
            "tokens": 128 * (step + 1),
        }
        if (step + 1) % every == 0:
            row["eval_loss"] = base + offset + 0.1
        result.append(row)
    return result


def make_run(
    folder: Path,
    variant: str = "baseline",
    *,
    seed: int = 0,
    steps: int = 100,
    planned: int | None = None,
    schedule: str | None = None,
    length: str = "T = 5",
    layers: int = 4,
    eval_loss: float | None = 3.5,
    metrics: list[dict] | None = None,
    summary: dict | bool | None = True,
    name: str = "tiny",
    settings: dict[str, Any] | None = None,
    measurements: list[dict] | None = None,
    events: list[dict] | None = None,
) -> Path:
    """Writes one run folder; `summary` False leaves it out, a mapping is merged into it.
    `settings` are more of the recipe's, by dotted names."""
    folder.mkdir(parents=True)
    schedule = schedule or ("none" if variant == "baseline" else "linear")
    recipe = RECIPE.format(
        name=json.dumps(name),
        variant=json.dumps(variant),
        layers=layers,
        schedule=json.dumps(schedule),
        length="" if schedule == "none" or schedule.startswith("fix") else length,
        steps=planned or steps,
        seed=seed,
    )
    tables = tomllib.loads(recipe)
    for key, value in (settings or {}).items():
        *path, last = key.split(".")
        table = tables
        for part in path:
            table = table.setdefault(part, {})
        table[last] = value
    text = tomli_w.dumps(tables) if settings else recipe
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    for file, lines in (("measurements", measurements), ("events", events)):
        if lines is not None:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / f"{file}.jsonl").write_text(text, encoding="utf-8")
    metrics = make_rows(steps, seed=seed) if metrics is None else metrics
    text = "".join(json.dumps(row) + "\n" for row in metrics)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    timing = [{"step": i, "seconds": 0.5, "tokens_per_second": 256.0} for i in range(len(metrics))]
    (folder / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in timing))
    if summary is not False:
        stated = {
            "variant": variant,
            "seed": seed,
            "status": "finished",
            "steps": steps,
            "tokens": 128 * steps,
            "parameters": 4321,
            "layers": layers,
            "eval_loss": eval_loss,
            "wall_seconds": 60.0 + seed,
            "tokens_per_second": 1000.0 + seed,
            "device": "cpu",
            "hardware": "a small machine",
            "versions": {"groundup": "0.1.0", "torch": "2.13.0"},
            "command": f"groundup compare {variant}",
        }
        stated |= summary if isinstance(summary, dict) else {}
        (folder / "summary.json").write_text(json.dumps(stated), encoding="utf-8")
    return folder


@pytest.fixture
def rows():
    """The function that makes metrics."""
    return make_rows


@pytest.fixture
def write_run():
    """The function that writes a run folder."""
    return make_run


@pytest.fixture
def pair(tmp_path):
    """A baseline and `linear`, two seeds each."""
    losses = {("baseline", 0): 3.5, ("baseline", 1): 3.6, ("linear", 0): 3.4, ("linear", 1): 3.54}
    return [
        make_run(tmp_path / f"{variant}-{seed}", variant, seed=seed, eval_loss=loss)
        for (variant, seed), loss in losses.items()
    ]
