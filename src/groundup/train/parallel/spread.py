"""How a model is spread over the processes of a run, each way a class of the same few methods.

The loss that a process hands to `backward` is its part of the batch's, divided by the tokens of the
whole batch: gradients are summed over the processes, not averaged, and so are those of one process.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from groundup.train.parallel.config import ParallelConfig
from groundup.train.world import World

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


class Whole:
    """One process, the whole model."""

    gradient_factor = 1.0
    """What the loss is to be multiplied by, so that the gradients come out summed."""

    def __init__(self, model: nn.Module, world: World, config: ParallelConfig, device: Any) -> None:
        self.model = model
        self.device = device
        self.forward: Any = model

    @staticmethod
    def shard(model: nn.Module, world: World, config: ParallelConfig, device: Any) -> None:
        """Before the weights are there, on the meta device: cut them."""

    @staticmethod
    def memory(device: torch.device, config: ParallelConfig) -> torch.device:
        """Where the weights lie."""
        return device

    def expect(self, all_gradients: bool) -> None:
        """Before an update: whether all weights will have gradients, or some layers rest."""

    def backward(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch; `last`: of this update."""
        return contextlib.nullcontext()

    def clip(self, largest: float) -> Tensor:
        """Clip the gradients; their norm before, 0-dimensional and on the device."""
        return torch.nn.utils.clip_grad_norm_(self.model.parameters(), largest)


class Replicated(Whole):
    """The whole model in every process: DDP."""

    def __init__(self, model: nn.Module, world: World, config: ParallelConfig, device: Any) -> None:
        super().__init__(model, world, config, device)
        # DDP averages.
        self.gradient_factor = float(world.size)
        self._expects: bool | None = None

    def expect(self, all_gradients: bool) -> None:
        if self._expects == all_gradients:
            return
        self._expects, self.forward = all_gradients, None  # the one before lets go of the weights
        self.forward = nn.parallel.DistributedDataParallel(
            self.model,
            device_ids=[self.device] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            # To look for those without gradients takes time in every backward.
            find_unused_parameters=not all_gradients,
        )

    def backward(self, last: bool) -> AbstractContextManager[None]:
        # Gradients are sent once an update, however many micro-batches it has.
        return contextlib.nullcontext() if last else self.forward.no_sync()


class Sharded(Whole):
    """Weights, gradients and optimizer state cut over the processes: FSDP2."""

    @staticmethod
    def shard(model: nn.Module, world: World, config: ParallelConfig, device: Any) -> None:
        from torch.distributed.fsdp import (
            CPUOffloadPolicy,
            FSDPModule,
            MixedPrecisionPolicy,
            OffloadPolicy,
            fully_shard,
        )

        policy = MixedPrecisionPolicy(
            param_dtype=_DTYPES[config.gather] if config.gather != "float32" else None,
            reduce_dtype=_DTYPES[config.reduce],
            cast_forward_inputs=False,
        )
        pin = device.type != "cpu"
        offload = CPUOffloadPolicy(pin_memory=pin) if config.offload else OffloadPolicy()
        settings: dict[str, Any] = {
            "mesh": _mesh(world, config, device),
            "mp_policy": policy,
            "offload_policy": offload,
        }
        layers: Any = model.layers
        for layer in layers:
            fully_shard(layer, reshard_after_forward=config.reshard, **settings)
        fully_shard(model, **settings)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                # Otherwise a factor of 1 is multiplied in by the sum itself, which gloo cannot.
                if hasattr(module, "set_force_sum_reduction_for_comms"):  # torch ≥ 2.9
                    module.set_force_sum_reduction_for_comms(True)

    @staticmethod
    def memory(device: torch.device, config: ParallelConfig) -> torch.device:
        return torch.device("cpu") if config.offload else device

    def backward(self, last: bool) -> AbstractContextManager[None]:
        # Every setting holds until it is changed.
        self.forward.set_is_last_backward(last)
        self.forward.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def clip(self, largest: float) -> Tensor:
        norm: Any = super().clip(largest)
        return norm.full_tensor().to(self.device, non_blocking=True)  # gradients may be offloaded


def kind(config: ParallelConfig, world: World) -> type[Whole]:
    """The way that the recipe asks for, in this world."""
    if config.mode == "fsdp":
        return Sharded
    return Replicated if world.size > 1 else Whole


def _mesh(world: World, config: ParallelConfig, device: Any) -> dist.device_mesh.DeviceMesh:
    if config.replicas == 1:
        return dist.init_device_mesh(device.type, (world.size,), mesh_dim_names=("shard",))
    sizes = (config.replicas, world.size // config.replicas)
    return dist.init_device_mesh(device.type, sizes, mesh_dim_names=("replicate", "shard"))
