"""Which α a branch is multiplied by: layers counted in stacks, or among those chosen."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from groundup._check import count, unknown
from groundup.residual.branches import Branch

STACKS = ("each", "through")


@dataclass(frozen=True)
class Numbering:
    """The stacks' depths, and for each branch the place of its α among all α.

    Attributes:
        depths: number of layers per stack; the α of all stacks stand one stack after the other.
        places: for each branch an index into them.
    """

    depths: tuple[int, ...]
    places: tuple[int, ...]


def number(
    branches: Sequence[Branch], depth: int | None, layers: Collection[int] | None, stacks: str
) -> tuple[list[Branch], Numbering]:
    """The branches that take part, and their numbering.

    Args:
        branches: stack by stack.
        depth: layers of the whole stack where the model holds only some of them.
        layers: numbers, as they stand in the names, of the layers that take part; they are counted
            1, 2, … among themselves.
        stacks: ``"each"`` counts every stack from 1, ``"through"`` goes on counting.

    Raises:
        ValueError: for a depth below the layers found or given for several stacks, for layers that
            do not exist, for an unknown `stacks`.
    """
    if stacks not in STACKS:
        raise unknown("stacks", stacks, STACKS)
    names = list(dict.fromkeys(branch.stack for branch in branches))
    if depth is not None and len(names) > 1:
        raise ValueError(f"depth={depth!r} is for one stack of layers; this model has {names}")
    if layers is not None:
        branches = _chosen(branches, layers, partial=depth is not None)
        names = [name for name in names if any(branch.stack == name for branch in branches)]
    ranks = {layer: rank for rank, layer in enumerate(sorted(set(layers or ())))}
    # How deep a branch stands in its stack, from 0.
    depth_of = [ranks[branch.layer] if ranks else branch.layer for branch in branches]
    depths = [
        max(at for at, branch in zip(depth_of, branches, strict=True) if branch.stack == name) + 1
        for name in names
    ]
    if depth is not None:
        highest = max(branch.layer for branch in branches) + 1
        if count("depth", depth) < highest:
            raise ValueError(f"depth={depth} is not valid: the model has a layer number {highest}")
        depths = [len(ranks) or depth]
    before = {name: sum(depths[:place]) for place, name in enumerate(names)}
    places = (before[b.stack] + at for b, at in zip(branches, depth_of, strict=True))
    if stacks == "through":
        depths = [sum(depths)]
    return list(branches), Numbering(tuple(depths), tuple(places))


def _chosen(branches: Sequence[Branch], layers: Collection[int], partial: bool) -> list[Branch]:
    if not isinstance(layers, Collection) or isinstance(layers, str):
        raise ValueError(f"layers={layers!r} is not valid: give a list of layer numbers")
    there = {branch.layer for branch in branches}
    for layer in layers:
        count("layers", layer, least=0)
        if layer not in there and not partial:
            raise ValueError(
                f"layers={sorted(layers)!r} is not valid: there is no layer {layer}, only "
                f"{min(there)} to {max(there)} (numbers as they stand in the modules' names)"
            )
    chosen = [branch for branch in branches if branch.layer in set(layers)]
    if not chosen:
        raise ValueError(f"layers={sorted(layers)!r} chooses no layer of {sorted(there)}")
    return chosen
