"""Vision models of timm."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from tests.residual.zoo.specimen import Specimen, seeded

_SIZES = {
    "img_size": 8,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 5,
}


def _from_timm(
    where: str, model: str, block: str, of_block: dict[str, Any], settings: dict[str, Any]
) -> Callable[[], nn.Module]:
    """Makes a model of random weights; timm is imported when it is called."""

    def build() -> nn.Module:
        import tests.torchvision_shim  # noqa: F401

        module = importlib.import_module(f"timm.models.{where}")
        blocks = {"block_fn": partial(getattr(module, block), **of_block)} if block else {}
        return getattr(module, model)(**_SIZES, **blocks, **settings)

    return build


def _model(
    name: str,
    where: str = "vision_transformer",
    model: str = "VisionTransformer",
    block: str = "",
    of_block: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> Specimen:
    return Specimen(
        name=name,
        library="timm",
        build=_from_timm(where, model, block, of_block or {}, settings or {}),
        inputs=lambda: {"x": seeded(2, 3, 8, 8)},
        stacks={"blocks": 3},
        **more,
    )


SPECIMENS = [
    _model("ViT"),
    _model(
        "ViT with LayerScale",
        settings={"init_values": 0.5},
        gains=lambda block: [block.ls1.gamma, block.ls2.gamma],
        remark="before LayerScale",
    ),
    _model("DeiT", "deit", "VisionTransformerDistilled"),
    _model("ViT, norms after the branches", block="ResPostBlock"),
    _model("ViT, parallel (ViT-22B)", block="ParallelScalingBlock", branches=1),
    _model(
        "ViT, parallel, one projection",
        block="ParallelScalingBlock",
        of_block={"fuse_out_proj": True},
        branches=1,
    ),
    _model("ViT, parallel, differential attention", block="DiffParallelScalingBlock", branches=1),
    _model("ViT, parallel things", block="ParallelThingsBlock", branches=4),
    _model(
        "EVA-02",
        "eva",
        "Eva",
        settings={"init_values": 0.5, "swiglu_mlp": True},
        gains=lambda block: [block.gamma_1, block.gamma_2],
        remark="before LayerScale",
    ),
    _model("EVA, norms after the branches", "eva", "Eva", settings={"use_post_norm": True}),
    _model(
        "BEiT",
        "beit",
        "Beit",
        settings={"init_values": 0.5},
        gains=lambda block: [block.gamma_1, block.gamma_2],
        remark="before LayerScale",
    ),
]
