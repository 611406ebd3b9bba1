"""The branches of a model, read off the table (or patterns) in the plainest way there is.

Its own few lines, so that a test compares the library with something else than itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from groundup.residual.architectures import End, layer_of
from tests.residual.zoo.specimen import Specimen


@dataclass(frozen=True)
class Found:
    """One branch: its stack, its layer's number, the layer, the name and what the table says."""

    stack: str
    layer: int
    block: nn.Module
    name: str
    module: nn.Module
    end: End

    def weights(self) -> Iterator[nn.Parameter]:
        """What the branch's output is linear in, all together."""
        for inside in self.end.fold or (self.end.path,):
            parts = re.compile(_as_expression(inside) + r"(\..*)?")
            for name, parameter in self.block.named_parameters():
                if parts.fullmatch(name):
                    yield parameter


def ends(specimen: Specimen, model: nn.Module) -> list[Found]:
    """Every branch, layer by layer, in the order of the table's ends."""
    found = []
    for stack, layers in specimen.stacks.items():
        for number in range(layers):
            block = model.get_submodule(f"{stack}.{number}")
            for end in _ends_of(specimen, stack, block):
                wanted = re.compile(_as_expression(end.path))
                for name, module in block.named_modules():
                    if wanted.fullmatch(name):
                        full = f"{stack}.{number}.{name}"
                        found.append(Found(stack, number, block, full, module, end))
    return found


def _ends_of(specimen: Specimen, stack: str, block: nn.Module) -> list[End]:
    if specimen.patterns is None:
        row = layer_of(block)
        assert row is not None, f"{type(block)} is not in the table"
        return list(row.ends)
    start = f"{stack}.{{l}}."
    return [End(p.removeprefix(start)) for p in specimen.patterns if p.startswith(start)]


def _as_expression(path: str) -> str:
    return re.escape(path).replace(r"\*", r"[^.]+")
