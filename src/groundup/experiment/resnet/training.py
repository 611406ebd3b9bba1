"""One run of the study: from a configuration to metrics.jsonl and summary.json."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from groundup._atomic import atomic_write, naming
from groundup._json import parse
from groundup.experiment.resnet import phase
from groundup.experiment.resnet.config import OPTIMIZERS, ResNetRun
from groundup.experiment.resnet.images import Images, load_images
from groundup.experiment.resnet.measuring import PROBE, Measuring
from groundup.experiment.resnet.model import seeded
from groundup.optim.grouping import groups
from groundup.optim.rate.scheduling import schedule
from groundup.schedules import factor
from groundup.train.setup import hardware
from groundup.train.summary import versions

Line = dict[str, Any]


def train_resnet(
    config: ResNetRun,
    folder: Path,
    watch: Callable[[Line], None] | None = None,
    device: str | torch.device | None = None,
) -> dict[str, Any]:
    """Train one ResNet-20 and measure it after each epoch; what the summary says.

    `folder` gets ``metrics.jsonl``, one object an epoch, the one before the first update included
    (`Measuring` says what is in it; besides ``epoch``, ``step``, the updates made, and
    ``train_loss``, the mean over the epoch's batches, null at first), and at the end
    ``summary.json``: status, configuration, the last line's numbers and those after the phase.
    The status is ``finished``, or ``diverged`` where the training loss, a weight or the test loss
    was not finite: such a run ends with that epoch, whose ``test_loss`` is null, and its summary
    has the last numbers that there were. A folder with a summary is taken over; without one the run
    begins anew.

    Args:
        config: what to train.
        folder: made if it is not there.
        watch: called with every line as it is written.
        device: a GPU where there is one, unless given.

    Raises:
        ValueError: if the folder holds a run of another configuration (naming the first field
            that differs) or a damaged summary, or the data cannot be had.
    """
    found = _finished(config, folder)
    if found is not None:
        return found
    begun = time.monotonic()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    run = _Run(config, load_images(config.data).to(place), place)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "metrics.jsonl"
    lines: list[Line] = []
    with naming(path), open(path, "w", encoding="utf-8") as file:
        for line in run.lines():
            file.write(json.dumps(line) + "\n")
            file.flush()
            lines.append(line)
            if watch is not None:
                watch(line)
    summary = _summary(config, run, lines) | {
        "wall_seconds": round(time.monotonic() - begun, 2),
        "device": place.type,
        "hardware": hardware(place),
        "versions": versions(),
    }
    atomic_write(folder / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def _finished(config: ResNetRun, folder: Path) -> dict[str, Any] | None:
    path = folder / "summary.json"
    if not path.exists():
        return None
    try:
        summary = parse(path.read_bytes())
        there = summary["configuration"]
        other = [n for n, v in asdict(config).items() if there[n] != v]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r:.200}): use another folder") from None
    if other:
        name = other[0]
        raise ValueError(
            f"{name}={getattr(config, name)!r} is not valid: {folder} holds a finished run with "
            f"{name}={there[name]!r}; use another folder"
        )
    return summary


class _Run:
    """The model, its optimizer and what they are given."""

    def __init__(self, config: ResNetRun, images: Images, device: torch.device) -> None:
        self.config, self.images = config, images
        self.arm = phase.arm(config.arm)
        model = seeded(
            config.seed, images.train.shape[1], images.classes, config.width, self.arm.activation
        )
        self.model = model.to(device)
        self.parameters = sum(p.numel() for p in model.parameters())
        updates = images.updates(config.batch)
        self._in_phase = config.phase * updates
        self._optimizer = _OPTIMIZERS[config.optimizer](
            groups(self.model, config.weight_decay), config.rate
        )
        # The updates of the phase times the scale, all of them along half a cosine.
        course = factor.constant(self._in_phase, config.scale) * factor.decay("cosine")
        self._rate = schedule(self._optimizer, course, steps=config.epochs * updates)
        self._generator = phase.generator_of(config.seed, device)
        self.measuring = Measuring(
            self.model, images.train[:PROBE], (images.test, images.test_labels)
        )
        self._step = 0

    def lines(self) -> Iterator[Line]:
        """One for each epoch, as it ends; a last one of nulls where training broke down."""
        yield self._line(0, None)
        for epoch in range(1, self.config.epochs + 1):
            loss = self._train(epoch - 1)
            line = self._line(epoch, loss)
            yield line
            if line["test_loss"] is None:
                return

    def _line(self, epoch: int, train_loss: float | None) -> Line:
        head = {"epoch": epoch, "step": self._step, "train_loss": train_loss}
        sound = all(bool(p.isfinite().all()) for p in self.model.parameters())
        if not sound or not (train_loss is None or math.isfinite(train_loss)):
            return head | {"train_loss": None, "test_loss": None}
        measured = self.measuring()
        finite = math.isfinite(measured["test_loss"])
        return head | (measured if finite else {"test_loss": None})

    def _train(self, epoch: int) -> float:
        config, losses = self.config, []
        self.model.train()
        for images, labels in self.images.epoch(config.batch, (config.seed, epoch), config.augment):
            loss = F.cross_entropy(self.model(images), labels)
            self._optimizer.zero_grad()
            loss.backward()
            if self._step < self._in_phase:
                self.arm.intervene(self.model, self._generator)
            self._optimizer.step()
            self._rate.step()
            self._step += 1
            losses.append(loss.detach())
        return float(torch.stack(losses).double().mean())


def _sgd(parameters: Any, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, rate, momentum=0.9)


_OPTIMIZERS: dict[str, Callable[[Any, float], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adamw": torch.optim.AdamW,
}
assert tuple(_OPTIMIZERS) == OPTIMIZERS

_OF_BOTH = ("test_accuracy", "test_loss", "dead_share", "stable_rank", "weight_norm")


def _summary(config: ResNetRun, run: _Run, lines: list[Line]) -> dict[str, Any]:
    sound = [line for line in lines if line["test_loss"] is not None]
    last, after = sound[-1], sound[min(config.phase, len(sound) - 1)]
    diverged = len(sound) < len(lines)
    return {
        "variant": config.variant,
        "arm": config.arm,
        "scale": config.scale,
        "seed": config.seed,
        "status": "diverged" if diverged else "finished",
        "epochs": last["epoch"],
        "steps": last["step"],
        "parameters": run.parameters,
        "train_loss": last["train_loss"],
        "test_error": 1.0 - last["test_accuracy"],
        **{name: last[name] for name in _OF_BOTH},
        **{f"{name}_after_phase": after[name] for name in _OF_BOTH},
        "relus": run.measuring.relus,
        "weights": run.measuring.weights,
        "configuration": asdict(config),
    }
