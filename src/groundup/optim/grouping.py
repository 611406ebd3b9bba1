"""Parameter groups: what is decayed, what may turn, which layer a parameter is of, Muon's part."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from groundup._check import positive, within
from groundup.optim.head import head_of
from groundup.optim.rows import stored_in_out
from groundup.residual.branches import find_branches
from groundup.residual.names import inside_wrappers, stock_name, unwrap

_NORM = re.compile(r"Norm(\d+d)?$")
_IN_OUT = "matrices [in, out]"
_KINDS = ("hidden", "matrices", _IN_OUT, "head", "no-decay")


def groups(
    model: nn.Module,
    weight_decay: float = 0.1,
    *,
    lr: float | None = None,
    by_layer: bool = False,
    layer_decay: float | None = None,
    muon: bool = False,
    no_decay: Sequence[str] = (),
    branches: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """The trainable parameters of `model` in groups for any torch optimizer.

    Without options there are three, in this order, each in the order of ``model.parameters()``:

    =============  ==============  ==================================================
    ``name``       weight decay    what
    =============  ==============  ==================================================
    ``matrices``   `weight_decay`  two dimensions or more, and none of the following
    ``head``       `weight_decay`  the matrix of an untied output head: of what the model
                                   gives as ``get_output_embeddings()`` (Hugging Face) or
                                   ``get_classifier()`` (timm), of a classifier of Hugging
                                   Face, or of a linear map outside of the layers from the
                                   width of an embedding to its number of tokens
    ``no-decay``   0               vectors (biases, gains), embeddings, norms, biases
                                   of any shape (named ``bias`` or ``…_bias``), what
                                   `no_decay` names, and what the model itself
                                   exempts (timm's ``no_weight_decay()``)
    =============  ==============  ==================================================

    The weights of transformers' Conv1D modules (GPT-2) are stored [in, out]. They are a group of
    their own after ``matrices``, named ``matrices [in, out]``, with the same decay and ``out_dim``
    1: the dimension of the output units, whose incoming weights rotational optimizers turn. With
    `muon` they are not set apart.

    Rotational optimizers turn ``matrices`` (and these) alone; the other two have ``rotational``
    False: without decay the angle √(2ηλ) is 0, and a head of constant norm would keep logits as
    small as they are at first. A head that is not found is one of the ``matrices``. A group that
    would be empty is left out, and so are frozen parameters. A tied weight counts once, as the
    embedding that it is.

    Args:
        model: any module, also wrapped (DDP, `torch.compile`, `fully_shard`, PEFT).
        weight_decay: λ of the matrices and the head, at least 0.
        lr: the rate η, written into each group; left out, the optimizer's own.
        by_layer: a group of each kind for every layer, with the layer's number l = 1, 2, … in its
            stack as ``layer``. What stands before the layers (``input …``) and after them
            (``output …``) has None.
        layer_decay: c in (0, 1]: layer l of L has the rate η·c^(L+1−l), what stands before the
            layers η·c^(L+1), what stands after them η (ULMFiT, arXiv:1801.06146, with the factor of
            BEiT, arXiv:2106.08254). It needs `lr` and implies `by_layer`.
        muon: set apart as ``hidden`` the matrices of exactly two dimensions inside the layers, with
            ``use_muon`` True; all other groups have it False.
        no_decay: names of further parameters without decay; ``*`` stands for any text.
        branches: patterns that tell the layers of a model that `groundup.attach` does not know, as
            there: ``["blocks.{l}.attn.out"]``. Only with `by_layer`, `layer_decay` or `muon`.

    Returns:
        Groups with the keys ``params``, ``weight_decay``, ``name`` and, where they apply,
        ``rotational``, ``out_dim``, ``layer``, ``use_muon`` and ``lr``.

    Raises:
        ValueError: for a value out of range, a name that matches nothing, a model with nothing to
            train, FSDP1 (which makes vectors of all parameters), or, where layers are asked for, a
            model whose layers are not known.

    Example:
        >>> model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 3)
        >>> [(g["name"], len(g["params"])) for g in groups(model)]
        [('matrices', 12), ('no-decay', 24)]
        >>> model = nn.Sequential(nn.Embedding(50, 8), model, nn.Linear(8, 50))
        >>> [(g["name"], len(g["params"])) for g in groups(model)]
        [('matrices', 12), ('head', 1), ('no-decay', 26)]
    """
    _check(weight_decay, lr, layer_decay, branches, by_layer or muon)
    by_layer = by_layer or layer_decay is not None
    model = _bare_model(model)
    parameters = [(stock_name(name), p) for name, p in model.named_parameters()]
    exempt = _exempt(model, parameters, no_decay)
    heads = {id(p) for p in head_of(model)} - exempt
    in_out = {id(m.weight) for m in model.modules() if stored_in_out(m)}
    places = _places(model, parameters, heads, branches) if by_layer or muon else {}

    members: dict[tuple[_Place, str], list[Tensor]] = {}
    for _, p in parameters:
        if p.requires_grad:
            place = places.get(id(p), _NOWHERE)
            kind = "no-decay" if id(p) in exempt else "head" if id(p) in heads else "matrices"
            if muon and kind == "matrices" and place.layer is not None and p.ndim == 2:
                kind = "hidden"
            elif not muon and kind == "matrices" and id(p) in in_out:
                kind = _IN_OUT
            members.setdefault((place if by_layer else _NOWHERE, kind), []).append(p)
    if not members:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient")

    found = []
    for place, kind in sorted(members, key=lambda at: (at[0].order, _KINDS.index(at[1]))):
        group: dict[str, Any] = {
            "params": members[place, kind],
            "weight_decay": 0.0 if kind == "no-decay" else weight_decay,
            "name": f"{place.name} {kind}".strip(),
        }
        if kind in ("head", "no-decay"):
            group["rotational"] = False
        if kind == _IN_OUT:
            group["out_dim"] = 1
        if by_layer:
            group["layer"] = place.layer
        if muon:
            group["use_muon"] = kind == "hidden"
        if lr is not None:
            group["lr"] = lr * (layer_decay or 1.0) ** place.from_end
        found.append(group)
    return found


def _check(
    weight_decay: float,
    lr: float | None,
    layer_decay: float | None,
    branches: Sequence[str] | None,
    layered: bool,
) -> None:
    within("weight_decay", weight_decay, 0.0, float("inf"))
    if lr is not None:
        positive("lr", lr)
    if layer_decay is not None:
        within("layer_decay", positive("layer_decay", layer_decay), 0.0, 1.0)
        if lr is None:
            raise ValueError(f"layer_decay={layer_decay!r} is a factor of the rate: give lr too")
    if branches is not None and not layered and layer_decay is None:
        raise ValueError(
            f"branches={branches!r} would be ignored: they tell the layers, which only by_layer, "
            "layer_decay and muon ask for"
        )


# ---------------------------------------------------------------------- what is not decayed


def _exempt(
    model: nn.Module, parameters: Sequence[tuple[str, Tensor]], no_decay: Sequence[str]
) -> set[int]:
    """The ids of the parameters without weight decay."""
    patterns = {*_patterns(no_decay), *_own_exemptions(model)}
    exempt = set()
    for name, p in parameters:
        last = name.rpartition(".")[2]
        if p.ndim < 2 or last == "bias" or last.endswith("_bias"):
            exempt.add(id(p))
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            exempt |= {id(p) for p in module.parameters()}
        elif _NORM.search(type(module).__name__):
            exempt |= {id(p) for p in module.parameters(recurse=False)}
    for pattern in patterns:
        named = [id(p) for name, p in parameters if fnmatchcase(name, pattern)]
        if not named and pattern in no_decay:
            near = ", ".join(name for name, _ in parameters[:4])
            raise ValueError(
                f"no_decay: {pattern!r} matches no parameter of {type(model).__name__}; their "
                f"names are like {near}, …"
            )
        exempt.update(named)
    return exempt


def _patterns(no_decay: Sequence[str]) -> Sequence[str]:
    if isinstance(no_decay, str) or not all(isinstance(name, str) for name in no_decay):
        raise ValueError(f"no_decay={no_decay!r} is not valid: give a list of names")
    return no_decay


def _own_exemptions(model: nn.Module) -> Iterator[str]:
    """What timm's models say of themselves."""
    for prefix, module in model.named_modules():
        says = getattr(module, "no_weight_decay", None)
        if callable(says):
            yield from (f"{stock_name(prefix)}.{name}".removeprefix(".") for name in says())


# ---------------------------------------------------------------------- layers


@dataclass(frozen=True)
class _Place:
    """Where a parameter stands: `order` of the place, layers `from_end` on (the output: 0)."""

    order: int = 0
    name: str = ""
    layer: int | None = None
    from_end: int = 0


_NOWHERE = _Place()


def _places(
    model: nn.Module,
    parameters: Sequence[tuple[str, Tensor]],
    heads: Container[int],
    branches: Sequence[str] | None,
) -> dict[int, _Place]:
    """The place of each parameter: before the layers, in one of them, after them."""
    layers: dict[int, tuple[str, int]] = {}
    for branch in find_branches(model, branches):
        for parameter in branch.block.parameters():
            layers.setdefault(id(parameter), (branch.stack, branch.layer + 1))
    depths: dict[str, int] = {}
    for stack, layer in layers.values():
        depths[stack] = max(layer, depths.get(stack, 0))
    ordered = sorted(set(layers.values()), key=lambda at: (list(depths).index(at[0]), at[1]))
    orders = {at: order for order, at in enumerate(ordered, start=1)}
    output = _Place(len(ordered) + 1, "output")
    outside = _Place(0, "input", None, max(depths.values()) + 1)
    found = {}
    for _, p in parameters:
        if (at := layers.get(id(p))) is None:
            found[id(p)] = output if id(p) in heads else outside
            continue
        stack, layer = at
        name = f"layer {layer}" if len(depths) == 1 else f"{stack} layer {layer}"
        found[id(p)] = _Place(orders[at], name, layer, depths[stack] + 1 - layer)
        outside = output
    return found


# ---------------------------------------------------------------------- wrappers


def _bare_model(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ValueError(f"model of type {type(model).__name__} is no torch.nn.Module")
    if any("_fsdp_wrapped_module" in module._modules for module in model.modules()):
        raise ValueError(
            "FSDP1 makes vectors of all parameters, so that matrices cannot be told: use FSDP2 "
            "(torch.distributed.fsdp.fully_shard)"
        )
    while (inner := unwrap(inside_wrappers(model) or model)) is not model:
        model = inner
    return model
