"""Where an optimizer keeps its momentum, and what it is an average of.

A table, because names mislead: the `momentum_buffer` of RMSprop averages updates, Lion's second β
is the momentum's. An optimizer that is not in it has no momentum as far as the measurements know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

Group = dict[str, Any]


@dataclass(frozen=True)
class Momentum:
    """m_n = β·m_{n−1} + (1 − β)·g_n = `scale`·state[p][`key`], with m_0 = 0."""

    key: str
    beta: float
    scale: float = 1.0
    nesterov: bool = False
    """Whether updates go along β·m_n + (1 − β)·g_n, rather than m_n."""


def momentum_of(optimizer: Optimizer, group: Group) -> Momentum | None:
    """The momentum of a group's parameters; None where there is none that is an average of
    gradients.

    None as well where weight decay is added to the gradients before they are averaged (L2, as in
    SGD and Adam), or the newest one is weighed in another way (SGD's dampening). In NAdam and
    Adamax it is the average that counts, not what they make of it.
    """
    for kind in type(optimizer).__mro__:
        if (find := _TABLE.get((kind.__module__.partition(".")[0], kind.__name__))) is not None:
            found = find(group)
            return found if found is not None and found.beta > 0 else None
    return None


def gradient_sign(group: Group) -> float:
    """What gradients are multiplied by before they are averaged."""
    return -1.0 if group.get("maximize") else 1.0


def _adam(group: Group) -> Momentum | None:
    if group["weight_decay"] and not group.get("decoupled_weight_decay", False):
        return None
    return _adamw(group)


def _adamw(group: Group) -> Momentum:
    return Momentum("exp_avg", float(group["betas"][0]))


def _sgd(group: Group) -> Momentum | None:
    if group["weight_decay"] or group.get("dampening"):
        return None
    return _sum(group)


def _sum(group: Group) -> Momentum:
    beta = float(group["momentum"])
    return Momentum("momentum_buffer", beta, 1.0 - beta, group["nesterov"])


def _muon(group: Group) -> Momentum:
    if not group.get("use_muon", True):
        return _adamw(group)
    return Momentum("momentum_buffer", float(group["momentum"]), 1.0, group["nesterov"])


def _lion(group: Group) -> Momentum:
    return Momentum("exp_avg", float(group["beta"]), 1.0, group["nesterov"])


_TABLE: dict[tuple[str, str], Callable[[Group], Momentum | None]] = {
    ("torch", "Adam"): _adam,
    ("torch", "AdamW"): _adamw,
    ("torch", "NAdam"): _adam,
    ("torch", "RAdam"): _adam,
    ("torch", "Adamax"): _adam,
    ("torch", "SGD"): _sgd,
    ("torch", "Muon"): _muon,
    ("groundup", "Muon"): _muon,
    ("groundup", "AdamW"): _adamw,
    ("groundup", "SignOptimizer"): _lion,
    ("groundup", "RotationalAdamW"): _adamw,
    # Its decay is a part of the average only where nothing turns: in vectors.
    ("groundup", "RotationalSGD"): _sum,
}
