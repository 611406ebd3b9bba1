"""Numbers of a measured update over the run, a panel each: its size, noise, rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.report import style
from groundup.report.figures._base import (
    LINES,
    NothingToShow,
    Read,
    best,
    length,
    looks_of,
    marked,
    mean_line,
    over_seeds,
    seeds_of,
)
from groundup.report.figures._scale import FITTED, fit, sound
from groundup.report.measured import Measured
from groundup.report.runs import Run
from groundup.report.table import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """One quantity of measurements.jsonl over updates."""

    name: str
    title: str
    log: bool = False

    @property
    def read(self) -> Read:
        """Reads its values; those that a logarithmic axis lacks are left out."""

        def read(run: Run) -> Measured | None:
            found = run.measured.get(self.name)
            if found is None or found.values.ndim != 1:
                return None
            low = 0.0 if self.log else -np.inf
            return Measured(found.steps, np.where(found.values > low, found.values, np.nan))

        return read


@dataclass(frozen=True)
class Panels:
    """A figure of such panels, those of which there is something; `missing`: why there is none."""

    panels: Sequence[Panel]
    missing: str

    def draw(self, group: Study) -> Figure:
        """Draws it."""
        part, remark = best(
            group, LINES, lambda v: any(seeds_of(v, panel.read) for panel in self.panels)
        )
        there = [p for p in self.panels if any(seeds_of(v, p.read) for v in part.variants)]
        if not there:
            raise NothingToShow(self.missing)
        looks = looks_of(group, part)
        handles: dict[str, Any] = {}
        with style.styled():
            fig = style.new_figure(3.2 if len(there) == 1 else 0.6 + 1.55 * len(there))
            grid = fig.subplots(len(there), 1, sharex=True, squeeze=False)[:, 0]
            ends, fitted = [], False
            for axes, panel in zip(grid, there, strict=True):
                style.titled(axes, panel.title + (", log scale" if panel.log else ""))
                drawn = {}
                for variant in part.variants:
                    seeds = seeds_of(variant, panel.read)
                    if not seeds:
                        continue
                    mean = over_seeds(seeds)
                    ends.append(mean)
                    lines = [(m.steps.astype(np.float64), m.values) for m in seeds]
                    look = looks[variant.name]
                    drawn[variant.name] = mean_line(
                        axes, lines, look, variant.name, **marked(look, len(mean.steps))
                    )
                handles |= drawn
                axes.set_yscale("log" if panel.log else "linear")
                fitted = fit(axes, drawn, sound(part)) or fitted
                if panel.log:
                    style.log_axis(axes)
                else:
                    axes.yaxis.set_major_formatter(lambda value, _: style.short(value))
                    axes.locator_params(axis="y", nbins=5)
            style.updates_axis(grid[-1], length(part.runs, ends))
            style.legend(fig, list(handles.values()), list(handles))
            said = [remark, FITTED if fitted else "", *map(partial(_left_out, part), self.panels)]
            style.remark(fig, " ".join(text for text in said if text))
        return fig


def _left_out(part: Study, panel: Panel) -> str:
    """What a logarithmic axis cannot show, in a sentence."""
    found = [run.measured[panel.name].values for run in part.runs if panel.name in run.measured]
    values = np.concatenate([np.empty(0), *(v[np.isfinite(v)] for v in found if v.ndim == 1)])
    below = int((values <= 0).sum())
    if not panel.log or not below:
        return ""
    return (
        f"Not on the logarithmic axis of “{panel.title}”: {below} of {len(values)} measurements, "
        "which are 0 or less."
    )


UPDATES = Panels(
    (
        Panel("update_norm", "norm of the update, ‖Δw‖", log=True),
        Panel("relative_update", "the same relative to the weights, ‖Δw‖/‖w‖", log=True),
        Panel("angle", "angle between the weights before and after, radians", log=True),
        Panel("rrc", "relative change of the representations, ‖ΔW·x‖/‖W·x‖", log=True),
    ),
    "no run measured its updates ([measure] what: updates)",
)
NOISE = Panels(
    (
        Panel("phi", "signal-to-noise ratio φ of the gradient", log=True),
        Panel("phi_two_batches", "φ, from two batch sizes", log=True),
        Panel("momentum_cosine", "cosine of gradient and momentum"),
    ),
    "no run measured the noise of its gradients ([measure] what: noise)",
)
RANK = Panels(
    (
        Panel("stable_rank", "stable rank of the weights"),
        Panel("dead_relus", "share of dead ReLUs"),
    ),
    "no run measured its stable rank or dead ReLUs ([measure] what: rank, relus)",
)
