"""One sentence under each figure: what to look at, and how it was drawn."""

from __future__ import annotations

from groundup.report import curves
from groundup.report.table import Study

__all__ = ["alpha", "gap", "grad_norm", "loss", "rate"]


def loss(group: Study) -> str:
    """The loss curves."""
    raw = " over the recorded values (faint)" if len(group.runs) <= curves.RAW_RUNS else ""
    look = (
        "where the lines end up relative to each other"
        if len(group.variants) > 1
        else "whether it still falls at the end"
    )
    return (
        f"Look at {look}: training loss averaged over {curves.window(group.runs)} updates{raw}, "
        f"markers are the evaluation loss{_seeds(group)}; the steep beginning leaves the scale."
    )


def gap(group: Study) -> str:
    """The gap to the baseline."""
    warm = any(v.schedule for v in group.others) and not (
        group.baseline and group.baseline.schedule
    )
    expected = "; residual warmup is expected to start above zero and to end below" if warm else ""
    return (
        f"Below zero is better than the baseline, on the same batches: lines are the training "
        f"loss averaged over {curves.window(group.runs)} updates, markers the evaluation loss"
        f"{_seeds(group)}{expected}."
    )


def grad_norm(group: Study) -> str:
    """The gradient norm."""
    raw = " (faint, as recorded)" if len(group.runs) <= curves.RAW_RUNS else ""
    return (
        f"Look for peaks{raw} and for a level that drifts upwards: lines are geometric averages "
        f"over {curves.window(group.runs)} updates of the norm before clipping{_seeds(group)}."
    )


def alpha(group: Study) -> str:
    """The heat map of α."""
    return (
        "The stronger the colour, the more a layer’s residual branches contribute; layer 1 is the "
        "shallowest, and dashes mark where every layer contributes in full."
    )


def rate(group: Study) -> str:
    """The learning rate."""
    return "Look at when the rate peaks and when it begins to fall, against the loss and the gap."


def _seeds(group: Study) -> str:
    many = any(len(variant.runs) > 1 for variant in group.variants)
    return ", the mean over seeds in bold and each seed thin" if many else ""
