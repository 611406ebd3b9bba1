"""The estimate of a run: parameters, tokens, FLOPs, hours, memory, disk, and what would fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from groundup._check import count, positive, unknown, within
from groundup.model.hugging_face import count as count_parameters
from groundup.train.cost.memory import Memory, Sizes
from groundup.train.parallel.config import ParallelConfig
from groundup.train.recipe import Recipe
from groundup.train.settings import MeasureConfig
from groundup.train.setup import PEAKS, per_process

CHINCHILLA = 20
"""Tokens per parameter that train best for their FLOPs (Hoffmann et al. 2022, arXiv:2203.15556)."""

_OF_LAYERS = ("layers", "attention", "feed-forward")  # kinds of parameters
_DISK = 1e9  # bytes a second
_MOST_GPUS = 1024


@dataclass(frozen=True)
class Device:
    """The GPUs that are paid for.

    Attributes:
        gpus: how many, one process each.
        memory: of each, GiB.
        name: one of groundup.train.setup's table.
        peak: FLOP/s of each, in the precision of the run; None: that of the table.
        utilization: the share of the peak that the model's FLOPs come to.
    """

    gpus: int = 1
    memory: float = 80.0
    name: str = "H100"
    peak: float | None = None
    utilization: float = 0.4

    def __post_init__(self) -> None:
        count("gpus", self.gpus)
        positive("memory", self.memory)
        within("utilization", self.utilization, 0.0, 1.0)
        positive("utilization", self.utilization)
        if self.peak is not None:
            positive("peak", self.peak)
        elif self.name not in PEAKS:
            raise unknown("gpu", self.name, PEAKS)

    @property
    def bytes(self) -> int:
        return int(self.memory * 2**30)

    def peak_of(self, precision: str) -> float | None:
        """FLOP/s; None where the table does not have it."""
        return self.peak or (PEAKS[self.name] if precision == "bf16" else None)


@dataclass(frozen=True)
class Option:
    """A way to train the same: what it changes, the largest micro-batch that fits then (None: not
    even one sequence does), and the memory that this takes, in bytes."""

    name: str
    micro_batch: int | None
    peak: int

    @property
    def fits(self) -> bool:
        return self.micro_batch is not None


@dataclass(frozen=True)
class Estimate:
    """What a recipe costs on a device; FLOPs as `ModelConfig.flops_per_token` counts them."""

    recipe: Recipe
    device: Device
    memory: Memory

    @property
    def fits(self) -> bool:
        return self.memory.peak.total <= self.device.bytes

    @property
    def micro_batch(self) -> int:
        """Sequences in one forward of one process."""
        return self.recipe.train.micro_batch or per_process(self.recipe, self.device.gpus)

    @property
    def tokens(self) -> int:
        return self.recipe.train.steps * self.recipe.tokens_per_step

    @property
    def flops_per_token(self) -> int:
        return self.recipe.model.flops_per_token(self.recipe.data.length)

    @property
    def flops(self) -> int:
        """Of the run, without the layers that it skips while they are dormant."""
        return self.tokens * self.flops_per_token - self._skipped

    @property
    def _skipped(self) -> int:
        recipe, model = self.recipe, self.recipe.model
        if recipe.residual.dormant == "run":
            return 0
        steps = recipe.train.steps
        waits = recipe.residual.resolve(steps).waits(model.layers)
        updates = sum(min(math.ceil(wait), steps) for wait in waits)
        parameters = sum(self.parameters.get(kind, 0) for kind in _OF_LAYERS) // model.layers
        per_token = 6 * parameters + 12 * model.heads * model.head_dim * recipe.data.length
        return updates * recipe.tokens_per_step * per_token

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.recipe.model.parameters()

    @property
    def gpu_hours(self) -> float | None:
        """None where the peak is not known."""
        peak = self.device.peak_of(self.recipe.train.precision)
        return self.flops / (peak * self.device.utilization) / 3600 if peak else None

    @property
    def hours(self) -> float | None:
        return None if self.gpu_hours is None else self.gpu_hours / self.device.gpus

    @cached_property
    def parameters(self) -> dict[str, int]:
        """By kind."""
        model = self.recipe.model
        if model.hf_config:
            there = count_parameters(model)
            return {
                "layers": there.layers,
                "embedding": there.embedding,
                "head": there.head,
                "others": there.others,
            }
        vocabulary = (model.vocab_size or 0) * model.width
        found = {
            "embedding": vocabulary,
            "attention": model.layers * 2 * model.width * (model.width + model.key_value_width),
            "feed-forward": model.layers * 3 * model.width * model.feed_forward_width,
            "head": 0 if model.tied else vocabulary,
            "gains": model.layers * model.gains,
        }
        return found | {"norms": model.parameters() - sum(found.values())}

    @property
    def checkpoint(self) -> int:
        """Bytes of one checkpoint: weights and optimizer state."""
        return self.memory.sizes.weights + self.memory.sizes.state

    @property
    def checkpoints(self) -> int:
        """How many there are at the end: the last ones, and those that are kept for good."""
        train = self.recipe.train
        written = {*range(train.checkpoint_every, train.steps + 1, train.checkpoint_every)}
        written.add(train.steps)
        last = set(sorted(written)[-train.keep :])
        always = {n for n in written if train.keep_every and n % train.keep_every == 0}
        return len(last | always)

    @property
    def checkpoint_seconds(self) -> float:
        """To write one, at 1 GB a second in all."""
        return self.checkpoint / _DISK

    @property
    def token_file(self) -> int:
        """Bytes of a token file in which no token of the run comes twice."""
        return self.tokens * (2 if (self.recipe.model.vocab_size or 0) <= 2**16 else 4)

    # ------------------------------------------------------------------ what would fit

    @property
    def worth_telling(self) -> list[Option]:
        """The recipe as it is, and of the others those that fit where it does not, or that allow
        larger micro-batches."""
        first, *others = self.options
        best = first.micro_batch or 0
        return [first, *(o for o in others if (o.micro_batch or 0) > best)]

    @cached_property
    def options(self) -> list[Option]:
        """The recipe as it is and what saves memory, each with the largest micro-batch that fits;
        where nothing does, the same without measuring, and more GPUs."""
        found: list[Option] = []
        for recipe in self._measuring_or_not():
            found += [self._option(name, changed) for name, changed in self._changes(recipe)]
            if any(option.fits for option in found):
                return found
        return found + [option for option in self._more_gpus() if option.fits][:1]

    def _measuring_or_not(self) -> Iterator[Recipe]:
        yield self.recipe
        if self.recipe.measure.every:
            yield replace(self.recipe, measure=MeasureConfig(every=0))

    def _changes(self, recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
        silent = "" if recipe is self.recipe else "measure.every=0"
        yield silent or "as it is", recipe
        spreads: list[tuple[str, dict[str, Any]]] = [("", {})]
        if self.device.gpus > 1 and recipe.parallel.mode != "fsdp":
            spreads.append(("parallel.mode=fsdp", {"mode": "fsdp"}))
        bf16 = {"mode": "fsdp", "gather": "bf16", "reduce": "bf16"}
        now = recipe.parallel
        if self.device.gpus > 1 and recipe.train.precision == "bf16" and now.gather != "bf16":
            spreads.append(("parallel.mode=fsdp, gather and reduce=bf16", bf16))
        ways: list[Literal["none", "ops", "full"]] = ["none", "ops", "full"]
        for spread, fields in spreads:
            parallel = replace(now, **fields)
            for way in ways[ways.index(recipe.train.recompute) :]:
                if not spread and way == recipe.train.recompute:
                    continue
                train = replace(recipe.train, recompute=way)
                again = f"train.recompute={way}" if way != recipe.train.recompute else ""
                name = ", ".join(filter(None, [spread, again, silent]))
                yield name, replace(recipe, train=train, parallel=parallel)

    def _sizes(self, recipe: Recipe) -> Sizes:
        """Nothing of them changes with recompute or micro-batches, but FSDP has its own kernels."""
        same = recipe.parallel.mode == self.recipe.parallel.mode
        return self.memory.sizes if same else self._sizes_sharded

    @cached_property
    def _sizes_sharded(self) -> Sizes:
        return Sizes.of(replace(self.recipe, parallel=ParallelConfig(mode="fsdp")))

    def _more_gpus(self) -> Iterator[Option]:
        most = [list(self._changes(recipe))[-1] for recipe in self._measuring_or_not()]
        gpus = 2 * self.device.gpus
        while gpus <= _MOST_GPUS and self.recipe.train.batch % gpus == 0:
            for name, changed in most:
                sharded = replace(changed, parallel=replace(changed.parallel, mode="fsdp"))
                mode = "" if changed.parallel.mode == "fsdp" else "parallel.mode=fsdp"
                said = "" if changed is self.recipe else name
                yield self._option(
                    ", ".join(filter(None, [f"{gpus} GPUs", mode, said])), sharded, gpus
                )
            gpus *= 2

    def _option(self, name: str, recipe: Recipe, gpus: int | None = None) -> Option:
        gpus = gpus or self.device.gpus
        rows = recipe.train.batch // gpus
        sizes = self._sizes(recipe)
        peak = 0
        for micro in (n for n in range(rows, 0, -1) if rows % n == 0):
            train = replace(recipe.train, micro_batch=micro)
            changed = replace(recipe, train=train)
            peak = Memory(changed, gpus, sizes).peak.total
            if peak <= self.device.bytes:
                return Option(name, micro, peak)
        return Option(name, None, peak)


def estimate(recipe: Recipe, device: Device) -> Estimate:
    """What `recipe` costs on `device`.

    Raises:
        ValueError: for what training would refuse with so many processes, and where the vocabulary
            is not known.
    """
    recipe = with_known_size(recipe)
    recipe.parallel.check(device.gpus, recipe.train.precision)
    per_process(recipe, device.gpus)
    return Estimate(recipe, device, Memory(recipe, device.gpus, Sizes.of(recipe)))


def with_known_size(recipe: Recipe) -> Recipe:
    """The recipe with a vocabulary for its model: that of the tokenizer that is to be trained.

    Raises:
        ValueError: if the tokenizer is somebody else's.
    """
    if recipe.model.vocab_size is not None:
        return recipe
    if recipe.data.tokenizer != "train":
        raise ValueError(
            f"model.vocab_size is not known: data.tokenizer={recipe.data.tokenizer!r} brings it. "
            "Say how many tokens it has with --model.vocab-size"
        )
    return replace(recipe, model=replace(recipe.model, vocab_size=recipe.data.vocab_size))
