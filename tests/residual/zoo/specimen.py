"""What is known of one architecture: a small random model of it, and what α = 0 must leave over."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

Gains = Sequence[float | torch.Tensor]


@dataclass(frozen=True, eq=False)
class Specimen:
    """A small model of an architecture, from seeds: every call of `make` gives the same one.

    Attributes:
        name: what people call it; for the table in the documentation.
        library: where its layers come from.
        build: makes the model; what it initializes is replaced by `make`.
        inputs: keyword arguments of its forward.
        stacks: name of what holds the layers → how many there are.
        branches: branches per layer, or per stack where stacks differ.
        norms: Post-LN only: the names in the layer of the norms after the additions, in the order
            of the ends; per stack where stacks differ.
        patterns: the branches, for a model that nobody knows.
        gains: what a layer multiplies each of its branches by after the end, in the order of the
            ends; by default nothing.
        bare: the output of a stock model whose layers were taken out, where emptying the stacks is
            not enough.
        remark: for the table in the documentation.
    """

    name: str
    library: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Any]]
    stacks: Mapping[str, int]
    branches: int | Mapping[str, int] = 2
    norms: Sequence[str] | Mapping[str, Sequence[str]] = ()
    patterns: Sequence[str] | None = None
    gains: Callable[[nn.Module], Gains] | None = None
    bare: Callable[[nn.Module, dict[str, Any]], torch.Tensor] | None = None
    remark: str = ""

    def __str__(self) -> str:
        return self.name

    @property
    def id(self) -> str:
        return f"{self.library}: {self.name}"

    def make(self) -> nn.Module:
        """The model, in eval mode, with no parameter at a value that could hide an error."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build()
            with torch.no_grad():
                for parameter in model.parameters():
                    # Norms that start at 1 (or, as Gemma's, at 0), LayerScale, biases: all of them.
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
        return model.float().eval()

    def output(self, model: nn.Module) -> torch.Tensor:
        """What the model says about the inputs, as one tensor."""
        return as_tensor(model(**self.inputs()))

    @property
    def kind(self) -> Literal["identity", "silent"]:
        """At α = 0 a layer is the identity, or (Post-LN) what is left of it are its norms."""
        return "silent" if self.norms else "identity"

    def norms_of(self, stack: str) -> Sequence[str]:
        """The norms after the additions in a layer of this stack."""
        return self.norms[stack] if isinstance(self.norms, Mapping) else self.norms

    def per_layer(self, stack: str) -> int:
        """How many branches a layer of this stack has."""
        return self.branches if isinstance(self.branches, int) else self.branches[stack]

    def without_layers(self, model: nn.Module) -> torch.Tensor:
        """What a stock model says when its layers are taken out."""
        model = copy.deepcopy(model)
        if self.bare is not None:
            return self.bare(model, self.inputs())
        for stack in self.stacks:
            parent, _, name = stack.rpartition(".")
            container = model.get_submodule(stack)
            setattr(model.get_submodule(parent), name, type(container)())
        return self.output(model)


def as_tensor(output: Any) -> torch.Tensor:
    """The part of a forward's output that depends on all of the model."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, tuple):
        return output[0]
    if "image_embeds" in output:
        return torch.cat([output["text_embeds"], output["image_embeds"]], dim=-1)
    return output["logits"] if "logits" in output else output["last_hidden_state"]


def seeded(*shape: int) -> torch.Tensor:
    """Normal numbers, always the same for a shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def tokens(batch: int = 2, length: int = 7) -> torch.Tensor:
    """Token numbers from 3 to 63: 0 to 2 are special."""
    return torch.randint(3, 64, (batch, length), generator=torch.Generator().manual_seed(2))
