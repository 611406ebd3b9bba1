"""Is it healthy: what is known to go wrong inside a Transformer, looked for in what was measured.

Bounds without a published value are ours, and say why.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from groundup.report.health.layers import LITTLE, idle
from groundup.report.health.reading import (
    awake,
    finite_median,
    last_layers,
    last_scalar,
    layer_medians,
    points,
    settled,
    settled_from,
)
from groundup.report.health.telling import Finding, Rule, layer_list, observed, significant
from groundup.report.runs import Run
from groundup.report.table import Study
from groundup.report.words import count, listing

__all__ = ["RULES", "sentences"]

Numbers = NDArray[np.float64]

MOST = 0.5
"""Of the layers hardly used: a model of half the depth might do as well. Ours."""

COLLAPSED = 0.05
"""Of the entropy of attending evenly. Zhai et al. (arXiv:2303.06296) tie low entropy to
instability, without a bound. Ours: at 5% and 1024 tokens a query attends to 1.3 of them."""

DIVERGING_LOGIT = 1e4
"""All runs with larger ones diverged in Wortsman et al. (arXiv:2309.14322)."""
LARGE_LOGIT = 100.0
"""Where Kimi K2's QK-Clip holds them (arXiv:2507.20534)."""
LOGIT_GROWTH = 2.0
"""Over the second half of the measurements: large and still growing. Ours."""

MASSIVE = 100.0
MASSIVE_RATIO = 1000.0
"""Sun et al. (arXiv:2402.17762) call an activation massive above both: its size, and its ratio to
the median of the hidden state."""
_MEDIAN_OF_NORMAL = 0.6745  # median of |x| for x ~ N(0, 1)

DEAD = 0.1
"""Of the ReLUs: a model a tenth narrower. Ours; CS231n's notes tell of 40% at too high a rate."""

LOW_RANK = 2.0
"""Mean stable rank ‖W‖_F²/‖W‖₂²: at 2, one direction holds half of a matrix's square."""

LARGE_UPDATE = 3e-2
SMALL_UPDATE = 1e-5
"""‖Δw‖/‖w‖. CS231n's rule of thumb is 1e-3; sound runs of the small recipes here are at 1e-2."""
EARLY = 0.1  # of the run, where rates usually warm up
EARLY_UPDATE = 1e-2
"""Ten times the rule of thumb in a single update."""
EARLY_EXCESS = 5.0
"""Times the later median: weights grow severalfold in training, so that relative updates fall by
as much without anything being wrong. Ours."""

UPDATE_SPREAD = 10.0
"""A layer's update against the median layer's. Adam makes updates of like size everywhere. Ours."""
GRADIENT_SPREAD = 100.0
"""Largest against smallest layer: one learning rate can hardly serve both. Ours."""


def sentences(group: Study) -> list[str]:
    """What is unusual; one sentence for all that was looked at without finding anything."""
    found, topics = observed(group, RULES)
    if not topics:
        return []
    rest = f"Looked at: {listing(topics)}."
    return [f"Nothing unusual. {rest}"] if not found else [*found, rest]


def _hardly_used(run: Run) -> list[Finding] | None:
    found = last_layers(run, "skip_loss/layers")
    if found is None or found[0] < (awake(run) or 0.0):
        return None
    step, values = found
    unused = idle(values)
    share = len(unused) / int(np.isfinite(values).sum())
    text = f"{layer_list(unused)} of {len(values)} (after {count(step)} updates)"
    return [Finding(text, share)] if share > MOST else []


def _collapse(run: Run) -> list[Finding] | None:
    found = last_layers(run, "attention_uniform/layers")
    if found is None:
        return None
    step, shares = found
    low = [i + 1 for i, share in enumerate(shares) if share < COLLAPSED]
    if not low:
        return []
    least = float(np.nanmin(shares))
    text = (
        f"{layer_list(low)} at {100 * least:.1f}% of the entropy of attending evenly, or less than "
        f"{100 * COLLAPSED:.0f}% (after {count(step)} updates)"
    )
    return [Finding(text, len(low) + 1 - least)]


def _logits(run: Run) -> list[Finding] | None:
    found = points(run, "attention_logit/layers", layers=True)
    if found is None:
        return None
    steps, values = found
    tops = np.nanmax(values, axis=1)
    at = int(np.argmax(tops))
    where = f"layer {int(np.nanargmax(values[at])) + 1}, update {count(int(steps[at]))}"
    if tops[at] > DIVERGING_LOGIT:
        text = f"{significant(float(tops[at]))} ({where}): with more than 10,000 all runs diverged"
        return [Finding(text, float(tops[at]))]
    middle, last = float(tops[len(tops) // 2]), float(tops[-1])
    if len(tops) < 4 or last <= LARGE_LOGIT or last <= LOGIT_GROWTH * middle:
        return []
    text = (
        f"{significant(middle)} to {significant(last)} from update "
        f"{count(int(steps[len(tops) // 2]))} to {count(int(steps[-1]))} (largest in layer "
        f"{int(np.nanargmax(values[-1])) + 1})"
    )
    return [Finding(text, last)]


def _massive(run: Run) -> list[Finding] | None:
    largest, norms = (last_layers(run, f"stream_{key}/layers") for key in ("max", "norm"))
    width = run.setting("model", "width")
    if not largest or not norms or not isinstance(width, int) or width < 1:
        return None
    if largest[1].shape != norms[1].shape:
        return None
    median = _MEDIAN_OF_NORMAL * norms[1] / math.sqrt(width)
    ratios = np.divide(largest[1], median, out=np.zeros_like(median), where=median > 0)
    hit = [i for i, r in enumerate(ratios) if largest[1][i] > MASSIVE and r >= MASSIVE_RATIO]
    if not hit:
        return []
    worst = max(hit, key=lambda i: ratios[i])
    text = (
        f"{layer_list(i + 1 for i in hit)}, up to {significant(float(largest[1][worst]))}, some "
        f"{significant(float(ratios[worst]))} times a usual one"
    )
    return [Finding(text, float(ratios[worst]))]


def _dead(run: Run) -> list[Finding] | None:
    found = last_scalar(run, "dead_relus")
    if found is None:
        return None
    step, share = found
    text = f"{100 * share:.0f}% never active in the probe after {count(step)} updates"
    return [Finding(text, share)] if share > DEAD else []


def _rank(run: Run) -> list[Finding] | None:
    found = points(run, "stable_rank", layers=False)
    if found is None:
        return None
    steps, values = found
    if values[-1] >= LOW_RANK:
        return []
    text = (
        f"{significant(float(values[0]))} at update {count(int(steps[0]))}, "
        f"{significant(float(values[-1]))} at update {count(int(steps[-1]))}"
    )
    return [Finding(text, -float(values[-1]))]


def _first_updates(run: Run) -> list[Finding] | None:
    found, late = points(run, "relative_update", False), settled(run, "relative_update", False)
    if found is None or late is None:
        return None
    steps, values = found
    beginning = steps < EARLY * run.planned
    usual = finite_median(late)
    if not beginning.any():
        return None
    at = int(np.argmax(np.where(beginning, values, -math.inf)))
    first = float(values[at])
    if first <= EARLY_UPDATE or first <= EARLY_EXCESS * usual:
        return []
    text = (
        f"{significant(100 * first)}% of the weights’ norm in one update (update "
        f"{count(int(steps[at]))}), {significant(first / usual) if usual > 0 else 'far above'} "
        f"times what is usual later ({significant(100 * usual)}%)"
    )
    return [Finding(text, first)]


def _update_size(run: Run) -> list[Finding] | None:
    late = settled(run, "relative_update", False)
    if late is None:
        return None
    usual = finite_median(late)
    if SMALL_UPDATE <= usual <= LARGE_UPDATE:
        return []
    size = "large" if usual > LARGE_UPDATE else "small"
    return [Finding(f"{size}, {significant(100 * usual)}%", abs(math.log(max(usual, 1e-300))))]


def _uneven_updates(run: Run) -> list[Finding] | None:
    late = settled(run, "relative_update/layers", True)
    if late is None:
        return None
    each = layer_medians(late)
    middle = finite_median(each)
    if len(each) < 3 or not middle > 0:
        return None
    high = [i + 1 for i, v in enumerate(each) if v > UPDATE_SPREAD * middle]
    low = [i + 1 for i, v in enumerate(each) if v < middle / UPDATE_SPREAD]
    if not high and not low:
        return []
    ends = [
        (high, "far above", float(np.nanmax(each))),
        (low, "far below", float(np.nanmin(each))),
    ]
    told = [
        f"{layer_list(layers)} {where} ({significant(value / middle)} times the median layer’s)"
        for layers, where, value in ends
        if layers
    ]
    return [Finding(listing(told), len(high) + len(low))]


def _uneven_gradients(run: Run) -> list[Finding] | None:
    late = settled(run, "grad_norm/layers", True)
    if late is None:
        return None
    each = layer_medians(late)
    known = np.where(np.isfinite(each) & (each > 0), each, np.nan)
    if np.isfinite(known).sum() < 2:
        return None
    top, low = int(np.nanargmax(known)), int(np.nanargmin(known))
    ratio = float(known[top] / known[low])
    if ratio <= GRADIENT_SPREAD:
        return []
    text = (
        f"layer {top + 1} has {significant(ratio)} times the gradient norm of layer {low + 1} "
        f"({significant(float(known[top]))} against {significant(float(known[low]))}; medians from "
        f"update {count(math.ceil(settled_from(run)))} on)"
    )
    return [Finding(text, ratio)]


RULES = (
    Rule(
        "Most layers are hardly used",
        "layers in use",
        f"Without any one of them the loss rises by less than {LITTLE} nats: training has not come "
        "far, or the model is deeper than it uses (arXiv:2502.05795).",
        _hardly_used,
    ),
    Rule(
        "Attention collapses",
        "attention entropy",
        "Low entropy goes with instability (arXiv:2303.06296); normalized queries and keys or a "
        "lower rate help.",
        _collapse,
    ),
    Rule(
        "Attention logits are large",
        "attention logits",
        "Growing logits end in divergence (arXiv:2309.14322); normalized queries and keys hold "
        "them.",
        _logits,
    ),
    Rule(
        "Massive activations",
        "largest activations",
        "They act as biases and are common in large models (arXiv:2402.17762); they cost "
        "precision when activations are quantized. The usual size is estimated from the mean norm.",
        _massive,
    ),
    Rule(
        "Dead ReLUs",
        "dead ReLUs",
        "They no longer learn; large early updates are the usual cause (arXiv:2410.23922).",
        _dead,
    ),
    Rule(
        "Weights lose rank",
        "stable rank",
        "Mean stable rank of the weight matrices: below 2, one direction holds most of a matrix.",
        _rank,
    ),
    Rule(
        "The first updates are large",
        "size of the first updates",
        "Keeping these small is what rate warmup is for (arXiv:2410.23922): try a longer one.",
        _first_updates,
    ),
    Rule(
        "Size of an update against that of the weights",
        "relative update size",
        "The rule of thumb is 0.1% (CS231n); far above, the rate may be too high, far below, too "
        "low.",
        _update_size,
    ),
    Rule(
        "Updates differ between layers",
        "updates of each layer",
        "",
        _uneven_updates,
    ),
    Rule(
        "Gradients differ between layers",
        "gradient norm of each layer",
        "Where the optimizer does not even this out, one learning rate cannot serve both.",
        _uneven_gradients,
    ),
)
