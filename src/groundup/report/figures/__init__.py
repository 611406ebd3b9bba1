"""The report's figures, each a function from a `Study` to a matplotlib figure.

`figure("gap", runs)` draws one of them, `save_figure` writes it to a file; `FIGURES` is the table
of all, in the page's order: did warmup help, when, in which layers, and was it stable.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup._atomic import atomic_write
from groundup._check import unknown
from groundup.report import style
from groundup.report.figures import (
    alpha,
    captions,
    ends,
    evaluations,
    maps,
    positions,
    training,
    updates,
)
from groundup.report.figures._base import NothingToShow
from groundup.report.runs import Run, find_runs, read_runs
from groundup.report.table import Study, study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "NothingToShow", "Spec", "encoded", "figure", "save_figure"]

Runs = Sequence[Run | Path | str]

_DPI = 200
# Nothing of the moment in the file: the same runs give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@dataclass(frozen=True)
class Spec:
    """A figure of the report: how to draw it and what to say about it."""

    title: str
    draw: Callable[[Study], Figure]
    caption: Callable[[Study], str]


FIGURES: dict[str, Spec] = {
    "loss": Spec("Loss", training.draw_loss, captions.loss),
    "gap": Spec("Gap to the baseline", training.draw_gap, captions.gap),
    "depth-perplexity": Spec(
        "Perplexity against depth", ends.draw_depth_perplexity, captions.depth_perplexity
    ),
    "warmup-length": Spec(
        "Loss against the length of the rate’s warmup",
        ends.draw_warmup_length,
        captions.warmup_length,
    ),
    "sweep": Spec("Loss against what was varied", ends.draw_sweep, captions.sweep),
    "evaluations": Spec(
        "Evaluations while training", evaluations.draw_evaluations, captions.evaluations
    ),
    "positions": Spec("Loss by position", positions.draw_positions, captions.positions),
    "alpha": Spec("Residual warmup: α of each layer", alpha.draw_alpha, captions.alpha),
    "rate": Spec("Learning rate", training.draw_rate, captions.rate),
    "activations": Spec("Residual stream by layer", maps.ACTIVATIONS.draw, captions.activations),
    "branches": Spec("What each branch adds", maps.BRANCHES.draw, captions.branches),
    "similarity": Spec(
        "Branch outputs: how near their final ones", maps.SIMILARITY.draw, captions.similarity
    ),
    "neighbours": Spec(
        "Similarity of neighbouring layers", maps.NEIGHBOURS.draw, captions.neighbours
    ),
    "tokens": Spec("How alike tokens become", maps.ALIKE.draw, captions.tokens),
    "layers": Spec("What each layer is worth", maps.LAYERS.draw, captions.layers),
    "attention": Spec("Attention: how evenly it spreads", maps.ATTENTION.draw, captions.attention),
    "gradients": Spec("Gradient norm by layer", maps.GRADIENTS.draw, captions.gradients),
    "updates": Spec("Size of the updates", updates.UPDATES.draw, captions.updates),
    "angles": Spec("Angle of the updates by layer", maps.ANGLES.draw, captions.angles),
    "noise": Spec("Noise of the gradient", updates.NOISE.draw, captions.noise),
    "rank": Spec("Stable rank and dead ReLUs", updates.RANK.draw, captions.rank),
    "grad_norm": Spec("Gradient norm", training.draw_grad_norm, captions.grad_norm),
    "depth-spikes": Spec("Spikes against depth", ends.draw_depth_spikes, captions.depth_spikes),
}


def figure(name: str, runs: Runs, baseline: str | None = None) -> Figure:
    """Draws a figure of the report.

    Args:
        name: a name in `FIGURES`.
        runs: run folders, folders that hold some, or runs that have been read.
        baseline: the variant to compare with; see `table.study` for the choice without it.

    Returns:
        a matplotlib figure, 5.2 inches wide.

    Raises:
        NothingToShow: (a ValueError) if the runs have nothing of the kind.
        ValueError: if there is no figure, run or variant of that name.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    return FIGURES[name].draw(study(_read(runs), baseline))


def save_figure(name: str, runs: Runs, out: Path | str, baseline: str | None = None) -> Path:
    """Draws a figure and writes it to `out`, a .png (200 dots per inch), .svg or .pdf.

    The file appears complete or not at all. The same runs give the same bytes.

    Returns:
        the path of the file.

    Raises:
        ValueError: for another suffix, and as `figure`.
    """
    out = Path(out)
    suffix = out.suffix.lower()
    if suffix not in _METADATA:
        raise ValueError(f"out={str(out)!r} is not valid: end it in {', '.join(_METADATA)}")
    drawn = figure(name, runs, baseline)
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, encoded(drawn, name, suffix))
    return out


def encoded(drawn: Figure, name: str, suffix: str, dpi: int = _DPI) -> bytes:
    """A figure as the content of a .png, .svg or .pdf, the same bytes for the same figure."""
    import matplotlib

    content = io.BytesIO()
    with style.styled(), warnings.catch_warnings():
        # Names in scripts that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        settings: Any = {"svg.hashsalt": f"groundup-{name}", "pdf.fonttype": 42}
        matplotlib.rcParams.update(settings)
        drawn.savefig(content, format=suffix[1:], dpi=dpi, metadata=_METADATA[suffix])
    return content.getvalue()


def _read(runs: Runs) -> list[Run]:
    """Runs as they are, folders read."""
    given = [runs] if isinstance(runs, str | Path | Run) else list(runs)
    read = [run for run in given if isinstance(run, Run)]
    folders = [found for run in given if not isinstance(run, Run) for found in _found(run)]
    return [*read, *(read_runs(folders) if folders else [])]


def _found(folder: Path | str) -> Iterator[Path]:
    found = find_runs(folder)
    if not found:
        raise ValueError(f"{folder} is no run folder and holds none (none with a metrics.jsonl)")
    yield from found
