"""One sentence under each figure: what to look at, and how it was drawn."""

from __future__ import annotations

from collections.abc import Callable

from groundup.report import curves
from groundup.report.table import Study

__all__ = [
    "activations",
    "alpha",
    "angles",
    "attention",
    "branches",
    "depth_perplexity",
    "depth_spikes",
    "evaluations",
    "gap",
    "grad_norm",
    "gradients",
    "layers",
    "loss",
    "neighbours",
    "noise",
    "positions",
    "rank",
    "rate",
    "similarity",
    "sweep",
    "tokens",
    "updates",
    "warmup_length",
]

Caption = Callable[[Study], str]


def loss(group: Study) -> str:
    """The loss curves."""
    shown = curves.window(group.runs) > 1 and len(group.runs) <= curves.RAW_RUNS
    raw = " over the recorded values (faint)" if shown else ""
    look = (
        "where the lines end up relative to each other"
        if len(group.variants) > 1
        else "whether it still falls at the end"
    )
    return (
        f"Look at {look}: training loss{_averaged(group)}{raw}, "
        f"markers are the evaluation loss{_seeds(group)}; the steep beginning leaves the scale."
    )


def evaluations(group: Study) -> str:
    """The evaluations on the way."""
    return (
        "Look at when the lines part, and whether all panels agree: what [evaluate] asked for, "
        f"each at the update it followed{_seeds(group)}. Accuracies near chance say nothing yet."
    )


def _averaged(group: Study) -> str:
    width = curves.window(group.runs)
    return f" averaged over {width} updates" if width > 1 else ""


def gap(group: Study) -> str:
    """The gap to the baseline."""
    warm = any(v.schedule for v in group.others) and not (
        group.baseline and group.baseline.schedule
    )
    expected = "; residual warmup is expected to start above zero and to end below" if warm else ""
    than = "the baseline" if group.baseline else "the same settings without residual warmup"
    return (
        f"Below zero is better than {than}, on the same batches: lines are the training "
        f"loss{_averaged(group)}, markers the evaluation loss"
        f"{_seeds(group)}{expected}."
    )


def grad_norm(group: Study) -> str:
    """The gradient norm."""
    raw = " (faint, as recorded)" if len(group.runs) <= curves.RAW_RUNS else ""
    return (
        f"Look for peaks{raw} and for a level that drifts upwards: lines are geometric averages "
        f"over {curves.window(group.runs)} updates of the norm before clipping{_seeds(group)}."
    )


def _plain(text: str) -> Caption:
    """A caption that is the same for all runs."""
    return lambda group: text


def _fixed(text: str) -> Caption:
    """The same for lines: it ends with how seeds are drawn."""
    return lambda group: f"{text}{_seeds(group)}."


def _map(text: str) -> Caption:
    """The same for heat maps, which show the mean over seeds only."""
    return lambda group: f"{text}{', the mean over seeds' if _several(group) else ''}."


def _ends(text: str) -> Caption:
    """The same for points at the ends of runs."""
    many = "; points are the mean over seeds, bars reach from the lowest to the highest"
    return lambda group: f"{text}{many if len({run.seed for run in group.runs}) > 1 else ''}."


def _seeds(group: Study) -> str:
    return ", the mean over seeds in bold and each seed thin" if _several(group) else ""


def _several(group: Study) -> bool:
    return any(len(variant.runs) > 1 for variant in group.variants)


depth_perplexity = _ends(
    "Look at whether more layers still help, and whether the lines part with depth: perplexity on "
    "held-out text at the end of each run"
)
depth_spikes = _ends(
    "Look for scores that rise with depth: the share of updates between 10% and 90% of a run that "
    "lie at least 7 standard deviations from the mean of the window before"
)
warmup_length = _ends(
    "A line that is flat from 0 on needs no warmup of the rate: held-out loss at the end of each "
    "run, a cross on top where runs diverged"
)
sweep = _ends(
    "Look for the lowest point of each line and how wide its valley is: held-out loss at the end "
    "of each run, a cross on top where runs diverged"
)
positions = _fixed(
    "Look at whether the lines part late in the sequence, where a model has to use a long context: "
    "held-out loss at the last evaluation, positions in bins and on a logarithmic axis"
)
alpha = _plain(
    "The stronger the colour, the more a layer’s residual branches contribute; layer 1 is the "
    "shallowest, and dashes mark where every layer contributes in full."
)
rate = _plain(
    "Look at when the rate peaks and when it begins to fall, against the loss and the gap."
)
activations = _map(
    "Look at how fast the norm grows towards the deep layers and when: mean length of the residual "
    "stream after each layer, all maps in one logarithmic scale, and below it the last measurement"
)
branches = _map(
    "Dark layers change the stream little: norm of what a branch adds, α included, relative to the "
    "stream that enters the layer, all maps in one logarithmic scale"
)
similarity = _map(
    "The earlier a layer is bright and stays so, the earlier it has found its final output: cosine "
    "of a layer’s branch outputs with those of the last sketch, on the same inputs, averaged over "
    "branches; sketches have few dimensions, so small differences are noise"
)
neighbours = _map(
    "Bright all along means that a layer hardly differs from the next: cosine of the stream, or of "
    "what a branch adds, after a layer and after the one that follows"
)
tokens = _map(
    "Where a map is bright, tokens have become alike, and what comes after can hardly tell them "
    "apart: mean cosine between the streams of different tokens of a sequence, and below it the "
    "last measurement"
)
layers = _map(
    "Look for deep layers that could be left out: what the loss rises by when a layer’s branches "
    "are set to 0; a logarithmic scale, in which what is negative has the darkest shade"
)
attention = _map(
    "Dark layers attend to few tokens, 1 is attending to all evenly; a largest logit that keeps "
    "growing comes before many a collapse: entropy as a share of the largest possible one"
)
gradients = _map(
    "Look for layers whose gradient vanishes or stands out: norm of each layer’s gradient as the "
    "optimizer gets it, all maps in one logarithmic scale"
)
updates = _fixed(
    "Look at the beginning: updates that are larger there than later are what a warmup of the rate "
    "holds back"
)
angles = _map(
    "Look for layers that turn faster than others, above all at the beginning: angle between a "
    "layer’s weights before and after an update, in radians, on a logarithmic scale"
)
noise = _fixed(
    "A high φ at the beginning means that the gradients of a batch agree, and that updates add up: "
    "estimates from single batches, so look at the level and not at single points"
)
rank = _fixed("Look for a fall that the other variants do not have")
