"""Which modules end a residual branch: found by name patterns, checked before anything is changed.

A pattern is a module name with ``{l}`` in the place of the layer number and, where needed, ``*``
for one component of the name: ``"layers.{l}.attn.wo"``. The layer number comes from the name, so
that a pipeline stage that holds layers 6…11 counts them as the 7th to the 12th.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

# What wrappers put into module names (torch.compile, activation checkpointing).
_WRAPPING = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module)\.")
# Names that output projections go by, used only to suggest a pattern.
_USUAL_ENDS = frozenset(
    "o_proj out_proj wo c_proj down_proj down w2 fc2 fc_out output proj dense lin2".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Branch:
    """A residual branch: its layer (0-based, as in the name) and the module that ends it.

    `anchor` is that module or, where it has no parameters (dropout), the nearest one around it
    that has: α lives where its parameters are.
    """

    layer: int
    name: str
    module: nn.Module
    anchor: nn.Module

    @property
    def device(self) -> torch.device:
        """Where α belongs; a model on the meta device has no place for it yet."""
        parameter = next(self.anchor.parameters(), None)
        if parameter is None or parameter.device.type == "meta":
            return torch.device("cpu")
        return parameter.device


def stock_name(name: str) -> str:
    """A module's or parameter's name without what wrappers put in."""
    return _WRAPPING.sub("", name)


def find_branches(model: nn.Module, patterns: Sequence[str] | None) -> list[Branch]:
    """The branches of `model` in layer order.

    Without patterns the model is asked: any module with a list of patterns in an attribute
    `residual_branches` (such as `groundup.model.Transformer`) knows its own.

    Raises:
        ValueError: if the model is unknown (the message lists its repeated blocks and suggests
            patterns), a pattern is malformed or matches nothing, or layers match unequally often.
    """
    if patterns is None:
        patterns = _own_patterns(model)
    if isinstance(patterns, str) or not patterns:
        raise ValueError(f"branches={patterns!r} is not valid: give a list of patterns")
    found: list[Branch] = []
    for pattern in patterns:
        matches = list(_matches(model, pattern))
        if not matches:
            raise ValueError(
                f"branches: the pattern {pattern!r} matches no module of "
                f"{type(model).__name__}. {_suggestion(model)}"
            )
        per_layer: dict[int, list[str]] = defaultdict(list)
        for branch in matches:
            per_layer[branch.layer].append(branch.name)
        if len({len(names) for names in per_layer.values()}) > 1:
            counts = ", ".join(f"layer {l}: {len(n)}" for l, n in sorted(per_layer.items()))
            raise ValueError(f"branches: {pattern!r} matches unequally over the layers ({counts})")
        found += matches
    _refuse_gaps(found, patterns)
    return sorted(found, key=lambda branch: branch.layer)


def _own_patterns(model: nn.Module) -> Sequence[str]:
    for module in model.modules():  # the model itself first, then what a wrapper holds
        patterns = getattr(module, "residual_branches", None)
        if patterns is not None:
            prefix = next(name for name, m in model.named_modules() if m is module)
            return [f"{stock_name(prefix + '.')}{p}" if prefix else p for p in patterns]
    raise ValueError(
        f"no residual branches are known for {type(model).__name__}: say which modules end them "
        f"with branches=[…]. {_suggestion(model)}"
    )


def _matches(model: nn.Module, pattern: str) -> Iterator[Branch]:
    expression = _expression(pattern)
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if match := expression.fullmatch(stock_name(name)):
            if pattern.endswith("{l}") and list(module.children()):
                raise ValueError(
                    f"branches: {pattern!r} is a whole layer ({type(module).__name__}), not the "
                    f"end of a branch. {_suggestion(model)}"
                )
            yield Branch(int(match[1]), stock_name(name), module, _anchor(modules, name))


def _anchor(modules: dict[str, nn.Module], name: str) -> nn.Module:
    while name and next(modules[name].parameters(), None) is None:
        name = name.rpartition(".")[0]
    return modules[name]


def _expression(pattern: str) -> re.Pattern[str]:
    if pattern.count("{l}") != 1:
        raise ValueError(
            f"branches: the pattern {pattern!r} must hold {{l}}, the layer number, exactly once"
        )
    if "*" in pattern.partition("{l}")[0]:
        raise ValueError(
            f"branches: in the pattern {pattern!r} a * stands before {{l}}, so that several "
            "modules would be the same layer; write one pattern for each stack"
        )
    return re.compile(re.escape(pattern).replace(r"\{l\}", r"(\d+)").replace(r"\*", r"[^.]+"))


def _refuse_gaps(found: list[Branch], patterns: Sequence[str]) -> None:
    """Each pattern must reach the same layers, each module only once."""
    layers = {branch.layer for branch in found}
    for pattern in patterns:
        reached = {b.layer for b in found if _expression(pattern).fullmatch(b.name)}
        if missing := sorted(layers - reached):
            raise ValueError(
                f"branches: {pattern!r} does not reach layers {missing}, which others reach"
            )
    names = [branch.name for branch in found]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"branches: {', '.join(double)} is matched by more than one pattern")


def _suggestion(model: nn.Module) -> str:
    """The model's repeated blocks and the patterns that look like ends of branches."""
    blocks, patterns = [], []
    for name, module in model.named_modules():
        children = list(module.children())
        if not isinstance(module, nn.ModuleList | nn.Sequential) or len(children) < 2:
            continue
        if len({type(child) for child in children}) > 1:
            continue
        where = stock_name(name + ".")
        blocks.append(f"{where}0…{len(children) - 1} ({type(children[0]).__name__})")
        for inner, leaf in children[0].named_modules():
            if inner.rsplit(".", 1)[-1] in _USUAL_ENDS and not list(leaf.children()):
                patterns.append(f"{where}{{l}}.{stock_name(inner)}")
    if not blocks:
        return "It has no repeated blocks."
    told = f"Its repeated blocks: {', '.join(blocks)}."
    return f"{told} Perhaps branches={patterns!r}" if patterns else told
