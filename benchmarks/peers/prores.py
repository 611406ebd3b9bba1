"""The program of the paper on residual warmup (arXiv:2603.05369, github.com/dandingsky/ProRes).

Its model, and in a plain loop what its program does in an update: it reads loss and gradient norm
each time, and sets α. Its program as it is wants GPUs, wandb and C4; it also keeps weights and
optimizer state in bf16, which is another precision than here.
"""

from __future__ import annotations

import os
from typing import Any

from peers import STEPS, NotHere, Task, Updated, loop

ABOUT = "the authors' Llama in a plain loop, fused AdamW; loss and gradient norm read each update"
OPTIONS = ("warmup",)


def train(task: Task, updated: Updated) -> None:
    import numpy as np

    os.environ["NORM_TYPE"] = "pre_prores" if task.has("warmup") else "pre"
    if task.path is None:
        raise NotHere("--peer prores=FOLDER of its repository")
    import torch
    from peft_pretraining.modeling_llama import LlamaForCausalLM
    from transformers import LlamaConfig

    from groundup.model.families import family_of

    config = task.config
    family = family_of(config)
    sizes = family.settings(config) | {"max_position_embeddings": task.length, "use_cache": False}
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes))
    weights = task.weights()
    names = family.names(config, weights)
    model.load_state_dict({names[name]: value for name, value in weights.items()}, strict=False)
    lengths = np.linspace(STEPS // config.layers, STEPS, config.layers)

    def after(update: int, loss: Any, norm: Any) -> None:
        loss.item()
        norm.item()
        if task.has("warmup"):
            for layer, alpha in zip(
                model.model.layers, np.clip((update + 1) / lengths, 0, 1), strict=True
            ):
                layer.alpha = alpha

    def loss_of(inputs: Any, targets: Any) -> Any:
        logits = model(input_ids=inputs).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    loop.train(model, loss_of, task, updated, after)
