"""Residual warmup in a training loop of your own: the two lines are marked with <--.

    python examples/plain_pytorch.py [--steps 300]

A small language model of bytes learns Python from the interpreter's own library.
"""

import argparse
import pathlib

import torch
import torch.nn.functional as F
from torch import nn

import groundup as gu

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300)
steps = parser.parse_args().steps
torch.manual_seed(0)
torch.set_num_threads(1)  # more would only wait for each other in a model this small

files = sorted(pathlib.Path(argparse.__file__).parent.glob("*.py"))[:60]
text = torch.tensor(list(b"".join(file.read_bytes() for file in files)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.wo = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.w1, self.w2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3 * self.heads, -1)).chunk(3, dim=-2)
        heads = (part.transpose(1, 2) for part in (q, k, v))
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.wo(mixed.transpose(1, 2).flatten(2))
        return x + self.w2(F.gelu(self.w1(self.norm2(x))))


class Model(nn.Module):
    def __init__(self, layers: int = 6, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.positions = nn.Parameter(0.02 * torch.randn(64, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

# What ends each residual branch, the last operation before the addition: wo and w2.
schedule = gu.depth.linear(fraction=0.2, steps=steps)
warmup = gu.attach(model, schedule, branches=["blocks.{l}.wo", "blocks.{l}.w2"])  # <-- 1
warmup.follow(optimizer)  # <-- 2

for step in range(steps):
    starts = torch.randint(len(text) - 65, (8,))
    rows = torch.stack([text[start : start + 65] for start in starts])
    loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % max(1, steps // 10) == 0 or step == steps - 1:
        alphas = " ".join(f"{alpha:.2f}" for alpha in warmup.alphas())
        print(f"step {step:4}   loss {loss.item():.3f}   α of layers 1 to 6 now: {alphas}")

stock = Model()
stock.load_state_dict(model.state_dict())  # α is 1 everywhere: nothing of the warmup is left
assert torch.equal(stock(rows[:, :-1]), model(rows[:, :-1]))
print(f"warmup finished: {warmup.finished}; a stock model with these weights computes the same")
