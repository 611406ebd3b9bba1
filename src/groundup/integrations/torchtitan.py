"""Residual warmup in torchtitan 0.2: a model's train spec, wrapped.

torchtitan imports a module of yours before it looks the model up, and a spec that is registered
there goes before its own of the same name:

>>> # my_llama.py, for `--experimental.custom_import my_llama`
>>> from torchtitan.models.llama3 import get_train_spec                        # doctest: +SKIP
>>> from torchtitan.protocols.train_spec import register_train_spec            # doctest: +SKIP
>>> spec = residual_warmup(get_train_spec(), gu.depth.linear(T=1000))          # doctest: +SKIP
>>> register_train_spec("llama3", spec)                                        # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torchtitan.tools.logging import logger

from groundup.residual import attach
from groundup.schedules import DepthSchedule

if TYPE_CHECKING:
    from torch import nn
    from torchtitan.components.optimizer import OptimizersContainer
    from torchtitan.protocols.train_spec import TrainSpec


def residual_warmup(spec: TrainSpec, schedule: DepthSchedule, **attach_options: Any) -> TrainSpec:
    """`spec` for a model that is trained with residual warmup.

    It attaches where the optimizers are built: the model is parallelized then (tensor and pipeline
    parallel, activation checkpointing, compiled per block, FSDP) and has not run yet. Every part of
    a pipeline counts its layers by their names. The step is in the optimizer's checkpoint.

    Args:
        spec: one of torchtitan's, or your own.
        schedule: one of `groundup.depth`.
        attach_options: what `groundup.attach` takes besides.

    Raises:
        ValueError: where the optimizers are built, with `optimizer.early_step_in_backward`: there
            is no update of the whole model to follow.
    """

    def build(model_parts: list[nn.Module], *args: Any, **kwargs: Any) -> OptimizersContainer:
        optimizers = spec.build_optimizers_fn(model_parts, *args, **kwargs)
        if len(optimizers) != len(model_parts):
            raise ValueError(
                "optimizer.early_step_in_backward=True is not valid with residual warmup: it has "
                "an optimizer for every parameter, and none whose step is an update of the model"
            )
        for part, optimizer in zip(model_parts, optimizers, strict=True):
            # A part of a pipeline holds some layers, and knows how many there are in all.
            layers = getattr(getattr(part, "model_args", None), "n_layers", None)
            options: dict[str, Any] = {"depth": layers} | attach_options
            warmup = attach(part, schedule, **options).follow(optimizer)
            logger.info(f"residual warmup: {warmup}")
        return optimizers

    return replace(spec, build_optimizers_fn=build)
