"""What there is to measure in a model and its optimizer, and the part of an observer for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from groundup._check import unknown
from groundup.measure import layer_parts, parts, probing
from groundup.measure.layer_parts import Forward
from groundup.measure.layers import Layer, find_layers
from groundup.optim.rows import stored_in_out
from groundup.residual.names import stock_name


@dataclass
class Subject:
    """A model and its optimizer.

    Attributes:
        rows: inputs kept of each linear layer.
        updates: how many the optimizer has made; inf where that is not known.
        targets: what the model should answer to the probe, if that was given.
        same_probe: whether the model sees the same inputs at each measurement.
        forward: calls the model with the probe.
        branches: patterns of the ends of residual branches, for models that are not known.
        weights: the model's parameters that the optimizer has, by name.
        layers: the layers, shallowest first; `no_layers` says why there are none.
    """

    model: nn.Module
    optimizer: Optimizer
    batch_size: int | None
    rows: int
    updates: Callable[[], float]
    targets: Tensor | None
    same_probe: bool
    forward: Forward
    branches: Sequence[str] | None = None
    weights: dict[str, Tensor] = field(init=False)
    layers: list[Layer] = field(init=False)
    no_layers: str = ""

    def __post_init__(self) -> None:
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        self.weights = {
            stock_name(name): p
            for name, p in self.model.named_parameters()
            if p.requires_grad and id(p) in held
        }
        if not self.weights:
            raise ValueError(
                f"the optimizer has no trainable parameter of {type(self.model).__name__}: give "
                "the model it was made for"
            )
        targets: object = self.targets
        if targets is not None and getattr(targets, "dtype", None) != torch.int64:
            kind = getattr(targets, "dtype", type(targets).__name__)
            raise ValueError(f"targets of {kind} are not valid: give a tensor of int64, classes")
        try:
            self.layers = find_layers(self.model, self.branches)
        except ValueError as error:
            if self.branches is not None:
                raise
            self.layers, self.no_layers = [], str(error)

    def modules(self, wanted: Callable[[nn.Module], bool]) -> dict[str, nn.Module]:
        return {
            stock_name(name) or type(module).__name__: module
            for name, module in self.model.named_modules()
            if wanted(module)
        }


def choose(subject: Subject, what: Sequence[str] | None) -> list[parts.Part]:
    """The parts for each word of `what`; for None those of all that apply.

    Raises:
        ValueError: for words that are unknown, or do not apply.
    """
    if what is None:
        return [part for make in MAKERS.values() if not isinstance(part := make(subject), str)]
    if isinstance(what, str) or not what:
        raise ValueError(f"what={what!r} is not valid: give a list of {', '.join(MAKERS)}")
    chosen = []
    for word in dict.fromkeys(what):
        if word not in MAKERS:
            raise unknown("what", word, MAKERS)
        part = MAKERS[word](subject)
        if isinstance(part, str):
            raise ValueError(f"what={word!r} is not valid: {part}")
        chosen.append(part)
    return chosen


def _updates(subject: Subject) -> parts.Part:
    ids = {id(module.weight) for module in subject.modules(stored_in_out).values()}
    in_out = {name for name, w in subject.weights.items() if id(w) in ids}
    return parts.Updates(subject.weights, in_out, [layer.name for layer in subject.layers])


def _gradients(subject: Subject) -> parts.Part:
    layers = [layer.name for layer in subject.layers]
    return parts.Gradients(subject.weights, subject.optimizer, layers)


def _noise(subject: Subject) -> parts.Part | str:
    if subject.batch_size is None:
        return "φ is per example, and needs batch_size"
    return parts.Noise(subject.weights, subject.optimizer, subject.batch_size, subject.updates)


def _representation(subject: Subject) -> parts.Part | str:
    measured = {id(w) for w in subject.weights.values()}
    layers = {
        name: module
        for name, module in subject.modules(probing.is_linear).items()
        if id(module.weight) in measured
    }
    if not layers:
        return "the model has no linear layer whose weight the optimizer trains"
    return parts.Representation(layers, subject.rows)


def _rank(subject: Subject) -> parts.Part | str:
    matrices = {name: w for name, w in subject.weights.items() if w.ndim >= 2}
    return parts.Rank(matrices) if matrices else "no weight has two dimensions"


def _relus(subject: Subject) -> parts.Part | str:
    modules = subject.modules(probing.is_relu)
    if not modules:
        return "the model has no ReLU that is a module of its own"
    return parts.Relus(modules)


def _stream(subject: Subject) -> parts.Part | str:
    return layer_parts.Stream(subject.layers) if subject.layers else subject.no_layers


def _attention(subject: Subject) -> parts.Part | str:
    return layer_parts.Attention(subject.layers) if subject.layers else subject.no_layers


def _similarity(subject: Subject) -> parts.Part | str:
    if not subject.layers:
        return subject.no_layers
    if not subject.same_probe:
        return "what a model gives is compared on the same inputs each time: give a probe"
    return layer_parts.Sketches(subject.layers, subject.rows)


def _depth(subject: Subject) -> parts.Part | str:
    if subject.targets is None:
        return "a loss needs targets, and a probe that they belong to"
    if not subject.layers:
        return subject.no_layers
    return layer_parts.Depth(subject.layers, subject.targets, subject.forward)


def _positions(subject: Subject) -> parts.Part | str:
    if subject.targets is None:
        return "a loss needs targets, and a probe that they belong to"
    if subject.targets.ndim != 2:
        return f"targets have shape {list(subject.targets.shape)}, without a position"
    return layer_parts.Positions(subject.targets)


MAKERS: dict[str, Callable[[Subject], parts.Part | str]] = {
    "updates": _updates,
    "gradients": _gradients,
    "noise": _noise,
    "rrc": _representation,
    "rank": _rank,
    "relus": _relus,
    "stream": _stream,
    "attention": _attention,
    "similarity": _similarity,
    "depth": _depth,
    "positions": _positions,
}
"""The part for each word; a string says why it does not apply."""
