"""Checkpoints: tensors by PyTorch's distributed checkpoint (DCP), everything else JSON.

    checkpoints/step-00000200/    .metadata, __0_0.distcp (DCP), state.json

A checkpoint is written beside its place and renamed when it is whole, so a half-written one is
never taken. Loading executes no code: DCP's own metadata, the only pickle there is, passes an
unpickler that knows DCP's data classes and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from groundup.train import plain_state

_OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True)
_PREFIX = "step-"
_STATE = "optimizer.state."
# What DCP's metadata is made of; see torch.distributed.checkpoint.metadata.
_ALLOWED = {
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.checkpoint.filesystem",
}
_ALLOWED_NAMES = {
    ("torch", "Size"),
    ("torch", "device"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("builtins", "set"),
}


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit."""


def save(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer,
         state: dict[str, Any], keep: int, needed: int | None = None) -> Path:  # fmt: skip
    """Write the checkpoint of `step` completed updates into `folder`; keep the newest `keep`, and
    that of the step `needed` if it is there.

    `state` is plain data beside the tensors. Returns the checkpoint's own folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{_PREFIX}{step:08d}"
    if place.is_dir():
        return place
    building = folder / f".{place.name}.partial"
    shutil.rmtree(building, ignore_errors=True)
    with _one_process():
        writer = FileSystemWriter(building, sync_files=True)
        dcp.save(_tensors(model, optimizer), storage_writer=writer, no_dist=True)
    plain = plain_state.gather(model, optimizer)
    text = json.dumps({"step": step, "optimizer": plain, **state}, indent=1, sort_keys=True)
    with open(building / "state.json", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.rename(building, place)
    _sync(folder)
    for old in steps_in(folder)[:-keep]:
        if old != needed:
            shutil.rmtree(folder / f"{_PREFIX}{old:08d}")
    return place


def steps_in(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in `folder`, rising."""
    names = (path.name for path in folder.glob(f"{_PREFIX}*") if path.is_dir())
    return sorted(int(name[len(_PREFIX) :]) for name in names if name[len(_PREFIX) :].isdecimal())


def states(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The steps of the complete checkpoints in `folder`, rising, each with its plain data; one that
    cannot be read is left to `load`."""
    for step in steps_in(folder):
        with contextlib.suppress(OSError, ValueError):
            text = (folder / f"{_PREFIX}{step:08d}" / "state.json").read_text(encoding="utf-8")
            yield step, json.loads(text)


def remove(folder: Path, step: int) -> None:
    """Remove a checkpoint; killed on the way, it is no checkpoint any more."""
    place = folder / f"{_PREFIX}{step:08d}"
    leaving = folder / f".{place.name}.removed"
    shutil.rmtree(leaving, ignore_errors=True)
    os.rename(place, leaving)
    _sync(folder)
    shutil.rmtree(leaving)


def load(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer | None) \
        -> dict[str, Any]:  # fmt: skip
    """Read the checkpoint of `step` into model and optimizer, in place; returns its plain data.

    Raises:
        CheckpointError: naming the folder, if it is damaged or holds other tensors.
    """
    place = folder / f"{_PREFIX}{step:08d}"
    tensors = _tensors(model, optimizer)
    try:
        state = json.loads((place / "state.json").read_text(encoding="utf-8"))
        if "optimizer" not in state:
            raise ValueError("it was written by an older groundup, without all of the optimizer")
        reader = _Reader(place)
        # DCP itself would only say that there is none.
        saved = reader.read_metadata().state_dict_metadata
        if optimizer is not None:
            tensors |= _not_yet_there(saved, tensors)
        with _one_process():
            dcp.load(tensors, storage_reader=reader, no_dist=True)
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        raise CheckpointError(
            f"the checkpoint {place} cannot be read: {_reason(error)}{_way_on(folder, step)}"
        ) from error
    if optimizer is not None:
        full = get_optimizer_state_dict(model, optimizer, options=_OPTIONS)
        for name in full:
            full[name] = tensors.get(f"optimizer.{name}", full[name])
        set_optimizer_state_dict(model, optimizer, full, options=_OPTIONS)
        for name, parameter in model.named_parameters():
            prefix = f"{_STATE}{name}."
            own = {key: tensors[key] for key in tensors if key.startswith(prefix)}
            for key, value in own.items():
                value = value.to(parameter.device)
                optimizer.state[parameter].setdefault(key.removeprefix(prefix), value)
        plain_state.restore(model, optimizer, state.pop("optimizer"))
    return state


def _not_yet_there(saved: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
    """Room for what the saved optimizer kept and a fresh one does not yet."""
    return {
        name: torch.empty(about.size, dtype=about.properties.dtype)
        for name, about in saved.items()
        if name.startswith(_STATE) and name not in tensors
        if isinstance(about, TensorStorageMetadata)
    }


def _reason(error: BaseException) -> str:
    """In one line; DCP wraps the errors of its ranks."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _way_on(folder: Path, step: int) -> str:
    before = [n for n in steps_in(folder) if n < step]
    if not before:
        return ""
    return f". The one before is kept: remove this folder to go on after {before[-1]} updates"


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """All tensors under flat names; what else an optimizer keeps is in state.json."""
    found: dict[str, Any] = {f"model.{k}": v for k, v in model.state_dict().items()}
    if optimizer is not None:
        full = get_optimizer_state_dict(model, optimizer, options=_OPTIONS)
        found |= {f"optimizer.{k}": v for k, v in full.items() if isinstance(v, torch.Tensor)}
    return found


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """DCP warns when it is asked, as it is here, to work without a process group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _ALLOWED or (module, name) in _ALLOWED_NAMES:
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint's metadata")


class _Reader(FileSystemReader):
    """DCP's reader with an unpickler that executes nothing."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with self.fs.create_stream(self.fs.concat_path(self.path, ".metadata"), "rb") as stream:
            metadata = _Unpickler(stream).load()
        if not isinstance(metadata, Metadata):
            raise pickle.UnpicklingError(f"metadata is a {type(metadata).__name__}")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
