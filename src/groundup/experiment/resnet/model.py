"""The ResNet-20 for CIFAR of He et al. 2016 (arXiv:1512.03385, Section 4.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup._check import count

BLOCKS = 3
"""Of each of the three stages; 6·3 + 2 = 20 layers with weights."""

Activation = Callable[[], nn.Module]


class Block(nn.Module):
    """relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x)))))), convolutions 3×3 without biases.

    The shortcut has no parameters ("option A"): where the block halves the image it takes every
    second pixel of each row and column, and the new channels are 0.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, activation: Activation):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = activation()
        self.stride, self.new = stride, channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        branch = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new:
            x = F.pad(x, (0, 0, 0, 0, 0, self.new))
        return self.act2(x + branch)


class ResNet20(nn.Module):
    """Images [N, colours, H, W] to logits [N, classes]; height and width of any size from 4.

    Three stages of three blocks with `width`, 2·`width` and 4·`width` channels, the second and
    third beginning with a stride of 2, then the mean over the image and a linear layer. With
    three colours, ten classes and width 16 there are 269,722 parameters (0.27M as published).

    Weights are drawn from N(0, 2/fan_in) (He et al. 2015), whatever the activation, so that arms
    share them; the norms' gains begin at 1, and all biases at 0. **The only biases are the shifts
    of the batch norms and the classifier's**: it is these that "frozen biases" freezes†.
    """

    def __init__(
        self,
        colours: int = 3,
        classes: int = 10,
        width: int = 16,
        activation: Activation = nn.ReLU,
    ):
        super().__init__()
        count("width", width)
        self.conv = nn.Conv2d(colours, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.act = activation()
        self.blocks = nn.Sequential()
        channels = width
        for stage in range(3):
            for block in range(BLOCKS):
                stride = 2 if stage and not block else 1
                self.blocks.append(Block(channels, width << stage, stride, activation))
                channels = width << stage
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.act(self.bn(self.conv(x))))
        return self.classifier(x.mean((2, 3)))


def biases(model: nn.Module) -> list[nn.Parameter]:
    """All parameters that are added rather than multiplied: those named ``bias``."""
    return [p for name, p in model.named_parameters() if name.rpartition(".")[2] == "bias"]


def seeded(seed: int, colours: int, classes: int, width: int, activation: Activation) -> ResNet20:
    """The model with the initial weights of `seed`; torch's own random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet20(colours, classes, width, activation)
