"""The learned and the random relatives of residual warmup: factors on what a branch adds.

F(…) is what a branch gives, l = 1..L the layer; each goes with every placement of the norms:

| setting               | a branch adds                      | source                              |
| --------------------- | ---------------------------------- | ----------------------------------- |
| `gain = "rezero"`     | g_l·F(…), g_l a number             | Bachlechner et al. arXiv:2003.04887 |
| `gain = "layerscale"` | γ ⊙ F(…), γ [width] of each branch | Touvron et al. arXiv:2103.17239     |
| `drop_path = p`       | F(…)/(1 − p·l/L), or nothing with  | Huang et al. arXiv:1603.09382       |
|                       | probability p·l/L; in training     |                                     |

ReZero's g_l is of both branches of a layer; its authors left out the norms, which stay here.
Stochastic depth is drawn for each sequence and each branch by itself, and what survives is divided
by the probability of that, so that evaluations need no factor (as timm's DropPath does; the paper
has the factor there).

With residual warmup a branch adds α·γ·F(…).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from groundup.model.config import ModelConfig

Pair = tuple[Tensor | None, Tensor | None]
"""Factors of a layer's attention and feed-forward branch, broadcast to [B, T, width]; None: 1."""

NEITHER: Pair = (None, None)


class Gains(nn.Module):
    """The gains of a layer's two branches; here there are none."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def forward(self) -> Pair:
        return NEITHER

    @staticmethod
    def start(layers: int) -> float:
        """Where all gains of a model of so many layers start, unless its configuration says."""
        return 1.0


class ReZero(Gains):
    """A number for both branches, [1]: a tensor without dimensions could not be sharded."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.both = nn.Parameter(torch.empty(1))

    def forward(self) -> Pair:
        return self.both, self.both

    @staticmethod
    def start(layers: int) -> float:
        return 0.0


class LayerScale(Gains):
    """A number for each channel of each branch, [width]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.attention = nn.Parameter(torch.empty(config.width))
        self.feed_forward = nn.Parameter(torch.empty(config.width))

    def forward(self) -> Pair:
        return self.attention, self.feed_forward

    @staticmethod
    def start(layers: int) -> float:
        return 0.1 if layers <= 18 else 1e-5 if layers <= 24 else 1e-6  # section 2 of the paper


GAINS: dict[str, type[Gains]] = {"none": Gains, "rezero": ReZero, "layerscale": LayerScale}
"""`ModelConfig.gain` → its class."""


class Added(nn.Module):
    """What a branch adds to the stream: its output times factors.

    A module of its own, so that residual warmup scales, and measurements see, what is added; the
    parameters stand elsewhere, since a layer's branches may share them.

    Args:
        folds_into: names, inside the module that holds this one, of what a factor on the output can
            be multiplied into instead.
    """

    def __init__(self, *folds_into: str) -> None:
        super().__init__()
        self.folds_into = folds_into

    def forward(self, y: Tensor, factors: Sequence[Tensor | None]) -> Tensor:
        for factor in factors:
            if factor is not None:
                y = y * factor
        return y


def survivors(x: Tensor, layers: int, drop_path: float) -> list[Pair]:
    """The factors of stochastic depth, 0 or 1/(1 − p·l/L): for each layer's branches, [B, 1, 1].

    Drawn for the whole model at once and outside of its layers, whatever compiles or recomputes
    them, from torch's random state on the device of x: as dropout is.

    Args:
        x: the stream [B, T, width].
        layers: L.
        drop_path: p, the probability with which a branch of the last layer is left out.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    l = torch.arange(1, layers + 1, dtype=exact, device=x.device)
    survival = 1 - drop_path * (l / layers)[:, None, None]
    drawn = torch.rand(layers, 2, len(x), dtype=torch.float32, device=x.device)
    kept = ((drawn < survival) / survival).to(x.dtype)[..., None, None]
    return [(attention, feed_forward) for attention, feed_forward in kept.unbind()]
