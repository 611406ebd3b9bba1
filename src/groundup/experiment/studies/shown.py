"""What a study's section shows beyond its table of losses: columns and figures, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Value:
    """What is compared, lower is better.

    Attributes:
        name, unit: in words, the unit "" where there is none.
        perplexity: whether e to the value has a meaning.
    """

    name: str = "held-out loss"
    unit: str = "nats per token"
    perplexity: bool = True


LOSS = Value()
"""Of the runs of `groundup train`."""


@dataclass(frozen=True)
class Column:
    """A number of the summary of a run.

    Attributes:
        heading: of its column.
        key: in summary.json.
        digits: after the point.
        factor: what it is multiplied by: 100 for a percentage.
    """

    heading: str
    key: str
    digits: int = 3
    factor: float = 1.0


@dataclass(frozen=True)
class Grid:
    """A table of what arms end with, where they differ in two things.

    Attributes:
        title: a sentence above it, without its full stop.
        corner: heading of the first column: "optimizer \\ warmup".
        cells: row → column → arm. Arms that a scale lacks have a dash.
    """

    title: str
    corner: str
    cells: Mapping[str, Mapping[str, str]] = field(hash=False)


@dataclass(frozen=True)
class Lines:
    """How arms end against a setting in which they differ: seeds, and a line through their means.

    Attributes:
        name: of the figure's file.
        title: what is drawn; `axis`: what the setting is.
        lines: label → arm → value of the setting. Arms that a scale lacks are left out.
        value: "loss", "perplexity", "gradient spikes", "loss spikes" or the key of a column.
        log: whether the axis of the setting is logarithmic.
    """

    name: str
    title: str
    axis: str
    lines: Mapping[str, Mapping[str, float]] = field(hash=False)
    value: str = "loss"
    log: bool = False


@dataclass(frozen=True)
class Layers:
    """What was measured of each layer at the end of a run, against the layer: means over seeds, and
    the seeds.

    Attributes:
        name, title: as of `Lines`.
        measured: a name of the report's: "stream_norm/layers", "similarity/attention".
        arms: a line each.
        at: where in the run it is taken, as a share of it: at the last measurement up to there.
        log: whether the axis of the values is logarithmic.
    """

    name: str
    title: str
    measured: str
    arms: tuple[str, ...]
    at: float = 1.0
    log: bool = False


@dataclass(frozen=True)
class Course:
    """What was measured over a run, against the updates: means over seeds, and the seeds.

    Attributes:
        name, title: as of `Lines`.
        measured: as of `Layers`, "metrics/NAME" for a number of metrics.jsonl, "loss", the training
            loss, or "evaluation", the held-out one. Where each layer has a value, their mean is
            drawn.
        arms: a line each.
        until: the last update that is drawn; the whole run unless given.
        log: whether the axis of the values is logarithmic.
        paired: whether what is drawn is the difference to the arm's baseline, seed by seed, at the
            steps that both have; each of the arms needs one, and `log` would hide leads.
    """

    name: str
    title: str
    measured: str
    arms: tuple[str, ...]
    until: int | None = None
    log: bool = False
    paired: bool = False


Figure = Lines | Layers | Course
