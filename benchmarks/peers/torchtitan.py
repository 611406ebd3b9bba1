"""torchtitan's llama3 model (github.com/pytorch/torchtitan, as of 0.2), compiled as it does it.

Its trainer wants GPUs and a process group; here its model and loss are in a plain loop.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from peers import Task, Updated, loop

ABOUT = "torchtitan's llama3 and loss, compiled block by block; in a plain loop with fused AdamW"
OPTIONS = ("compiled",)


def train(task: Task, updated: Updated) -> None:
    import torch

    if importlib.util.find_spec("triton") is None:
        _without_triton()
    from torchtitan.components.loss import cross_entropy_loss
    from torchtitan.models.llama3.model import model as llama3
    from torchtitan.models.llama3.model.args import RoPEScalingArgs, TransformerModelArgs

    its = task.config
    inner = its.feed_forward_width
    settings = TransformerModelArgs(
        dim=its.width,
        n_layers=its.layers,
        n_heads=its.heads,
        vocab_size=its.vocab_size,
        multiple_of=inner,  # the inner size is rounded up to it from 8/3 of the width
        ffn_dim_multiplier=0.5,
        norm_eps=its.norm_eps,
        rope_theta=its.rope_theta,
        rope_scaling_args=RoPEScalingArgs(scaling_factor=1.0),
        max_seq_len=task.length,
    )
    model = llama3.Transformer(settings)
    model.load_state_dict(_renamed(task), strict=False)
    loss = cross_entropy_loss
    if task.has("compiled"):
        for layer, block in model.layers.named_children():
            model.layers.register_module(layer, torch.compile(block, fullgraph=True))
        loss = torch.compile(loss)
    tokens = task.batch * task.length
    loop.train(model, lambda inputs, targets: loss(model(inputs), targets) / tokens, task, updated)


def _without_triton() -> None:
    """Its mixtures of experts have kernels that need it; a dense model calls none of them."""
    name = "torchtitan.models.moe.kernels"
    kernels: Any = types.ModuleType(name)
    kernels.generate_permute_indices = None
    sys.modules[name] = kernels


def _renamed(task: Task) -> dict[str, Any]:
    """Our weights under its names; its rotary pairs stand side by side."""
    ours = task.weights()
    heads = task.config.heads
    found = {
        "tok_embeddings.weight": ours["embedding.weight"],
        "norm.weight": ours["norm.weight"],
        "output.weight": ours["head.weight"],
    }
    for layer in range(task.config.layers):
        for theirs, name in _NAMES.items():
            weight = ours[f"layers.{layer}.{name}.weight"]
            if theirs in ("attention.wq", "attention.wk"):
                rows, width = weight.shape
                pairs = weight.view(heads, 2, rows // heads // 2, width)
                weight = pairs.transpose(1, 2).reshape(rows, width)
            found[f"layers.{layer}.{theirs}.weight"] = weight
    return found


_NAMES = {
    "attention_norm": "attention.norm",
    "attention.wq": "attention.branch.query",
    "attention.wk": "attention.branch.key",
    "attention.wv": "attention.branch.value",
    "attention.wo": "attention.branch.output",
    "ffn_norm": "feed_forward.norm",
    "feed_forward.w1": "feed_forward.branch.gate",
    "feed_forward.w3": "feed_forward.branch.up",
    "feed_forward.w2": "feed_forward.branch.down",
}
