"""summary.json: what the files of a finished run come to."""

from __future__ import annotations

import json
import math
import platform
import statistics
from pathlib import Path
from typing import Any

import torch

import groundup
from groundup.measure import run_spike_score
from groundup.train import setup
from groundup.train.recipe import Recipe


def versions() -> dict[str, str]:
    """What the run was computed with."""
    return {
        "groundup": groundup.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def summarize(
    recipe: Recipe, out: Path, device: torch.device, command: str, wall_seconds: float
) -> dict[str, Any]:
    """The content of summary.json for the run in `out`, read from what it recorded."""
    metrics = _lines(out / "metrics.jsonl")
    timing = _lines(out / "timing.jsonl")
    eval_loss = metrics[-1]["eval_loss"]
    return {
        "variant": recipe.variant or recipe.name,
        "seed": recipe.train.seed,
        "status": "finished",
        "steps": recipe.train.steps,
        "tokens": metrics[-1]["tokens"],
        "parameters": recipe.model.parameters(),
        "layers": recipe.model.layers,
        "eval_loss": eval_loss,
        # Past this e^loss is no float64 any more.
        "eval_perplexity": math.exp(eval_loss) if eval_loss < 700 else None,
        "spike_score": {
            name: _spikes([line[name] for line in metrics]) for name in ("loss", "grad_norm")
        },
        # The median: the first updates are slow, above all where something is compiled.
        "tokens_per_second": statistics.median(line["tokens_per_second"] for line in timing),
        "wall_seconds": round(wall_seconds, 2),
        "device": device.type,
        "hardware": setup.hardware(device),
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


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
