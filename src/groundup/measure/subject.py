"""What there is to measure in a model and its optimizer, and the part of an observer for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.optim import Optimizer

from groundup._check import unknown
from groundup.measure import parts, probing
from groundup.optim.rows import stored_in_out
from groundup.residual.names import stock_name


@dataclass
class Subject:
    """A model and its optimizer.

    Attributes:
        rows: inputs kept of each linear layer.
        updates: how many the optimizer has made; inf where that is not known.
        weights: the model's parameters that the optimizer has, by name.
    """

    model: nn.Module
    optimizer: Optimizer
    batch_size: int | None
    rows: int
    updates: Callable[[], float]
    weights: dict[str, Tensor] = field(init=False)

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
    return parts.Updates(subject.weights, in_out)


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


MAKERS: dict[str, Callable[[Subject], parts.Part | str]] = {
    "updates": _updates,
    "noise": _noise,
    "rrc": _representation,
    "rank": _rank,
    "relus": _relus,
}
"""The part for each word; a string says why it does not apply."""
