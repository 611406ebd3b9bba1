"""From a checkpoint into a model and an optimizer, whatever either is sharded over."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

from groundup.train.checkpoint import manifest, names, places, plain_state
from groundup.train.checkpoint.errors import (
    CheckpointError,
    Damaged,
    Unreadable,
    cause,
    reason,
    together,
)
from groundup.train.checkpoint.metadata import NAME, Reader
from groundup.train.world import ALONE, World

T = TypeVar("T")
Kept = dict[Tensor, dict[str, Tensor]]
_MANY = 5


def load(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    world: World = ALONE,
    note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Read the checkpoint of `step` into model and optimizer, in place; returns its plain data.

    Every process of `world` calls it; it may have been written by another number of them, and
    sharded otherwise. `note` is told if it holds no checksums.

    Raises:
        Damaged: naming the folder, if it is not what was written.
        Unreadable: naming the folder, if it cannot be read.
        CheckpointError: naming the folder, if it is of another model or optimizer.
    """
    place = places.place_of(folder, step)
    entries = together(world, lambda: _named(place, lambda: manifest.load(place)))
    if entries is None:
        note(f"the checkpoint {place} holds no checksums: an older groundup wrote it")
    else:
        # Each process reads its part; the largest first.
        ordered = sorted(entries, key=lambda name: (-entries[name].size, name))
        mine = ordered[world.rank :: world.size]
        check = partial(manifest.verify, place, entries, mine)
        together(world, lambda: _named(place, check))
    wrong = Damaged if entries is None else Unreadable
    open_ = _guarded(wrong, lambda: (_state(place), _reader(place, entries)))
    with _one_process():
        state, reader = together(world, lambda: _named(place, open_))
        tensors = names.of_model(model)
        _compare(place, reader.tensors, tensors)
        kept: Kept = {}
        if optimizer is not None:
            known = names.parameters(model)
            _compare_optimizer(place, optimizer, state["optimizer"], set(known.values()))
            kept, others = _room(model, optimizer, reader.tensors)
            tensors |= others
            for p, own in kept.items():
                tensors |= {f"{names.STATE}{known[p]}.{key}": own[key] for key in own}
        # Each process reads what it needs, without a word to the others.
        fill = _guarded(wrong, lambda: dcp.load(tensors, storage_reader=reader, no_dist=True))
        together(world, lambda: _named(place, fill))
    plain = state.pop("optimizer")
    if optimizer is not None:
        _put(model, optimizer, kept, plain)
    return state


# ---------------------------------------------------------------------- opening


def _state(place: Path) -> dict[str, Any]:
    state = json.loads((place / places.STATE).read_text(encoding="utf-8"))
    if not isinstance(state, dict):
        raise TypeError(f"{places.STATE} is a {type(state).__name__}, not an object")
    plain = state.get("optimizer")
    if plain is None:
        raise CheckpointError("it was written by an older groundup, without all of the optimizer")
    tables = [*plain["groups"], *plain["state"].values()]
    if not all(isinstance(table, dict) for table in tables):
        raise TypeError(f"the optimizer in {places.STATE} is no table of tables")
    return state


def _reader(place: Path, entries: Collection[str] | None) -> Reader:
    there = [path.name for path in place.iterdir()] if entries is None else entries
    try:
        return Reader(place, {name for name in there if name.endswith(".distcp")})
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{NAME}: {reason(error)}") from error


def _guarded(wrong: type[CheckpointError], work: Callable[[], T]) -> Callable[[], T]:
    """`work`, with the many errors that wrong contents cause as one; if the disk cannot be read or
    memory is short nothing is known about the contents."""

    def guarded() -> T:
        try:
            return work()
        except (CheckpointError, MemoryError, torch.OutOfMemoryError):
            raise
        except (Exception, CheckpointException) as error:  # the latter is no Exception
            inner = cause(error)
            if isinstance(inner, FileNotFoundError):
                raise wrong(f"{Path(inner.filename).name} is missing") from error
            kind = Unreadable if isinstance(inner, OSError) else wrong
            raise kind(reason(error)) from error

    return guarded


def _named(place: Path, work: Callable[[], T]) -> T:
    try:
        return work()
    except CheckpointError as error:
        raise type(error)(f"the checkpoint {place} cannot be read: {error}") from error


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """DCP warns when it is asked, as it is here, to work without a process group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


# ---------------------------------------------------------------------- fitting


def _compare(
    place: Path, saved: Mapping[str, TensorStorageMetadata], tensors: Mapping[str, Tensor]
) -> None:
    """CheckpointError with the names of the model's tensors that differ."""
    there = {name: tuple(about.size) for name, about in saved.items() if _of_model(name)}
    here = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    differ = [
        f"{name.removeprefix(names.MODEL)} {there.get(name, 'is not')} there and "
        f"{here.get(name, 'not')} here"
        for name in sorted(there.keys() | here.keys())
        if there.get(name) != here.get(name)
    ]
    if differ:
        more = f" and {len(differ) - _MANY} more" if len(differ) > _MANY else ""
        raise CheckpointError(
            f"the checkpoint {place} is of another model: {', '.join(differ[:_MANY])}{more}"
        )


def _of_model(name: str) -> bool:
    return name.startswith(names.MODEL)


def _compare_optimizer(
    place: Path, optimizer: torch.optim.Optimizer, plain: dict[str, Any], known: set[str]
) -> None:
    there, here = len(plain["groups"]), len(optimizer.param_groups)
    if there != here:
        raise CheckpointError(
            f"the checkpoint {place} is of another optimizer: it has {there} groups of parameters "
            f"there and {here} here"
        )
    if unknown := plain["state"].keys() - known:
        raise CheckpointError(
            f"the checkpoint {place} is of another model: its optimizer updates {min(unknown)}, "
            "which is not here"
        )


# ---------------------------------------------------------------------- the optimizer


def _room(
    model: nn.Module, optimizer: torch.optim.Optimizer, saved: Mapping[str, TensorStorageMetadata]
) -> tuple[Kept, dict[str, Tensor]]:
    """A tensor for each that the saved optimizer kept for a parameter, and those of its groups.

    They are the optimizer's own where it has them in that shape and type, so that what it shards
    stays sharded as it does.
    """
    kept: Kept = {}
    if any(name.startswith(names.STATE) for name in saved) and not optimizer.state:
        # For what it does besides: an optimizer that has none makes its state, by an update of rate
        # 0 with gradients of 0.
        get_optimizer_state_dict(model, optimizer)
    found = names.of_optimizer(model, optimizer)
    known = {name: p for p, name in names.parameters(model).items()}
    for full, about in saved.items():
        if not full.startswith(names.STATE):
            continue
        name, key = _split(full.removeprefix(names.STATE), known)
        p, own = known[name], found.get(full)
        if own is None or own.shape != about.size or own.dtype != about.properties.dtype:
            like = p if p.shape == about.size else torch.empty(about.size, device=p.device)
            own = torch.zeros_like(like, dtype=about.properties.dtype, requires_grad=False)
        kept.setdefault(p, {})[key] = own
    groups = {n: t for n, t in found.items() if n.startswith(names.GROUPS) and n in saved}
    return kept, groups


def _split(full: str, known: Mapping[str, Tensor]) -> tuple[str, str]:
    """The parameter and what is kept for it, of "layers.0.weight.exp_avg"."""
    end = len(full)
    while (end := full.rfind(".", 0, end)) > 0:
        if full[:end] in known:
            return full[:end], full[end + 1 :]
    raise CheckpointError(f"the checkpoint holds {full} of an optimizer: no such parameter is here")


def _put(
    model: nn.Module, optimizer: torch.optim.Optimizer, kept: Kept, plain: dict[str, Any]
) -> None:
    """Give the optimizer its state: what was saved, to the bit, and nothing else."""
    optimizer.state.clear()
    plain_state.restore(model, optimizer, plain)
    for p, own in kept.items():
        optimizer.state[p].update(own)
    # What hangs at its loading looks at the groups now (the steps of schedules).
    optimizer.load_state_dict(optimizer.state_dict())
    for p, own in kept.items():
        optimizer.state[p].update(own)  # loading casts to the type of the parameter
