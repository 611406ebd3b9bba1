"""What is measured after each epoch: accuracy, dead ReLUs, stable rank and norm of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.measure.activations import RELUS
from groundup.measure.probing import Dead
from groundup.measure.rank import stable_rank

PROBE = 1024
"""Images of the probe set, at most: the first of the training set in its fixed random order."""

_CHUNK = 1000


class Measuring:
    """Measures one model on a probe set and a test set.

    **Batch statistics**†. The norms' running averages lag behind weights that large updates move
    far, which would show as damage that is none. So the model is first run once over the whole
    probe set as one batch, with the norms working as in training; dead ReLUs are counted in that
    forward, and the test images are then normalized by its statistics.

    A unit is a channel of a ReLU, dead if its input is 0 or below at every pixel of every image of
    the probe set. (A leaky unit is never dead, but always on its lower slope: it counts likewise.)

    Args:
        model: on the images' device; its weights now are those that norms are compared with.
        probe: images [n, colours, height, width].
        test: images and labels int64 [n].
    """

    def __init__(self, model: nn.Module, probe: Tensor, test: tuple[Tensor, Tensor]) -> None:
        self._model, self._probe, self._test = model, probe, test
        modules = dict(model.named_modules())
        self.relus = [name for name, module in modules.items() if isinstance(module, RELUS)]
        self.weights = [
            name for name, module in modules.items() if isinstance(module, nn.Conv2d | nn.Linear)
        ]
        self._dead = Dead({name: modules[name] for name in self.relus})
        self._initial = self._norm()

    def __call__(self) -> dict[str, Any]:
        """Test loss and accuracy, ``dead_share`` (of all units; by layer in ``dead_shares``, in
        the order of `relus`), ``stable_rank`` (mean over the layers; ``stable_ranks`` in the order
        of `weights`), and ``weight_norm``, ‖W‖ of all these weights over that at the beginning."""
        with torch.no_grad(), _statistics_of_one_batch(self._model), self._dead.watching():
            self._model(self._probe)
        dead, units = torch.stack([self._dead.counts[name] for name in self.relus]).cpu().T
        ranks = [float(stable_rank(weight)) for weight in self._matrices()]
        loss, accuracy = self._tested()
        return {
            "test_loss": loss,
            "test_accuracy": accuracy,
            "dead_share": float(dead.sum() / units.sum()),
            "dead_shares": (dead / units).tolist(),
            "stable_rank": math.fsum(ranks) / len(ranks),
            "stable_ranks": ranks,
            "weight_norm": self._norm() / self._initial,
        }

    def _tested(self) -> tuple[float, float]:
        loss, right = 0.0, 0
        self._model.eval()
        with torch.no_grad():
            for images, labels in zip(*(part.split(_CHUNK) for part in self._test), strict=True):
                logits = self._model(images)
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
                right += int((logits.argmax(1) == labels).sum())
        self._model.train()
        count = len(self._test[1])
        return loss / count, right / count

    def _matrices(self) -> list[Tensor]:
        # Singular values of matrices this small are faster on a CPU.
        return [self._model.get_parameter(f"{n}.weight").detach().cpu() for n in self.weights]

    def _norm(self) -> float:
        squares = [float(matrix.double().square().sum()) for matrix in self._matrices()]
        return math.sqrt(math.fsum(squares))


@contextmanager
def _statistics_of_one_batch(model: nn.Module) -> Iterator[None]:
    """In training mode, with running averages that forget all but the last batch."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    model.train()
    for norm in norms:
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
