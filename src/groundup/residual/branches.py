"""Which modules end a residual branch: found before anything is changed.

They are named by patterns, stated by the model itself, or known from the table of architectures. A
pattern is a module name with ``{l}`` in the place of the layer number and, where needed, ``*`` for
one component of the name: ``"layers.{l}.attn.wo"``. The layer number comes from the name, so that a
pipeline stage that holds layers 6…11 counts them as the 7th to the 12th.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn

from groundup.residual.architectures import End, Layer, layer_of
from groundup.residual.names import inside_wrappers, stock_name
from groundup.residual.suggestion import suggestion


@dataclass(frozen=True)
class Branch:
    """A residual branch: where it stands and the module that ends it.

    Attributes:
        stack: the name of what holds the layers, such as ``model.layers``.
        layer: the layer's number in its name, 0 the first.
        name: the module's name in the model, without what wrappers put in.
        module: the module that ends the branch.
        parent: the module that holds it.
        block: the layer as a whole.
        anchor: `module` or, where it has no parameters (dropout), the nearest one around it that
            has: α lives where its parameters are.
        end: what is known of it; for a pattern just its name.
    """

    stack: str
    layer: int
    name: str
    module: nn.Module
    parent: nn.Module
    block: nn.Module
    anchor: nn.Module
    end: End

    @property
    def device(self) -> torch.device:
        """Where α belongs; a model on the meta device has no place for it yet."""
        own = (p for p in self.anchor._parameters.values() if p is not None)  # the usual, quicker
        parameter = next(chain(own, self.anchor.parameters()), None)
        if parameter is None or parameter.device.type == "meta":
            return torch.device("cpu")
        return parameter.device

    def require_in_place(self) -> None:
        """RuntimeError if something else stands in the module's place by now (an adapter)."""
        now = self.parent._modules.get(self.name.rpartition(".")[2])
        if now is not self.module and inside_wrappers(now) is not self.module:
            raise RuntimeError(
                f"{self.name} was replaced by a {type(now).__name__} after attach, so that its "
                "branch is not scaled as a whole: attach after adapters are added and modules "
                "are converted"
            )


def find_branches(model: nn.Module, patterns: Sequence[str] | None) -> list[Branch]:
    """The branches of `model`, stack by stack in the order of its modules, layer by layer.

    Without patterns the model is asked: any module with a list of patterns in an attribute
    `residual_branches` (such as `groundup.model.Transformer`) knows its own. Otherwise its layers
    are looked up in `groundup.residual.architectures`.

    Raises:
        ValueError: if the model is unknown (the message lists its repeated blocks and suggests
            patterns), a pattern is malformed or matches nothing, or layers match unequally often.
    """
    if patterns is None:
        patterns = _own_patterns(model)
    found = list(_known(model)) if patterns is None else _by_patterns(model, patterns)
    if not found:
        raise ValueError(
            f"no residual branches are known for {type(model).__name__}: say which modules end "
            f"them with branches=[…]. {suggestion(model)}"
        )
    _refuse_nested(found)
    stacks = list(dict.fromkeys(branch.stack for branch in found))
    return sorted(found, key=lambda branch: (stacks.index(branch.stack), branch.layer))


# ---------------------------------------------------------------------- known architectures


def _known(model: nn.Module) -> Iterator[Branch]:
    """The branches of all layers in the table; a layer that stands alone has no number."""
    for name, module in model.named_modules():
        row = layer_of(module)
        stack, _, number = stock_name(name).rpartition(".")
        if row is not None and number.isdecimal():
            yield from _of_layer(module, stock_name(name), stack, int(number), row)


def _of_layer(block: nn.Module, name: str, stack: str, number: int, row: Layer) -> Iterator[Branch]:
    found = {end: list(_matches(block, re.compile(_as_expression(end.path)))) for end in row.ends}
    if not any(found.values()):
        return  # a class of that name with nothing in common: not what the row is about
    for end, matches in found.items():
        if not matches and not end.optional:
            raise ValueError(
                f"{name} is a {type(block).__name__}, but holds no {end.path} as the known one "
                f"does: say which modules end its branches with branches=[…]. {suggestion(block)}"
            )
        for match in matches:
            yield Branch(
                stack, number, f"{name}.{match.name}", match.module, match.parent, block,
                match.anchor, end,
            )  # fmt: skip


# ---------------------------------------------------------------------- patterns


def _own_patterns(model: nn.Module) -> Sequence[str] | None:
    for name, module in model.named_modules():  # the model itself first, then what a wrapper holds
        patterns = getattr(module, "residual_branches", None)
        if patterns is not None:
            prefix = stock_name(name)
            return [f"{prefix}.{p}" if prefix else p for p in patterns]
    return None


def _by_patterns(model: nn.Module, patterns: Sequence[str]) -> list[Branch]:
    if isinstance(patterns, str) or not patterns or not all(isinstance(p, str) for p in patterns):
        raise ValueError(
            f"branches={patterns!r} is not valid: give a list of patterns, names of modules with "
            "{l} for the layer"
        )
    found: list[Branch] = []
    for pattern in patterns:
        branches = list(_by_pattern(model, pattern))
        if not branches:
            raise ValueError(
                f"branches: the pattern {pattern!r} matches no module of "
                f"{type(model).__name__}. {suggestion(model)}"
            )
        per_layer = Counter(branch.layer for branch in branches)
        if len(set(per_layer.values())) > 1:
            counts = ", ".join(f"layer {l}: {n}" for l, n in sorted(per_layer.items()))
            raise ValueError(f"branches: {pattern!r} matches unequally over the layers ({counts})")
        found += branches
    _refuse_gaps(found)
    names = Counter(branch.name for branch in found)
    if double := sorted(name for name, times in names.items() if times > 1):
        raise ValueError(f"branches: {', '.join(double)} is matched by more than one pattern")
    order = {stock_name(name): place for place, (name, _) in enumerate(model.named_modules())}
    return sorted(found, key=lambda branch: order[branch.name])


def _by_pattern(model: nn.Module, pattern: str) -> Iterator[Branch]:
    if pattern.count("{l}") != 1:
        raise ValueError(
            f"branches: the pattern {pattern!r} must hold {{l}}, the layer number, exactly once"
        )
    before, _, after = pattern.partition("{l}")
    if "*" in before:
        raise ValueError(
            f"branches: in the pattern {pattern!r} a * stands before {{l}}, so that several "
            "modules would be the same layer; write one pattern for each stack"
        )
    modules = {stock_name(name): module for name, module in model.named_modules()}
    for match in _matches(model, re.compile(_as_expression(pattern))):
        if not after and list(match.module.children()):
            raise ValueError(
                f"branches: {pattern!r} is a whole layer ({type(match.module).__name__}), not the "
                f"end of a branch. {suggestion(model)}"
            )
        # The layer is the module whose name ends with the component that holds the number.
        end_of_component = match.name.find(".", match.number_ends)
        block = match.name if end_of_component < 0 else match.name[:end_of_component]
        # A module without weights may know what beside it α can be multiplied into.
        beside = match.name.removeprefix(f"{block}.").rpartition(".")[0]
        paths = getattr(match.module, "folds_into", ())
        fold = tuple(f"{beside}.{path}".lstrip(".") for path in paths)
        yield Branch(
            before.removesuffix("."), match.number, match.name, match.module, match.parent,
            modules[block], match.anchor, End(pattern, fold),
        )  # fmt: skip


def _refuse_nested(found: list[Branch]) -> None:
    """What stands inside another branch's end would be scaled twice."""
    names = {branch.name for branch in found}
    for branch in found:
        outer = branch.name
        while outer := outer.rpartition(".")[0]:
            if outer in names:
                raise ValueError(
                    f"branches: {branch.name} is inside {outer}, which is scaled as well: its "
                    "output would be multiplied twice; name one of them"
                )


def _refuse_gaps(found: list[Branch]) -> None:
    """The patterns of one stack must all reach the same layers."""
    reached: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for branch in found:
        reached[branch.stack][branch.end.path].add(branch.layer)
    for by_pattern in reached.values():
        layers = set().union(*by_pattern.values())
        for pattern, own in by_pattern.items():
            if missing := sorted(layers - own):
                raise ValueError(
                    f"branches: {pattern!r} does not reach layers {missing}, which others reach"
                )


# ---------------------------------------------------------------------- names to modules


@dataclass(frozen=True)
class _Match:
    name: str
    module: nn.Module
    parent: nn.Module
    anchor: nn.Module
    number: int = 0
    number_ends: int = 0


def _as_expression(pattern: str) -> str:
    return re.escape(pattern).replace(r"\{l\}", r"(\d+)").replace(r"\*", r"[^.]+")


def _matches(root: nn.Module, expression: re.Pattern[str]) -> Iterator[_Match]:
    modules = dict(root.named_modules())
    stock = {stock_name(name): module for name, module in modules.items()}
    for name in stock:  # the innermost of what shares a name: what a wrapper holds, not the wrapper
        match = expression.fullmatch(name)
        if match is None:
            continue
        parent, anchor = stock[name.rpartition(".")[0]], name
        while anchor and next(stock[anchor].parameters(), None) is None:
            anchor = anchor.rpartition(".")[0]
        number = (int(match[1]), match.end(1)) if match.re.groups else (0, 0)
        yield _Match(name, stock[name], parent, stock[anchor], *number)
