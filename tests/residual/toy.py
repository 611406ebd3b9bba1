"""A little Pre-LN network that knows nothing of groundup."""

import torch
from torch import nn

PATTERNS = ["layers.{l}.mix.out", "layers.{l}.mlp.2"]


class Mix(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inp = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.inp(x).tanh())


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.mix = Mix(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mix(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Net(nn.Module):
    def __init__(self, width: int = 8, layers: int = 4) -> None:
        super().__init__()
        self.stem = nn.Linear(width, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.layers:
            x = block(x)
        return x


def reference(net: Net, x: torch.Tensor, alphas: list[float]) -> torch.Tensor:
    """The same network with α written out."""
    x = net.stem(x)
    for block, alpha in zip(net.layers, alphas, strict=True):
        x = x + alpha * block.mix.out(block.mix.inp(block.norm1(x)).tanh())
        x = x + alpha * block.mlp[2](block.mlp[1](block.mlp[0](block.norm2(x))))
    return x
