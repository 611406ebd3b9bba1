"""A copy of what a process is to write, made at once, and a DCP plan that writes it later.

What several processes hold alike (all under DDP; the counts of an optimizer; a shard and its
replicas under HSDP) is copied and written by one of them, each its part of the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import (
    DefaultSavePlanner,
    create_default_local_save_plan,
)
from torch.distributed.checkpoint.metadata import STATE_DICT_TYPE, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, WriteItem
from torch.distributed.checkpoint.utils import find_state_dict_object
from torch.distributed.tensor import DTensor

from groundup.train.world import World


class Staged(DefaultSavePlanner):
    """The parts of `tensors` that this process writes, as they are now, on the CPU.

    When it is made the copy is; what is done to `tensors` afterwards is not seen.

    Args:
        tensors: by name, the same names in the same order in every process; ordinary ones have the
            same values everywhere.
    """

    def __init__(self, tensors: Mapping[str, Tensor], world: World) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self.names = frozenset(tensors)
        mine = _share(tensors, world)
        self._items = create_default_local_save_plan(mine, is_coordinator=world.main).items
        self._copies: dict[Any, Tensor] = {}
        devices = set()
        for item in self._items:
            part = find_state_dict_object(mine, item.index).detach()
            # Pinned, a copy from the GPU is several times as fast; PyTorch keeps the memory for
            # the next checkpoint.
            copy = torch.empty_like(part, device="cpu", pin_memory=part.is_cuda)
            self._copies[item.index] = copy.copy_(part, non_blocking=True)
            if part.device.type != "cpu":
                devices.add(part.device)
        for device in devices:
            torch.accelerator.synchronize(device)

    def set_up_planner(
        self,
        state_dict: STATE_DICT_TYPE,
        storage_meta: StorageMeta | None = None,
        is_coordinator: bool = False,
    ) -> None:
        self.is_coordinator = is_coordinator

    def create_local_plan(self) -> SavePlan:
        self.plan = SavePlan(self._items)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        return self._copies[write_item.index]


def _share(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Of what several processes hold alike, what this one writes: each next tensor is for the one
    that has the fewest bytes so far. All processes come to the same shares."""
    given: dict[int, list[int]] = {}
    mine = {}
    for name, tensor in tensors.items():
        which, holders = _holder(tensor, world)
        loads = given.setdefault(holders, [0] * holders)
        writer = loads.index(min(loads))
        loads[writer] += tensor.numel() * tensor.element_size()
        if writer == which:
            mine[name] = tensor
    return mine


def _holder(tensor: Tensor, world: World) -> tuple[int, int]:
    """The number of this process among those that hold the same part, and how many these are."""
    if not isinstance(tensor, DTensor):
        return world.rank, world.size
    mesh = tensor.device_mesh
    which, holders = 0, 1
    for dim, placed in enumerate(tensor.placements):
        if placed.is_replicate():
            which = which * mesh.size(dim) + mesh.get_local_rank(dim)
            holders *= mesh.size(dim)
    return which, holders
