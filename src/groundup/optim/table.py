"""What is known of optimizers by name, and where their classes are.

To read what a recipe says needs no torch: it is imported where a class is looked for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from groundup._check import unknown
from groundup.optim.entries import ENTRIES, Entry

if TYPE_CHECKING:
    import torch

_TABLE = {entry.name: entry for entry in ENTRIES}
_BY_CLASS = {entry.where.rpartition(":")[2].lower(): entry for entry in ENTRIES}
_AT_HAND = ("torch", "groundup")
_PACKAGES = {"torch": "torch.optim", "pytorch_optimizer": "pytorch_optimizer"}


def names(installed: bool = True) -> list[str]:
    """The names of the table; with ``installed=False`` also those whose package is missing."""
    return [name for name, entry in _TABLE.items() if not installed or _is_there(entry.where)]


def info(name: str) -> Entry:
    """What is known of an optimizer.

    Args:
        name: one of `names` or its class (case and ``_`` for ``-`` do not matter), a class of
            torch.optim ("Rprop" or "torch:Rprop"), or one of pytorch_optimizer
            ("pytorch_optimizer:Prodigy").
            Of the latter two nothing is known but the defaults of the class.

    Raises:
        ValueError: for an unknown name, or a class whose package is not installed.
    """
    entry = _TABLE.get(name.lower().replace("_", "-")) or _BY_CLASS.get(name.lower())
    if entry is not None:
        return entry
    import torch

    package, _, cls = name.rpartition(":")
    package = package or "torch"
    if package not in _PACKAGES or (package == "torch" and cls not in _classes(torch.optim)):
        valid = [*_TABLE, *_classes(torch.optim), "pytorch_optimizer:<class>"]
        raise unknown("optimizer", name, valid)
    where = f"{_PACKAGES[package]}:{cls}"
    named = parameters(name, locate(name, where))
    known = {key: p.default for key, p in named.items() if p.default is not p.empty}
    return Entry(name, where, f"{cls} of {package}", "", known, decay="unknown", warmup="unknown")


def surely_takes(name: str, options: Iterable[str]) -> bool:
    """Whether there is nothing to try out: an optimizer of the table, of torch or ours, that has
    all of `options` among its defaults and needs no weight decay above 0 (as angles do)."""
    entry = _TABLE.get(name)
    if entry is None or entry.where.partition(".")[0] not in _AT_HAND or entry.decay == "angle":
        return False
    return entry.defaults.keys() >= set(options)


# ---------------------------------------------------------------------- classes


def _classes(module: ModuleType) -> list[str]:
    import torch

    found = inspect.getmembers(module, inspect.isclass)
    base = torch.optim.Optimizer
    return [key for key, cls in found if issubclass(cls, base) and cls is not base]


def _is_there(where: str) -> bool:
    """Without importing anything heavy."""
    module, _, cls = where.partition(":")
    package = module.partition(".")[0]
    if package not in _AT_HAND:
        return find_spec(package) is not None
    try:
        return hasattr(importlib.import_module(module), cls)
    except ImportError:
        return False


def locate(name: str, where: str) -> type[torch.optim.Optimizer]:
    """The class ``"module:Class"`` of the optimizer `name`; ValueError if it is not there."""
    module, _, cls = where.partition(":")
    package = module.partition(".")[0]
    try:
        place = importlib.import_module(module)
    except ImportError as error:
        install = package if package == "pytorch_optimizer" else "torch"
        raise ValueError(
            f"optimizer={name!r} is {cls} of {module}, which cannot be imported ({error}): "
            f"pip install -U {install}"
        ) from None
    if cls not in _classes(place):
        near = difflib.get_close_matches(cls, _classes(place), n=5, cutoff=0.0)
        raise unknown(f"optimizer={name!r}: class", cls, [*near, f"the others of {module}"])
    return getattr(place, cls)


def parameters(name: str, cls: type) -> dict[str, inspect.Parameter]:
    """The named arguments of a class, but for its parameters."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(cls).parameters
    if "params" not in found:
        raise ValueError(f"{name} is made of something else than parameters: construct it yourself")
    return {key: p for key, p in found.items() if p.kind in named and key != "params"}
