"""What a recipe says about spikes: what counts as one, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundup._check import count, positive
from groundup.measure.spikes import default_window


@dataclass(frozen=True)
class SpikesConfig:
    """Spikes of loss and gradient norm while the run goes on, judged as the spike score does."""

    action: Literal["warn", "skip", "rewind"] = "warn"
    """What is done about one: only say so; skip its update; or go back to the last checkpoint and
    pass over the batches from there through the spike's."""

    of: tuple[Literal["loss", "grad_norm"], ...] = ("loss", "grad_norm")
    """Which series are judged; none: no spike is looked for."""

    threshold: float = 7.0
    """Standard deviations from the mean of the window that make a point a spike."""

    window: int | None = None
    """Updates that each one is compared with: 1000, or a tenth of a run of fewer than 10 000
    updates (at least 10), unless given."""

    beyond: int = 0
    """With rewind: batches passed over after the spike's."""

    limit: int | None = None
    """With skip or rewind: how often in a run, 20 unless given; the next spike stops the run."""

    def __post_init__(self) -> None:
        positive("threshold", self.threshold)
        count("beyond", self.beyond, least=0)
        if self.window is not None:
            count("window", self.window, least=2)
        if self.limit is not None:
            count("limit", self.limit, least=0)
        if self.action != "warn" and not self.of:
            raise ValueError(f"of=() is not valid: action={self.action!r} needs a series to judge")
        if self.action == "warn" and self.limit is not None:
            raise ValueError(f"limit={self.limit!r} would be ignored by action='warn'")
        if self.action != "rewind" and self.beyond:
            raise ValueError(f"beyond={self.beyond!r} would be ignored by action={self.action!r}")

    def window_of(self, steps: int) -> int:
        """The window in a run of `steps` updates."""
        return default_window(steps) if self.window is None else self.window

    @property
    def most(self) -> int:
        """How often it is acted upon in a run."""
        return 20 if self.limit is None else self.limit
