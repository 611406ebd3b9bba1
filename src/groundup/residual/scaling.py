"""α in a model: the tensors that hold it, and the branches they multiply."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from groundup.residual import scale
from groundup.residual.architectures import layer_of
from groundup.residual.branches import Branch

Tensors = dict[int, Tensor]


class Scaling:
    """Writes values into one 0-dim float32 tensor per layer and device, in place.

    A tensor stays when its layer moves to another device: a copy of the model may be scaled by it.

    Args:
        model: the model that the branches are part of.
        branches: what is scaled.
        places: for each branch the place of its α among all values.
        values: α at the beginning.
    """

    def __init__(
        self,
        model: nn.Module,
        branches: Sequence[Branch],
        places: Sequence[int],
        values: Sequence[float],
    ) -> None:
        self.traced = scale.Traced()
        self._branches = list(zip(branches, places, strict=True))
        self._values = list(values)
        self._tensors: dict[torch.device, Tensors] = {}
        self._devices = [branch.device for branch in branches]
        rows = [(module, layer_of(module)) for module in model.modules()]
        self._held = [(module, row.hold) for module, row in rows if row is not None and row.hold]
        for (branch, place), device in zip(self._branches, self._devices, strict=True):
            self._bind(branch, self._tensor(place, device), new=True)
        self._scaled = [True] * len(self._branches)
        self._hold()

    def write(self, values: Sequence[float]) -> None:
        """Fill the tensors."""
        if list(values) == self._values:
            return
        self._values = list(values)
        for tensors in self._tensors.values():
            with torch.no_grad():
                torch._foreach_zero_(list(tensors.values()))
                torch._foreach_add_(list(tensors.values()), [values[p] for p in tensors])

    @contextlib.contextmanager
    def at_zero(self) -> Iterator[None]:
        """Within, the α that branches are multiplied by are 0; those of a copy of the model are the
        original's."""
        found = [scale.alpha_of(branch.module) for branch, _ in self._branches]
        tensors = list({id(alpha): alpha for alpha in found if alpha is not None}.values())
        with torch.no_grad():
            values = [alpha.clone() for alpha in tensors]
            torch._foreach_zero_(tensors)
            try:
                yield
            finally:
                torch._foreach_copy_(tensors, values)

    @property
    def multiplies_by_one(self) -> bool:
        """Whether there is a branch that needs no scaling and has it."""
        return any(
            scaled and self._values[place] == 1.0
            for scaled, (_, place) in zip(self._scaled, self._branches, strict=True)
        )

    def bind(self, *, spare: bool = False) -> None:
        """See to it that each branch is multiplied by its α, on the device where it is by now.

        With `spare`, one whose α is 1 is no longer multiplied, until its α is another. Only where
        nothing is compiled: it takes another class, for which torch.compile would compile anew.

        Raises:
            RuntimeError: if somebody took the scaling off, or put another module in a branch's
                place.
        """
        # A model moves as a whole: its ends tell. A layer that moved alone is right all the same.
        if any(self._branches[end][0].device != self._devices[end] for end in (0, -1)):
            self._devices = [branch.device for branch, _ in self._branches]
        for number, (branch, place) in enumerate(self._branches):
            was = self._scaled[number]
            wanted = self._values[place] != 1.0 or (was and not spare)
            if wanted:
                self._bind(branch, self._tensor(place, self._devices[number]), new=not was)
            elif was:
                scale.remove(branch.module)
            self._scaled[number] = wanted
        self._hold()

    def remove(self) -> None:
        """Take the scaling off; copies that share a tensor go on as they are."""
        for branch, _ in self._branches:
            scale.remove(branch.module)
        self._scaled = [False] * len(self._branches)
        self._hold()

    def _hold(self) -> None:
        for module, attributes in self._held:
            scale.hold(module, attributes) if any(self._scaled) else scale.release(module)

    def _bind(self, branch: Branch, alpha: Tensor, new: bool) -> None:
        branch.require_in_place()
        bound = scale.alpha_of(branch.module)
        if new:
            scale.install(branch.module, alpha, self.traced)
        elif bound is None:
            raise RuntimeError(f"{branch.name} is no longer scaled: something took it off")
        elif bound is not alpha:
            scale.bind(branch.module, alpha)

    def _tensor(self, place: int, device: torch.device) -> Tensor:
        tensors = self._tensors.setdefault(device, {})
        if place not in tensors:
            with torch.inference_mode(False):  # it is filled in place for the whole run
                tensors[place] = torch.tensor(self._values[place], device=device)
        return tensors[place]
