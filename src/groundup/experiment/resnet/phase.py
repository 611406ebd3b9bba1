"""The arms: what each does in the phase of large updates, and its activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from groundup.experiment.resnet.config import ARMS
from groundup.experiment.resnet.model import Activation, biases

Intervention = Callable[[nn.Module, torch.Generator], None]
"""Changes the gradients of one update, between backward and the optimizer's step. The generator is
one for the whole run, on the gradients' device."""


def nothing(model: nn.Module, generator: torch.Generator) -> None:
    """Leave the gradients as they are."""


def freeze_biases(model: nn.Module, generator: torch.Generator) -> None:
    """Take the biases' gradients away: torch's optimizers pass over such parameters, momentum and
    all. In this model they are the shifts of the batch norms, and the classifier's bias†."""
    for bias in biases(model):
        bias.grad = None


def randomize(model: nn.Module, generator: torch.Generator) -> None:
    """Put in place of each gradient g a random one of the same norm, ‖g‖·z/‖z‖ with z ~ N(0, I)†.

    The norm is each tensor's own. A gradient of zeros stays so.
    """
    for parameter in model.parameters():
        if parameter.grad is None:
            continue
        draw = torch.randn(
            parameter.shape, generator=generator, device=parameter.device, dtype=parameter.dtype
        )
        norm = torch.linalg.vector_norm(parameter.grad)
        parameter.grad.copy_(draw * (norm / torch.linalg.vector_norm(draw)))


@dataclass(frozen=True)
class Arm:
    intervene: Intervention = nothing
    activation: Activation = nn.ReLU


def arm(name: str) -> Arm:
    """The arm of that name, one of `config.ARMS`."""
    return _ARMS[name]


_ARMS = {
    "standard": Arm(),
    "frozen-biases": Arm(intervene=freeze_biases),
    "random-gradients": Arm(intervene=randomize),
    "leaky-relu": Arm(activation=nn.LeakyReLU),  # slope 0.01, torch's own
}
assert tuple(_ARMS) == ARMS


def generator_of(seed: int, device: torch.device) -> torch.Generator:
    """The draws of `randomize` for a run: of `seed`, but not those that made the weights."""
    (state,) = np.random.SeedSequence((seed, 1)).generate_state(1)
    return torch.Generator(device).manual_seed(int(state))
