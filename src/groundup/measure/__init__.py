"""Measurements: functions on plain numbers and tensors, and an observer that takes them in a run.

The spike score and its monitor need no torch; everything else is loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup._lazy import lazily
from groundup.measure.monitor import Monitor, Verdict
from groundup.measure.spikes import SpikeScore, run_spike_score, spike_score

if TYPE_CHECKING:
    from groundup.measure.activations import dead_share, dead_units
    from groundup.measure.layers import Layer, find_layers
    from groundup.measure.noise import (
        GradientNoise,
        cosine,
        momentum_noise,
        phi_from_momentum,
        split_by_momentum,
        two_batches,
    )
    from groundup.measure.observers import Measurements, Observer, observe
    from groundup.measure.positions import loss_by_position
    from groundup.measure.rank import stable_rank, stable_rank_by_power
    from groundup.measure.representation import (
        alignment,
        representation_change,
        representation_changes,
    )
    from groundup.measure.skipping import mean_loss, skipped
    from groundup.measure.stream import alikeness, token_cosines, token_norms
    from groundup.measure.updates import angle, relative_update, row_angles, update_norm

_NAMES: dict[str, tuple[str, ...]] = {
    "attention": (),
    "similarity": (),
    "activations": ("dead_share", "dead_units"),
    "noise": (
        "GradientNoise",
        "cosine",
        "momentum_noise",
        "phi_from_momentum",
        "split_by_momentum",
        "two_batches",
    ),
    "layers": ("Layer", "find_layers"),
    "observers": ("Measurements", "Observer", "observe"),
    "positions": ("loss_by_position",),
    "rank": ("stable_rank", "stable_rank_by_power"),
    "representation": ("alignment", "representation_change", "representation_changes"),
    "skipping": ("mean_loss", "skipped"),
    "stream": ("alikeness", "token_cosines", "token_norms"),
    "updates": ("angle", "relative_update", "row_angles", "update_norm"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in (module, *names)}

__all__ = [
    "GradientNoise",
    "Layer",
    "Measurements",
    "Monitor",
    "Observer",
    "SpikeScore",
    "Verdict",
    "alignment",
    "alikeness",
    "angle",
    "cosine",
    "dead_share",
    "dead_units",
    "find_layers",
    "loss_by_position",
    "mean_loss",
    "momentum_noise",
    "observe",
    "phi_from_momentum",
    "relative_update",
    "representation_change",
    "representation_changes",
    "row_angles",
    "run_spike_score",
    "skipped",
    "spike_score",
    "split_by_momentum",
    "stable_rank",
    "stable_rank_by_power",
    "token_cosines",
    "token_norms",
    "two_batches",
    "update_norm",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
