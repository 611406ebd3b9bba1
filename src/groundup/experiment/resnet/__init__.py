"""A ResNet-20, and what large initial updates do to it.

After Kosson, Messmer and Jaggi (NeurIPS 2024, arXiv:2410.23922), of which only the abstract and
summaries were at hand: large initial updates kill ReLUs in a ResNet-20 and the damage lasts, less
with leaky ReLU, frozen biases or random initial gradients. What is marked † is derived here.

Needs no torch until something is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup._lazy import lazily

if TYPE_CHECKING:
    from groundup.experiment.resnet.config import ResNetRun
    from groundup.experiment.resnet.images import Images, load_images
    from groundup.experiment.resnet.model import ResNet20
    from groundup.experiment.resnet.plan import ResNetArm, configurations, study_arms
    from groundup.experiment.resnet.training import train_resnet

_HOMES = {
    "Images": "images",
    "ResNet20": "model",
    "ResNetArm": "plan",
    "ResNetRun": "config",
    "configurations": "plan",
    "load_images": "images",
    "study_arms": "plan",
    "train_resnet": "training",
}

__all__ = [
    "Images",
    "ResNet20",
    "ResNetArm",
    "ResNetRun",
    "configurations",
    "load_images",
    "study_arms",
    "train_resnet",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
