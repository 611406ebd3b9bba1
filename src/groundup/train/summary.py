"""summary.json: what the files of a finished run come to."""

from __future__ import annotations

import math
import platform
import statistics
from pathlib import Path
from typing import Any

import torch

import groundup
from groundup.measure import run_spike_score
from groundup.train import records, setup
from groundup.train.recipe import Recipe

_SCORED = ("loss", "grad_norm")


def versions() -> dict[str, str]:
    """What the run was computed with."""
    return {
        "groundup": groundup.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def summarize(
    recipe: Recipe,
    out: Path,
    device: torch.device,
    command: str,
    wall_seconds: float,
    processes: int = 1,
) -> dict[str, Any]:
    """The content of summary.json for the run in `out`, read from what it recorded."""
    # Of a million updates only the numbers are kept.
    series: dict[str, list[float]] = {name: [] for name in _SCORED}
    last: dict[str, Any] = {}
    for last in records.lines(out / "metrics.jsonl"):
        for name, values in series.items():
            values.append(last[name])
    speeds = [line["tokens_per_second"] for line in records.lines(out / "timing.jsonl")]
    eval_loss = last["eval_loss"]
    return {
        "variant": recipe.variant or recipe.name,
        "seed": recipe.train.seed,
        "status": "finished",
        "steps": recipe.train.steps,
        "tokens": last["tokens"],
        "parameters": recipe.model.parameters(),
        "layers": recipe.model.layers,
        "eval_loss": eval_loss,
        # Past this e^loss is no float64 any more.
        "eval_perplexity": math.exp(eval_loss) if eval_loss < 700 else None,
        "spike_score": {name: _spikes(values) for name, values in series.items()},
        # The median: the first updates are slow, above all where something is compiled.
        "tokens_per_second": statistics.median(speeds),
        "wall_seconds": round(wall_seconds, 2),
        "device": device.type,
        "hardware": setup.hardware(device),
        "processes": processes,
        "versions": versions(),
        "command": command,
    }


def _spikes(values: list[float]) -> dict[str, Any]:
    score = run_spike_score(values)
    return {
        "percent": score.percent,
        "window": score.window,
        "scored": score.scored,
        "spikes": score.spikes,
    }
