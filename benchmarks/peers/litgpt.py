"""litgpt's pretraining (github.com/Lightning-AI/litgpt): its GPT as a Llama, its `fit`, Fabric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peers import BETAS, CLIP, DECAY, RATE, STEPS, Task, Updated

ABOUT = "litgpt.pretrain.fit with Fabric, its GPT as a Llama; fused AdamW on a CPU, too"
OPTIONS = ("compiled",)


def train(task: Task, updated: Updated) -> None:
    import lightning
    import torch
    from litgpt import pretrain
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.config import Config
    from litgpt.model import GPT

    its = task.config
    config = Config(
        name="throughput",
        block_size=task.length,
        vocab_size=its.vocab_size,
        padded_vocab_size=its.vocab_size,
        n_layer=its.layers,
        n_head=its.heads,
        n_embd=its.width,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=its.norm_eps,
        mlp_class_name="LLaMAMLP",
        intermediate_size=its.feed_forward_width,
        rope_base=int(its.rope_theta),
    )
    precision = "bf16-mixed" if task.precision == "bf16" else "32-true"
    fabric = lightning.Fabric(devices=1, accelerator=task.device, precision=precision)
    fabric.launch()
    model: Any = GPT(config)
    model.load_state_dict(_renamed(task))
    if task.has("compiled"):
        model = torch.compile(model)
    model = fabric.setup(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True
    )
    optimizer = fabric.setup_optimizers(optimizer)
    last: list[Any] = [None]
    backward = fabric.backward

    def noted(loss: Any, *given: Any, **more: Any) -> None:
        last[0] = loss.detach()
        backward(loss, *given, **more)

    fabric.backward = noted  # type: ignore[method-assign]
    rows = torch.from_numpy(task.rows().reshape(-1, task.length + 1).astype("int64"))
    loader = torch.utils.data.DataLoader(
        rows, batch_size=task.batch, pin_memory=task.device == "cuda"
    )
    loader = fabric.setup_dataloaders(loader)
    optimizer.optimizer.register_step_post_hook(lambda *_: updated(last[0]))
    state = {
        "model": model,
        "optimizer": optimizer,
        "train_dataloader": loader,
        "iter_num": 0,
        "step_count": 0,
    }
    pretrain.validate = lambda *_, **__: torch.zeros(())  # it does so before the first update
    pretrain.fit(
        fabric=fabric,
        devices=1,
        state=state,
        train_dataloader=loader,
        val_dataloader=None,
        out_dir=Path(task.folder),
        tokenizer_dir=None,
        train=TrainArgs(
            global_batch_size=task.batch,
            micro_batch_size=task.batch,
            max_tokens=STEPS * task.batch * task.length,
            max_norm=CLIP,
            min_lr=RATE,
            lr_warmup_steps=1,
            log_interval=STEPS,
            save_interval=None,
        ),
        eval=EvalArgs(interval=STEPS, initial_validation=False, final_validation=False),
    )


def _renamed(task: Task) -> dict[str, Any]:
    """Our weights under its names; queries, keys and values are one matrix."""
    import torch

    ours = task.weights()
    found = {
        "transformer.wte.weight": ours["embedding.weight"],
        "transformer.ln_f.weight": ours["norm.weight"],
        "lm_head.weight": ours["head.weight"],
    }
    for layer in range(task.config.layers):
        here, there = f"layers.{layer}.", f"transformer.h.{layer}."
        attention = here + "attention.branch."
        parts = [ours[f"{attention}{name}.weight"] for name in ("query", "key", "value")]
        found[f"{there}attn.qkv.weight"] = torch.cat(parts)
        for theirs, name in _NAMES.items():
            found[f"{there}{theirs}.weight"] = ours[f"{here}{name}.weight"]
    return found


_NAMES = {
    "norm_1": "attention.norm",
    "attn.proj": "attention.branch.output",
    "norm_2": "feed_forward.norm",
    "mlp.fc_1": "feed_forward.branch.gate",
    "mlp.fc_2": "feed_forward.branch.up",
    "mlp.proj": "feed_forward.branch.down",
}
