"""Trainer of Hugging Face transformers with its stock LlamaForCausalLM."""

from __future__ import annotations

from typing import Any

from peers import BETAS, CLIP, DECAY, RATE, STEPS, Task, Updated

ABOUT = "transformers.Trainer, LlamaForCausalLM: sdpa, fused AdamW, no logging, no saving"
OPTIONS = ("compiled",)


def train(task: Task, updated: Updated) -> None:
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    rows = task.rows().reshape(-1, task.length + 1)

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, Any]:
            row = torch.from_numpy(rows[index].astype("int64"))
            targets = row[1:]  # as many as we learn from: not those that the model would shift
            return {"input_ids": row[:-1], "labels": targets, "shift_labels": targets}

    class InOrder(Trainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            self.last = super().training_step(*args, **kwargs)
            return self.last

    class Tell(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            updated(trainer.last)

    settings = TrainingArguments(
        output_dir=task.folder,
        per_device_train_batch_size=task.batch,
        max_steps=STEPS,
        bf16=task.precision == "bf16",
        tf32=None,
        optim="adamw_torch_fused",
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=DECAY,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        max_grad_norm=CLIP,
        torch_compile=task.has("compiled"),
        use_cpu=task.device == "cpu",
        dataloader_pin_memory=task.device == "cuda",
        remove_unused_columns=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,  # it would wait for the loss at every update
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    trainer = InOrder(model(task), settings, train_dataset=Rows(), callbacks=[Tell()])
    trainer.train()


def model(task: Task) -> Any:
    """LlamaForCausalLM with our weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from groundup.model.families import family_of

    config = task.config
    family = family_of(config)
    sizes = family.settings(config) | {
        "max_position_embeddings": task.length,
        "use_cache": False,
        "attn_implementation": "sdpa",
    }
    with torch.device("meta"):
        found = LlamaForCausalLM(LlamaConfig(**sizes))
    found = found.to_empty(device="cpu")
    weights = task.weights()
    names = family.names(config, weights)
    found.load_state_dict({names[name]: value for name, value in weights.items()})
    rotary = found.model.rotary_emb  # what it is not told, it computes when it is built
    found.model.rotary_emb = type(rotary)(found.config)
    return found
