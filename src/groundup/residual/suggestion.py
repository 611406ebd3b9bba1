"""What to say of a model whose branches are not known: its repeated blocks, a first guess."""

from __future__ import annotations

from torch import nn

from groundup.residual.names import stock_name

# Names that output projections go by.
_USUAL_ENDS = frozenset(
    "o_proj out_proj wo c_proj down_proj down w2 fc2 fc_out output proj dense lin2".split()  # noqa: SIM905
)


def suggestion(model: nn.Module) -> str:
    """The model's repeated blocks and the patterns that look like ends of branches."""
    blocks, patterns = [], []
    for name, module in model.named_modules():
        children = list(module.children())
        if not isinstance(module, nn.ModuleList | nn.Sequential) or len(children) < 2:
            continue
        if len({type(child) for child in children}) > 1:
            continue
        where = f"{stock_name(name)}." if stock_name(name) else ""
        blocks.append(f"{where}0…{len(children) - 1} ({type(children[0]).__name__})")
        for inner, leaf in children[0].named_modules():
            if inner.rsplit(".", 1)[-1] in _USUAL_ENDS and not list(leaf.children()):
                patterns.append(f"{where}{{l}}.{stock_name(inner)}")
    if not blocks:
        return "It has no repeated blocks."
    told = f"Its repeated blocks: {', '.join(blocks)}."
    return f"{told} Perhaps branches={patterns!r}" if patterns else told
