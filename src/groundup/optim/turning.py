"""What optimizers that turn rows share: the angle of an update, its settings and the norms kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from groundup._check import count, unknown
from groundup.optim.own import LOW_PRECISION, Number, OwnOptimizer, name_of, number, precise
from groundup.optim.rows import local, row_norms, turns

Angle = Literal["sqrt", "linear"]

RIGHT = math.pi / 2
"""A row that turned by more would come back."""


class TurningOptimizer(OwnOptimizer):
    """Base of LionAR and the rotational optimizers: the groups' ``rotational`` parameters turn.

    A group's ``out_dim`` (0) is the dimension of their weights that numbers the output units.
    """

    # Under which name the norms that rows keep stand in the state.
    _norm: ClassVar[str] = "row_norm"
    _warned = False

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self._able: dict[int, Tensor] = {}  # norms that were found to be above 0
        super().__init__(params, {**defaults, "out_dim": 0})

    def _rms(self, group: dict[str, Any]) -> float:
        """The angle of an update over √(2·lr·weight_decay)."""
        raise NotImplementedError

    def _angle(self, group: dict[str, Any]) -> Number:
        """The angle of an update in radians, but for bias correction and ``update_scale``."""
        return _ANGLES[group["angle"]](group) * self._rms(group)

    # ------------------------------------------------------------------ groups

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if group["angle"] not in _ANGLES:
            raise unknown("angle", group["angle"], _ANGLES)
        count("out_dim", group["out_dim"], least=0)
        turning = [p for p in group["params"] if turns_in(group, p)]
        if not turning:
            return
        lr, decay = float(group["lr"]), float(group["weight_decay"])
        if decay == 0.0:
            raise ValueError(
                "weight_decay=0 is not valid for parameters that turn: their angle is "
                "∝ √(2·lr·weight_decay), and they would not move. Give a value above 0, or put "
                "them into a group with rotational=False"
            )
        if group["angle"] == "linear" and group.setdefault("peak_lr", lr) == 0.0:
            raise ValueError(
                "lr=0 is not valid with angle='linear': the rate at construction is the peak"
            )
        if (angle := float(self._angle(group))) > RIGHT:
            raise ValueError(
                f"lr={lr!r} with weight_decay={decay!r} is not valid: each update would turn rows "
                f"by {angle:.3g} rad, more than π/2"
            )
        low = [p.dtype for p in turning if p.dtype in LOW_PRECISION]
        if low and not group["master_weights"] and not self._warned:
            self._warned = True
            warnings.warn(
                f"{low[0]} weights lose turns of less than about {torch.finfo(low[0]).eps:.0e} "
                "rad: keep them in float32, or pass master_weights=True",
                stacklevel=7,
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_able", {})

    # ------------------------------------------------------------------ state

    def _init_state(self, group: dict[str, Any], p: Tensor, state: dict[str, Tensor]) -> None:
        if group["master_weights"] and p.dtype in LOW_PRECISION:
            state["master"] = p.detach().to(precise(p.dtype))
        if turns_in(group, p):
            state[self._norm] = row_norms(p.detach(), group["out_dim"])

    def _check_state(self, group: dict[str, Any], index: int) -> None:
        p = group["params"][index]
        norm = self.state[p].get(self._norm)
        # Looked at once, and not in an update of rate 0: by such a one a checkpoint makes the state
        # that it loads, when there may be no weights yet.
        if norm is None or self._able.get(id(p)) is norm or float(group["lr"]) == 0.0:
            return
        norms = local(norm).flatten()
        stuck = (norms <= 0.0).nonzero().flatten().tolist()
        if stuck:
            raise ValueError(
                f"{name_of(group, index)}: {len(stuck)} of {len(norms)} rows have norm 0, the "
                f"first is row {stuck[0]}. Rows turn at constant norm, so that these could never "
                "change: initialize them otherwise, or put the parameter into a group with "
                "rotational=False"
            )
        self._able[id(p)] = norm


def turns_in(group: dict[str, Any], parameter: Tensor) -> bool:
    """`turns` with the settings of a group."""
    return turns(parameter, group["rotational"], group["out_dim"])


# ---------------------------------------------------------------------- what follows the rate


def _sqrt(group: dict[str, Any]) -> Number:
    return (2.0 * number(group["lr"]) * number(group["weight_decay"])) ** 0.5


def _linear(group: dict[str, Any]) -> Number:
    peak = group["peak_lr"]
    return (2.0 * peak * number(group["weight_decay"])) ** 0.5 * (number(group["lr"]) / peak)


_ANGLES: dict[str, Callable[[dict[str, Any]], Number]] = {"sqrt": _sqrt, "linear": _linear}
