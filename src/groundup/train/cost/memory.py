"""Memory of one GPU, by kind, at the moments of an update at which it may be fullest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from groundup.model.kinds import kind_of
from groundup.optim.table import info
from groundup.train.cost.activations import Activations
from groundup.train.cost.head import HeadCost
from groundup.train.cost.state import OptimizerCost, nbytes
from groundup.train.parallel.config import ParallelConfig
from groundup.train.recipe import Recipe
from groundup.train.setup import per_process

_BYTES = {"float32": 4, "bf16": 2}
MEASURED = "a measured update"
"""The name of the moment at which [measure] looks."""

CONTEXT = int(0.6 * 2**30)
"""Assumed for CUDA's context, its libraries' workspaces and NCCL."""


@dataclass(frozen=True)
class Moment:
    """What there is at one moment: kind → bytes."""

    name: str
    kinds: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.kinds.values())


@dataclass(frozen=True)
class Sizes:
    """Bytes, of all processes together.

    Attributes:
        weights, layer: of the model, of one layer, in float32.
        ends: of what is in no layer: embedding, last norm, head.
        embedding: of the input embedding, if it is not the head too.
        matrices, layer_matrices: of what products take (not norms, not a look-up).
        largest: of the largest weight.
        state: what the optimizer keeps.
        update: what the optimizer takes besides in an update, as a share of the weights, …
        update_once: … and of the largest weight.
    """

    weights: int
    layer: int
    ends: int
    embedding: int
    matrices: int
    layer_matrices: int
    largest: int
    state: int
    update: float
    update_once: float

    @classmethod
    def of(cls, recipe: Recipe) -> Sizes:
        """Those of a recipe that says `model.vocab_size`."""
        with torch.device("meta"):
            model = kind_of(recipe.model).make(recipe.model)
        layer = model.layers[0]
        inside = {id(p) for p in model.layers.parameters()}
        ends = [p for p in model.parameters() if id(p) not in inside]
        looked_up = 0 if model.head is None else nbytes(model.embedding.parameters())
        plain = info(recipe.optimizer.name).fused == "plain"
        optimizer = OptimizerCost.of(recipe, fused=not (plain and recipe.parallel.mode == "fsdp"))
        return cls(
            weights=nbytes(model.parameters()),
            layer=nbytes(layer.parameters()),
            ends=nbytes(ends),
            embedding=looked_up,
            matrices=_matrices(model.parameters()) - looked_up,
            layer_matrices=_matrices(layer.parameters()),
            largest=max(nbytes([p]) for p in model.parameters()),
            state=optimizer.state(model),
            update=optimizer.scratch,
            update_once=optimizer.scratch_once,
        )


def _matrices(parameters: Iterable[nn.Parameter]) -> int:
    return nbytes(p for p in parameters if p.ndim == 2)


@dataclass(frozen=True)
class Memory:
    """What a process of a run holds, of `size` in all.

    Args:
        recipe: with `model.vocab_size`.
        size: processes, one GPU each.
        sizes: of its weights and of what its optimizer takes.
        fused_norms, context, device: of the device and its type; see `Activations`, `CONTEXT`,
            `HeadCost`.
    """

    recipe: Recipe
    size: int
    sizes: Sizes
    fused_norms: bool = True
    context: int = CONTEXT
    device: str = "cuda"

    @property
    def peak(self) -> Moment:
        """The moment at which there is most."""
        return max(self.moments, key=lambda moment: moment.total)

    @cached_property
    def moments(self) -> list[Moment]:
        """In the order of an update; kinds that take nothing are left out."""
        found = [
            Moment("end of the forward", self._forward),
            Moment("start of the backward", self._backward),
            Moment("end of the backward", self._backward_end),
            Moment("update", self._update),
        ]
        if self.recipe.measure.every:
            found.append(Moment(MEASURED, self._measured))
        return [Moment(m.name, {k: v for k, v in m.kinds.items() if v}) for m in found]

    @property
    def on_host(self) -> int:
        """Bytes that parallel.offload keeps in the memory of the CPU, for each process."""
        if not self._offloaded:
            return 0
        return (2 * self.sizes.weights + self.sizes.state) // self._shards

    # ------------------------------------------------------------------ moments

    @property
    def _forward(self) -> dict[str, int]:
        found = self._standing | self._passing
        found["weights in bf16"] = self._casts(self._cached)
        found["activations"] = self._kept
        found["head and loss"] = self._head.forward
        return found

    @property
    def _backward(self) -> dict[str, int]:
        found = self._standing | self._passing
        # A head without whole logits has its weight's gradient already, and needs no cast.
        done = 0 if self.recipe.model.hf_config else self._head_weight
        found["weights in bf16"] = self._casts(self._saved - done)
        found["activations"] = self._kept
        found["head and loss"] = self._head.backward
        inside = self._of_tokens(self._activations.inside) + self._casts(self._again)
        # When the loss is done with, the last layer's backward begins.
        gradient = self._head_weight
        if gradient + inside > found["head and loss"]:
            found["head and loss"] = gradient
            found["backward of a layer"] = inside
        return found

    @property
    def _backward_end(self) -> dict[str, int]:
        found = self._standing | self._passing
        # Gradients of all but the first layer and the embedding; with the activations of one layer.
        sizes = self.sizes
        if not self._accumulates and not self._held:
            missing = sizes.layer + sizes.embedding
            found["gradients"] = self._part(sizes.weights - missing)
        found["weights in bf16"] = self._casts(sizes.layer_matrices) if self._copies else 0
        found["activations"] = self._of_tokens(self._activations.layer)
        found["backward of a layer"] = self._of_tokens(self._activations.inside)
        if self._sharded:
            found["gradients"] = self._part(sizes.weights)
        return found

    @property
    def _update(self) -> dict[str, int]:
        found = dict(self._standing)
        found["gradients"] = self._part(self.sizes.weights)
        scratch = self.sizes.update * self.sizes.weights / self._shards
        scratch += self.sizes.update_once * self.sizes.largest
        found["in the optimizer's update"] = 0 if self._offloaded else int(scratch)
        return found

    @property
    def _measured(self) -> dict[str, int]:
        """Copies of weights, and the forward in which layers are looked at."""
        found = self._update
        measure, model = self.recipe.measure, self.recipe.model
        copies = 0
        if measure.covers("updates"):
            copies += self._part(self.sizes.weights)
        if measure.covers("rrc"):  # whole also where they are sharded
            copies += self.sizes.matrices
        if any(measure.covers(word) for word in _SEEN):
            sequences = min(measure.sequences, self._micro_batch)
            tokens = sequences * self.recipe.data.length
            logits = (_BYTES[self.recipe.train.precision] + 4) * (model.vocab_size or 0)
            streams = 4 * model.width * (model.layers if measure.covers("depth") else 2)
            found["forward of a measurement"] = int(tokens * (logits + streams))
            found["weights in bf16"] = self._casts(self.sizes.matrices) if self._copies else 0
            found["gathered weights"] = self._gathered
        found["copies of weights to measure by"] = copies
        return found

    # ------------------------------------------------------------------ what stands, what passes

    @property
    def _standing(self) -> dict[str, int]:
        return {
            "CUDA and libraries (assumed)": self.context,
            "weights": self._part(self.sizes.weights),
            # DDP's are views of its buckets, which stay.
            "gradients": self.sizes.weights if self._held else 0,
            "optimizer state": self._part(self.sizes.state),
        }

    @property
    def _passing(self) -> dict[str, int]:
        """What forward and backward need of weights and gradients, beside those that stand."""
        sizes = self.sizes
        if not self._sharded:
            return {"gradients": sizes.weights if self._accumulates or self._held else 0}
        gather, reduce = (_BYTES[d] / 4 for d in (self._config.gather, self._config.reduce))
        # Gradients are summed over processes once an update: until then each holds them whole.
        held = int(reduce * sizes.weights) if self._accumulates else 0
        # A layer's gradients, and the buffer in which they are sent, with that of the one before.
        sent = int((gather + 2 * reduce) * max(sizes.layer, sizes.ends))
        return {
            "gathered weights": self._gathered,
            "gradients before they are summed": held + sent,
        }

    @property
    def _gathered(self) -> int:
        """Of the ends all through, of a layer, of the next one, and of the buffer it comes in."""
        if not self._sharded:
            return 0
        sizes = self.sizes
        layers = 3 * sizes.layer
        if not self._config.reshard:
            layers = sizes.weights - sizes.ends + sizes.layer
        return int(_BYTES[self._config.gather] / 4 * (sizes.ends + layers))

    # ------------------------------------------------------------------ sizes

    @property
    def _config(self) -> ParallelConfig:
        return self.recipe.parallel

    @property
    def _sharded(self) -> bool:
        return self._config.mode == "fsdp"

    @property
    def _shards(self) -> int:
        return self.size // self._config.replicas if self._sharded else 1

    @property
    def _offloaded(self) -> bool:
        return self._sharded and self._config.offload

    @property
    def _held(self) -> bool:
        """Whether gradients have memory all the time."""
        return not self._sharded and self.size > 1

    def _part(self, whole: int) -> int:
        """What of it lies on this GPU."""
        return 0 if self._offloaded else whole // self._shards

    @property
    def _micro_batch(self) -> int:
        return self.recipe.train.micro_batch or per_process(self.recipe, self.size)

    @property
    def _accumulates(self) -> bool:
        return per_process(self.recipe, self.size) > self._micro_batch

    def _of_tokens(self, each: float) -> int:
        return int(each * self._micro_batch * self.recipe.data.length)

    @property
    def _kept(self) -> int:
        a, length = self._activations, self.recipe.data.length
        each = self.recipe.model.layers * a.layer + a.ends
        return self._of_tokens(each) + int(a.rotary * length)

    # Autocast casts each matrix once a forward, and the products keep the casts for the backward.
    # FSDP that gathers bf16 has nothing to cast.

    @property
    def _copies(self) -> bool:
        gathers_bf16 = self._sharded and self._config.gather == "bf16"
        return self.recipe.train.precision == "bf16" and not gathers_bf16

    def _casts(self, weights: int) -> int:
        return weights // 2 if self._copies else 0

    @property
    def _saved(self) -> int:
        """Of matrices, those whose casts wait for the backward."""
        inside = self.sizes.layer_matrices * self.recipe.model.layers
        again = self.recipe.train.recompute != "none"
        return self.sizes.matrices - (inside if again else 0)

    @property
    def _cached(self) -> int:
        """Of matrices, those whose casts there are at the end of the forward: eager, autocast
        keeps all of them until then."""
        return self._saved if self.recipe.train.compile else self.sizes.matrices

    @property
    def _head_weight(self) -> int:
        return self.sizes.matrices - self.sizes.layer_matrices * self.recipe.model.layers

    @property
    def _again(self) -> int:
        again = self.recipe.train.recompute != "none"
        return self.sizes.layer_matrices if again else 0

    @cached_property
    def _head(self) -> HeadCost:
        tokens = self._micro_batch * self.recipe.data.length
        return HeadCost.of(self.recipe.model, self.recipe.train.precision, tokens, self.device)

    @cached_property
    def _activations(self) -> Activations:
        train = self.recipe.train
        return Activations.of(
            self.recipe.model,
            train.precision,
            compiled=train.compile,
            recompute=train.recompute,
            fused_norms=self.fused_norms,
            stream=_BYTES[self._config.gather] if self._sharded else 4,
        )


_SEEN = ("rrc", "relus", "stream", "attention", "similarity", "depth")
"""What is measured in a forward of its own."""
