"""What an `Observer` sees of each layer in its extra forward: a class for each word of its `what`.

A value has one entry per layer, the shallowest first; `nan` where a layer has none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from groundup.measure import attention, positions, probing, similarity
from groundup.measure.layers import Layer
from groundup.measure.parts import Part, Values
from groundup.measure.skipping import Outputs, logits_of, mean_loss, skipped
from groundup.measure.stream import alikeness, token_cosines, token_norms
from groundup.residual.scale import alpha_of

Forward = Callable[[Sequence[probing.Sight]], Any]
"""Runs the extra forward; gives what the model returns."""


class Stream(Part):
    """Norms of the residual stream and of what branches add to it, and how far layers agree."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.sight = self
        self._layers = layers
        stacks = [layer.name.rpartition(".")[0] for layer in layers]
        self._follows = [False, *(a == b for a, b in pairwise(stacks))]
        self._seen: dict[str, list[Tensor | None]] = {}
        self._entering: Tensor | None = None
        self._before: dict[str, Tensor] = {}  # each branch's output in the layer before

    def watching(self) -> ExitStack:
        self._seen.clear()
        self._before.clear()
        return probing.until_left(self._hooks())

    def look(self, output: Any) -> Values:
        found: Values = {f"{name}/layers": _stacked(row) for name, row in self._seen.items()}
        self._seen.clear()
        self._before.clear()
        return found

    def _hooks(self) -> Iterator[RemovableHandle]:
        for l, layer in enumerate(self._layers):
            yield layer.block.register_forward_pre_hook(partial(self._enters, l), with_kwargs=True)
            for name, module in layer.branches.items():
                yield module.register_forward_hook(partial(self._adds, l, name))
            yield layer.block.register_forward_hook(partial(self._leaves, l))

    def _enters(self, l: int, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if not self._follows[l]:
            self._before.clear()
        entering = _tensor([*args, *kwargs.values()])
        # The layer may add to it in place.
        self._entering = None if entering is None else entering.clone()

    def _adds(self, l: int, branch: str, module: nn.Module, _: Any, output: Any) -> None:
        if (added := _tensor(output)) is None:
            return
        norms = token_norms(added)
        before = self._before.get(branch)
        if before is not None and before.shape == added.shape:
            self._set(f"branch_next/{branch}", l - 1, token_cosines(before, added).nanmean())
        self._before[branch] = added
        # The hook sees the branch before it is scaled.
        if (alpha := alpha_of(module)) is not None:
            norms = norms * alpha.to(norms.device)
        self._set(f"branch_norm/{branch}", l, norms.mean())
        stream = None if self._entering is None else token_norms(self._entering)
        if stream is not None and stream.shape == norms.shape:
            self._set(f"branch_ratio/{branch}", l, (norms / stream).mean())
        self._set(f"branch_next/{branch}", l, None)

    def _leaves(self, l: int, _: nn.Module, __: Any, output: Any) -> None:
        if (x := _tensor(output)) is None:
            return
        self._set("stream_norm", l, token_norms(x).mean())
        self._set("stream_max", l, x.abs().max())
        if x.ndim > 1:
            self._set("stream_alike", l, alikeness(x))
        self._set("stream_next", l, None)
        entering = self._entering
        if self._follows[l] and entering is not None and entering.shape == x.shape:
            self._set("stream_next", l - 1, token_cosines(entering, x).nanmean())

    def _set(self, name: str, l: int, value: Tensor | None) -> None:
        row = self._seen.setdefault(name, [None] * len(self._layers))
        if row[l] is None:  # a module that is called several times: the first
            row[l] = value


class Attention(Part):
    """Entropy of the attention weights and the largest logit."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.sight = self
        self._layers = layers
        self._watch = attention.Watch()
        self._warned = False

    def watching(self) -> AbstractContextManager[Any]:
        self._watch = watch = attention.Watch()
        stack = probing.until_left(self._hooks(watch))
        stack.enter_context(watch)
        return stack

    def look(self, output: Any) -> Values:
        rows: dict[str, list[Tensor | None]] = {}
        results = self._watch.results()
        if not results and not self._warned:
            self._warned = True
            warnings.warn(
                "no attention was seen in any layer: see groundup.measure.attention.Watch for what "
                "can be seen",
                stacklevel=2,
            )
        for l, found in results.items():
            for name, value in found._asdict().items():
                row = rows.setdefault(f"attention_{name}/layers", [None] * len(self._layers))
                row[l] = value
        return {name: _stacked(row) for name, row in rows.items()}

    def _hooks(self, watch: attention.Watch) -> Iterator[RemovableHandle]:
        for l, layer in enumerate(self._layers):
            yield layer.block.register_forward_pre_hook(partial(_point, watch, l))
            yield layer.block.register_forward_hook(partial(_point, watch, None))


class Sketches(Part):
    """Sketches of what branches give, to be compared with those of the final model."""

    def __init__(self, layers: Sequence[Layer], rows: int) -> None:
        self.sight = self
        self._layers = layers
        self._rows = rows
        self._seen: dict[str, list[str | None]] = {}

    def watching(self) -> ExitStack:
        self._seen = {}
        return probing.until_left(
            module.register_forward_hook(partial(self._adds, l, name))
            for l, layer in enumerate(self._layers)
            for name, module in layer.branches.items()
        )

    def look(self, output: Any) -> Values:
        found, self._seen = self._seen, {}
        return {f"sketch/{name}/layers": row for name, row in found.items()}

    def _adds(self, l: int, branch: str, _: nn.Module, __: Any, output: Any) -> None:
        row = self._seen.setdefault(branch, [None] * len(self._layers))
        if row[l] is None and (given := _tensor(output)) is not None:
            row[l] = similarity.sketch(probing.some_rows(given, self._rows))


class Depth(Part):
    """What the loss rises by when a layer is skipped: a forward from there on for each layer."""

    needs_output = True

    def __init__(self, layers: Sequence[Layer], targets: Tensor, forward: Forward) -> None:
        self._layers = layers
        self._targets = targets
        self._forward = forward
        self.sight = self._blocks = Outputs([layer.block for layer in layers])

    def look(self, output: Any) -> Values:
        whole = mean_loss(output, self._targets)
        rises = []
        try:
            for layer in self._layers:
                with self._blocks.before(layer.block), skipped(layer.branches.values()):
                    rises.append(mean_loss(self._forward([]), self._targets) - whole)
        finally:
            self._blocks.forget()
        return {"probe_loss": whole, "skip_loss/layers": torch.stack(rises)}


class Positions(Part):
    """The loss at each position of the sequence."""

    needs_output = True

    def __init__(self, targets: Tensor) -> None:
        self._targets = targets

    def look(self, output: Any) -> Values:
        logits = logits_of(output)
        sums, counts = positions.loss_by_position(logits, self._targets.to(logits.device))
        edges = positions.bins(len(sums))
        means = positions.binned(sums, counts, edges)
        values = [math.nan if mean is None else mean for mean in means]
        return {
            "loss/positions": torch.tensor(values, dtype=torch.float64),
            "loss_bins": torch.tensor(edges, dtype=torch.float64),
        }


def _point(watch: attention.Watch, layer: int | None, *_: Any) -> None:
    watch.layer = layer


def _tensor(output: Any) -> Tensor | None:
    """The (first) tensor in what a module was given or returned, if there is one."""
    if isinstance(output, Mapping):
        output = list(output.values())
    several = output if isinstance(output, tuple | list) else [output]
    return next((entry.detach() for entry in several if isinstance(entry, Tensor)), None)


def _stacked(row: Sequence[Tensor | None]) -> Tensor:
    there = [value for value in row if value is not None]
    if not there:
        return torch.full((len(row),), math.nan)
    first = there[0]
    missing = torch.full((), math.nan, dtype=torch.float64, device=first.device)
    return torch.stack([missing if v is None else v.to(first.device).double() for v in row])
