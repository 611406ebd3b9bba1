"""What to say of a model whose branches are not known: its repeated blocks, a first guess."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from groundup.residual.names import stock_name

# Names that output projections go by.
_USUAL_ENDS = frozenset(
    "o_proj out_proj c_proj down_proj out_lin to_out fc_out fc2 lin2 linear2 ff2 w2 "  # noqa: SIM905
    "wo w_o o out output proj down dense".split()
)
_SHOWN = 6


@dataclass(frozen=True)
class _Blocks:
    where: str  # up to the number
    numbers: list[int]
    first: nn.Module


def suggestion(model: nn.Module) -> str:
    """The model's repeated blocks and the patterns that look like ends of branches."""
    blocks = list(_repeated(model))
    if not blocks:
        return "It has no repeated blocks."
    told = ", ".join(
        f"{b.where}{b.numbers[0]}…{b.numbers[-1]} ({type(b.first).__name__})"
        for b in blocks[:_SHOWN]
    )
    told = f"Its repeated blocks: {told}{', …' if len(blocks) > _SHOWN else ''}."
    patterns = [pattern for block in blocks for pattern in _ends(block)]
    if not patterns:
        return told
    told += f" Perhaps branches={patterns!r}"
    if len(patterns) == len(blocks):
        told += " (one end in each block; a Transformer's layer has two: which is the other?)"
    return told


def _repeated(model: nn.Module) -> Iterator[_Blocks]:
    """Numbered modules of one class side by side, the innermost such."""
    for name, module in model.named_modules():
        children = list(module._modules.items())
        parts = [re.fullmatch(r"(.*?)(\d+)", key) for key, _ in children]
        if len(children) < 2 or len({type(child) for _, child in children}) > 1:
            continue
        if not all(parts) or len({part[1] for part in parts if part}) > 1:
            continue
        first = children[0][1]
        if first is None or any(True for _ in _repeated(first)) or not list(first.children()):
            continue
        where = f"{stock_name(name)}." if stock_name(name) else ""
        prefix = parts[0][1] if parts[0] else ""
        yield _Blocks(where + prefix, [int(part[2]) for part in parts if part], first)


def _ends(block: _Blocks) -> Iterator[str]:
    attention = [
        name for name, m in block.first.named_modules() if isinstance(m, nn.MultiheadAttention)
    ]
    for name, module in block.first.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in attention)
        usual = name.rpartition(".")[2].lower() in _USUAL_ENDS and not list(module.children())
        # Attention of torch's own reads its output projection's weights and never calls it.
        if name in attention or (usual and not inside):
            yield f"{block.where}{{l}}.{stock_name(name)}"
