"""Residual warmup in Hugging Face's Trainer: an import and an argument, marked with <--.

    python examples/hf_trainer.py [--steps 200]  # needs transformers, accelerate

A small Llama learns Python, byte by byte, from the interpreter's own library.
"""

import argparse
import pathlib
import tempfile

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from groundup.integrations.transformers import ResidualWarmup  # <-- 1

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
steps = parser.parse_args().steps
torch.manual_seed(0)
torch.set_num_threads(1)  # more would only wait for each other in a model this small

files = sorted(pathlib.Path(argparse.__file__).parent.glob("*.py"))[:60]
text = torch.tensor(list(b"".join(file.read_bytes() for file in files)))
rows = text[: len(text) // 64 * 64].view(-1, 64)
examples = [{"input_ids": row, "labels": row} for row in rows]

model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
)

with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=8,
            learning_rate=2e-3,
            logging_steps=max(1, steps // 10),
            save_steps=max(1, steps // 8),
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=examples,
        # Without a schedule the length is the advised one: 20% of the steps. Or say it, as in
        # ResidualWarmup(gu.depth.linear(T=1000)).
        callbacks=[ResidualWarmup()],  # <-- 2
    )
    trainer.train()

    # A run that was stopped goes on where it was: α comes back with the optimizer's state.
    checkpoint = f"{folder}/checkpoint-{max(1, steps // 8)}"  # in mid-warmup
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    trainer.train(resume_from_checkpoint=checkpoint)
    again = [row["loss"] for row in trainer.state.log_history if "loss" in row]
print(f"last loss {losses[-1]:.4f}; of the run resumed in mid-warmup: {again[-1]:.4f}")
