"""Residual warmup in a loop with Hugging Face Accelerate: the two lines are marked with <--.

    python examples/accelerate_loop.py [--steps 200]  # needs accelerate, transformers
    accelerate launch examples/accelerate_loop.py

A small Qwen 3 learns Python, byte by byte, from the interpreter's own library.
"""

import argparse
import pathlib
import tempfile

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import Qwen3Config, Qwen3ForCausalLM

import groundup as gu

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=200)
steps = parser.parse_args().steps
torch.manual_seed(0)
torch.set_num_threads(1)  # more would only wait for each other in a model this small

files = sorted(pathlib.Path(argparse.__file__).parent.glob("*.py"))[:60]
text = torch.tensor(list(b"".join(file.read_bytes() for file in files)))
rows = text[: len(text) // 64 * 64].view(-1, 64)

accelerator = Accelerator(gradient_accumulation_steps=2)
model = Qwen3ForCausalLM(
    Qwen3Config(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
    )
)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
loader = DataLoader(rows, batch_size=8, shuffle=True)  # type: ignore[arg-type]
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

warmup = gu.attach(model, gu.depth.linear(fraction=0.2, steps=steps))  # <-- 1
warmup.follow(optimizer)  # <-- 2: it counts updates, however many batches make one


def train(until: int) -> None:
    while True:
        for batch in loader:
            if warmup.updates == until:
                return
            with accelerator.accumulate(model):
                loss = model(input_ids=batch, labels=batch).loss
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if accelerator.sync_gradients and warmup.updates % max(1, steps // 10) == 0:
                awake = int((warmup.alphas() == 1).sum())
                accelerator.print(
                    f"update {warmup.updates:4}   loss {loss.item():.3f}   "
                    f"layers at α = 1: {awake} of {warmup.depth}"
                )


with tempfile.TemporaryDirectory() as folder:
    train(steps // 10)
    accelerator.save_state(folder)  # the optimizer's state carries the step
    train(steps // 5)
    accelerator.load_state(folder)
    accelerator.print(f"loaded: back at update {warmup.updates}")
    train(steps)
