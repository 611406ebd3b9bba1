"""Where a residual branch is normalized: the table of placements, one class per row.

x is the residual stream [B, T, width], F the branch, N an RMSNorm over the last dimension
(Zhang and Sennrich 2019, arXiv:1910.07467) and l = 1..L the layer:

| name       | forward               | source                                                     |
| ---------- | --------------------- | ---------------------------------------------------------- |
| `pre`      | x + F(N(x))           | Xiong et al. 2020, arXiv:2002.04745                        |
| `post`     | N(x + F(x))           | Vaswani et al. 2017, arXiv:1706.03762                      |
| `sandwich` | x + N₂(F(N₁(x)))      | CogView, arXiv:2105.13290; Peri-LN, arXiv:2502.02732       |
| `deepnorm` | N(k·x + F(x))         | Wang et al. 2022, arXiv:2203.00555; k = (2L)^¼             |
| `lns`      | x + F(N(x)/√l)        | Sun et al. 2025, arXiv:2502.05795, as in arXiv:2603.05369  |
| `output`   | x + N(F(x))           | OLMo 2, arXiv:2501.00656                                   |

What a placement adds to the stream may have further factors (`groundup.model.gain`). They multiply
what is called F here or, where a norm comes before the addition, that norm.

The sizes come from a `ModelConfig`; its dtype and device are those of the norm weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from groundup.model.config import ModelConfig
from groundup.model.gain import Added

Factors = Sequence[Tensor | None]


class Placement(nn.Module):
    """A branch with its norms and its addition to the residual stream.

    Its `forward` takes the stream, what else F wants, and the factors of what is added.

    Args:
        branch: F, called with the (normalized) stream and what else `forward` was given.
        config: the sizes.
        layer: l, 1 the shallowest.
    """

    ends: ClassVar[str | None] = None
    """The child that computes what is added, factors aside; None: the branch's last projection."""

    def __init__(self, branch: nn.Module, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.branch = branch
        self.last = self.ends or f"branch.{branch.ends}"
        self.added = Added(self.last)

    normalizes: ClassVar[bool] = False
    """Whether the stream is normalized after the addition, so that it changes without a branch."""

    def silent(self, x: Tensor) -> Tensor:
        """The formula with a branch that gives zeros, which is not computed."""
        return x

    def multipliers(self) -> dict[str, float]:
        """Fixed scales: parameter → the factor that makes this placement a stock one."""
        return {}


def _norm(config: ModelConfig) -> nn.RMSNorm:
    return nn.RMSNorm(config.width, eps=config.norm_eps)


class Pre(Placement):
    """x + F(N(x))."""

    def __init__(self, branch: nn.Module, config: ModelConfig, layer: int) -> None:
        super().__init__(branch, config, layer)
        self.norm = _norm(config)

    def forward(self, x: Tensor, *args: Any, factors: Factors) -> Tensor:
        return x + self.added(self.branch(self.norm(x), *args), factors)


class Post(Placement):
    """N(x + F(x))."""

    normalizes = True

    def __init__(self, branch: nn.Module, config: ModelConfig, layer: int) -> None:
        super().__init__(branch, config, layer)
        self.norm = _norm(config)

    def forward(self, x: Tensor, *args: Any, factors: Factors) -> Tensor:
        return self.norm(x + self.added(self.branch(x, *args), factors))

    def silent(self, x: Tensor) -> Tensor:
        return self.norm(x)


class Sandwich(Placement):
    """x + N₂(F(N₁(x)))."""

    ends = "post_norm"

    def __init__(self, branch: nn.Module, config: ModelConfig, layer: int) -> None:
        super().__init__(branch, config, layer)
        self.norm = _norm(config)
        self.post_norm = _norm(config)

    def forward(self, x: Tensor, *args: Any, factors: Factors) -> Tensor:
        return x + self.added(self.post_norm(self.branch(self.norm(x), *args)), factors)


class DeepNorm(Post):
    """N(k·x + F(x)), k = (2L)^¼."""

    def __init__(self, branch: nn.Module, config: ModelConfig, layer: int) -> None:
        super().__init__(branch, config, layer)
        self.k = (2 * config.layers) ** 0.25  # the same for every layer, so one compiled graph

    def forward(self, x: Tensor, *args: Any, factors: Factors) -> Tensor:
        return self.norm(self.k * x + self.added(self.branch(x, *args), factors))

    def silent(self, x: Tensor) -> Tensor:
        return self.norm(self.k * x)


class LayerNormScaling(Pre):
    """x + F(N(x)/√l); the factor is inside the branch and fixed.

    `factor` holds 1/√l in a 0-dimensional float32 tensor (float64 in a float64 model), which
    never raises the dtype of what it multiplies. A Python float would compile one graph per
    layer; a buffer would be rounded by `.to(torch.bfloat16)` and wiped by `to_empty`. So it is a
    plain attribute, rebuilt whenever the parameters are converted or moved.
    """

    def __init__(self, branch: nn.Module, config: ModelConfig, layer: int) -> None:
        super().__init__(branch, config, layer)
        self.layer = layer
        self._bind_factor()

    def forward(self, x: Tensor, *args: Any, factors: Factors) -> Tensor:
        return x + self.added(self.branch(self.norm(x) * self.factor, *args), factors)

    def multipliers(self) -> dict[str, float]:
        return {"norm.weight": 1 / math.sqrt(self.layer)}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LayerNormScaling:
        super()._apply(fn, recurse)
        self._bind_factor()
        return self

    def _bind_factor(self) -> None:
        weight = self.norm.weight
        self.factor = torch.tensor(
            1 / math.sqrt(self.layer),
            dtype=torch.promote_types(weight.dtype, torch.float32),
            # Not on "meta": load_state_dict(assign=True) brings weights without any `_apply`,
            # and a 0-dimensional CPU tensor may multiply a tensor of any device.
            device="cpu" if weight.is_meta else weight.device,
        )


class Output(Placement):
    """x + N(F(x))."""

    ends = "post_norm"

    def __init__(self, branch: nn.Module, config: ModelConfig, layer: int) -> None:
        super().__init__(branch, config, layer)
        self.post_norm = _norm(config)

    def forward(self, x: Tensor, *args: Any, factors: Factors) -> Tensor:
        return x + self.added(self.post_norm(self.branch(x, *args)), factors)


PLACEMENTS: dict[str, type[Placement]] = {
    "pre": Pre,
    "post": Post,
    "sandwich": Sandwich,
    "deepnorm": DeepNorm,
    "lns": LayerNormScaling,
    "output": Output,
}
"""`ModelConfig.placement` → its class."""
