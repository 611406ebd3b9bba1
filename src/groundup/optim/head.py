"""The output head of a model: what turns the last representations into logits."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import Tensor, nn

from groundup.residual.names import stock_name

_NUMBER = re.compile(r"\.\d+(?=\.|$)")


def head_of(model: nn.Module) -> Sequence[Tensor]:
    """The parameters of the output head; none where it is not found.

    A tied head is the embedding and is among them. In this order, the first that finds something:

    1. what a module says, by ``get_output_embeddings()`` (Hugging Face) or ``get_classifier()``
       (timm);
    2. in a classifier of Hugging Face, the linear map to ``config.num_labels`` outputs outside of
       its base model;
    3. a linear map as wide as an embedding and with as many outputs as that has entries, outside
       of layers: of modules with a number for a name that do not hold the embedding too. Of several
       the last, and those that stand in one list with it.
    """
    for way in _WAYS:
        found = [p for module in way(model) for p in module.parameters()]
        if found:
            return found
    return []


def _said(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        for method in ("get_output_embeddings", "get_classifier"):
            if callable(ask := getattr(module, method, None)):
                # Parts without a head of their own; methods of that name that want arguments.
                with contextlib.suppress(AttributeError, NotImplementedError, TypeError):
                    yield from _modules(ask())


def _modules(answer: object) -> Iterable[nn.Module]:
    """Some models have several heads (timm's distilled ones)."""
    several = answer if isinstance(answer, list | tuple) else [answer]
    return [module for module in several if isinstance(module, nn.Module)]


def _to_labels(model: nn.Module) -> Sequence[nn.Module]:
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    base = getattr(model, "base_model", None)
    if labels is None or not isinstance(base, nn.Module) or base is model:
        return []
    inside = set(base.modules())
    linear = (m for m in model.modules() if isinstance(m, nn.Linear) and m not in inside)
    return [m for m in linear if m.out_features == labels][-1:]


def _by_size(model: nn.Module) -> list[nn.Module]:
    modules = [(stock_name(name), module) for name, module in model.named_modules()]
    tables = {name: m.weight.shape for name, m in modules if isinstance(m, nn.Embedding)}
    fits = {
        name: module
        for name, module in modules
        if isinstance(module, nn.Linear)
        and module.weight.shape in tables.values()
        and all(_holds_any(layer, tables) for layer in _numbered_around(name))
    }
    last = _NUMBER.sub(".*", next(reversed(fits), ""))
    return [module for name, module in fits.items() if _NUMBER.sub(".*", name) == last]


def _numbered_around(name: str) -> Iterator[str]:
    """The modules around the one of this name whose own name is a number: layers, mostly."""
    parts = name.split(".")
    return (".".join(parts[:i]) for i in range(1, len(parts)) if parts[i - 1].isdigit())


def _holds_any(outer: str, names: Iterable[str]) -> bool:
    return any(name.startswith(f"{outer}.") for name in names)


_WAYS: tuple[Callable[[nn.Module], Iterable[nn.Module]], ...] = (_said, _to_labels, _by_size)
