"""The parameter groups of a scheduled optimizer, and the values that are written into them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from groundup.optim.rate import hyperparameters as hyper
from groundup.optim.rate.course import AnyCourse, Course
from groundup.optim.rate.plan import Plan


class Groups:
    """Writes the values of a step in place, and keeps what a loaded state would overwrite.

    Attributes:
        given: the course of each group as asked for.
        constants: what every other setting of a group was when it was taken in.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, plan: Plan) -> None:
        self.given: list[Course] = []
        self.constants: list[dict[str, float]] = []
        self._optimizer = optimizer
        self._plan = plan
        self._initial: list[dict[str, float | Tensor]] = []
        self._holders: list[dict[str, float | Tensor]] = []
        self._written: list[float | None] = []
        self.take_in()

    def take_in(self) -> list[Course]:
        """The courses of the groups that are new, from the values they have now."""
        groups = self._optimizer.param_groups
        known = len(self.given)
        new = [self._plan.course(self._optimizer, i) for i in range(known, len(groups))]
        names = list(dict.fromkeys(("lr", *self._plan.rules)))
        # With the defaults: a group that is added later takes them, and must find its own peak.
        hyper.unshare([*groups, self._optimizer.defaults], names)
        for group, course in zip(groups[known:], new, strict=True):
            own = {name: hyper.read(group, name) for name in hyper.names(group)}
            self.constants.append(own | {s.name: s.base for s in course.settings})
            scheduled = [name for name in names if hyper.has(group, name)]
            initial = {f"initial_{name}": hyper.held(group, name) for name in scheduled}
            for key, value in initial.items():
                group.setdefault(key, _copy(value))
            self._holders.append({name: hyper.held(group, name) for name in scheduled})
            self._initial.append({key: _copy(group[key]) for key in initial})
            self._written.append(None)
        self.given += new
        return new

    @property
    def rates(self) -> list[float | Tensor]:
        """Each group's rate now, copied where it is a tensor."""
        return [_copy(group["lr"]) for group in self._optimizer.param_groups]

    @torch.no_grad()
    def write(self, courses: Sequence[AnyCourse], step: int) -> None:
        """Put the values after `step` updates into the groups, into the tensors that they hold."""
        groups = self._optimizer.param_groups
        for i, (group, course) in enumerate(zip(groups, courses, strict=True)):
            for name, value in course(step).items():
                if hyper.has(group, name):  # a saved course may set what this group has not
                    hyper.write(group, name, value)
            self._written[i] = _at_hand(group["lr"])

    def foreign(self) -> int | None:
        """The first group whose rate somebody else has written since `write`."""
        for i, (group, written) in enumerate(
            zip(self._optimizer.param_groups, self._written, strict=False)
        ):
            if written is not None and _at_hand(group["lr"]) not in (None, written):
                return i
        return None

    def restore(self) -> None:
        """After the optimizer's state was loaded, and before `write`: this run's peaks again, and
        its tensors, or numbers where it had numbers.

        A loaded state brings the groups of the run that saved it, with copies of its tensors.
        """
        for group, holders, initial in zip(
            self._optimizer.param_groups, self._holders, self._initial, strict=True
        ):
            for name, holder in holders.items():
                if hyper.has(group, name):
                    hyper.put(group, name, holder)
            group.update({key: _copy(value) for key, value in initial.items()})


def _copy(value: float | Tensor) -> float | Tensor:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _at_hand(rate: float | Tensor) -> float | None:
    """The rate where reading it does not wait for a device."""
    if isinstance(rate, Tensor) and rate.device.type != "cpu":
        return None
    return float(rate.detach() if isinstance(rate, Tensor) else rate)
