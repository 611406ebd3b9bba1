"""Folding α into modules of other libraries: the rule is tried, not taken for granted."""

import pytest
import torch
from torch import nn

from groundup.residual.fold import _rule_of, _times, _times_from_one


class OwnNorm(nn.Module):
    """As most libraries write it; `zero` as Gemma does, whose weight counts as 1 + w."""

    def __init__(self, zero: bool) -> None:
        super().__init__()
        self.zero = zero
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        return x * (1 + self.weight if self.zero else self.weight)


class Transposed(nn.Module):
    """A linear layer with its weight [in, out], as GPT-2's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 6))
        self.bias = nn.Parameter(torch.randn(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


class Squashed(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).tanh()


@pytest.mark.parametrize(
    ("module", "rule"),
    [
        (OwnNorm(zero=False), _times),
        (OwnNorm(zero=True), _times_from_one),
        (OwnNorm(zero=True).bfloat16(), _times_from_one),
        (Transposed(), _times),
        (nn.Linear(3, 4, bias=False), _times),
        (nn.BatchNorm2d(3), _times),
        (Squashed(3, 4), None),
        (nn.Dropout(), None),
        (nn.Sequential(nn.Linear(3, 3)), None),
        (nn.Embedding(3, 4), None),
    ],
)
def test_the_rule_that_a_module_obeys(module: nn.Module, rule: object) -> None:
    assert _rule_of(module) is rule


def test_a_weight_counted_from_one_in_low_precision_is_warned_about() -> None:
    weight = torch.randn(6, dtype=torch.float64)
    torch.testing.assert_close(1 + _times_from_one(weight, 0.3), 0.3 * (1 + weight))
    assert torch.equal(_times_from_one(weight.bfloat16(), 0.0), torch.full((6,), -1.0).bfloat16())
    with pytest.warns(UserWarning, match="fold in float32"):
        _times_from_one(weight.bfloat16(), 0.01)
