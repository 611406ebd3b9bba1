"""A run's lines as scalars under the names that TensorBoard and Weights & Biases group by: what
stands before the first slash."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

Scalars = dict[str, float]

_METRICS = {
    "eval_loss": "eval/loss",
    "rate": "schedule/rate",
    "alpha_mean": "schedule/alpha_mean",
    "layers_awake": "schedule/layers_awake",
}


def updated(metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> Scalars:
    """Of the two lines of an update: train/loss, eval/loss, schedule/rate, speed/seconds, …"""
    named = ((_METRICS.get(key, f"train/{key}"), value) for key, value in metrics.items())
    timed = ((f"speed/{key}", value) for key, value in timing.items())
    return {
        key: float(value)
        for key, value in (*named, *timed)
        if not key.endswith("/step") and _finite(value)
    }


def measured(found: Mapping[str, Any]) -> Scalars:
    """Of measurements: measure/update_norm, and of a list one scalar for each layer,
    stream_norm/layer_01 the shallowest, or for each range of positions, loss/position_00-15.
    Sketches are no numbers."""
    return {key: float(value) for key, value in _flat(found) if _finite(value)}


def _flat(found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in found.items():
        if key == "loss_bins":
            continue
        if not isinstance(value, list):
            yield (key if "/" in key else f"measure/{key}"), value
        elif key.endswith("/positions"):
            ends = _ranges(found.get("loss_bins", ()), len(value))
            yield from _each(key.removesuffix("s"), ends, value)
        else:
            stem = key.removesuffix("/layers") + "/layer"
            digits = max(2, len(str(len(value))))
            yield from _each(stem, (f"{l:0{digits}d}" for l in range(1, len(value) + 1)), value)


def _each(stem: str, ends: Iterable[str], values: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"{stem}_{end}", value) for end, value in zip(ends, values, strict=True))


def _ranges(edges: Sequence[int], count: int) -> list[str]:
    if len(edges) != count + 1:
        return [str(bin) for bin in range(count)]
    digits = len(str(edges[-1] - 1))
    return [f"{a:0{digits}d}-{b - 1:0{digits}d}" for a, b in pairwise(edges)]


def _finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
