"""Data sets of the Hugging Face library `datasets`, streamed: from the hub, a folder or files.

    dataset:allenai/c4?config=en&split=train
    dataset:./folder-of-save_to_disk
    dataset:json?data_files=logs/*.jsonl&data_files=more.jsonl

No code of a data set is run (the library has dropped that in version 4).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import parse_qsl, urlencode

from groundup.data.errors import DataError

__all__ = ["PREFIX", "Dataset", "dataset", "is_saved"]

PREFIX = "dataset:"
_OPTIONS = ("config", "split", "revision", "data_dir", "data_files")
_BATCH = 256  # rows
# What save_to_disk leaves in a folder: of a data set, of one with splits.
_SAVED = (("state.json", "dataset_info.json"), ("dataset_dict.json",))


@dataclass(frozen=True)
class Dataset:
    """A data set, or the one of its shards that `path` numbers."""

    address: str
    path: str = ""

    def __truediv__(self, path: str) -> Dataset:
        return replace(self, path=path)

    def __str__(self) -> str:
        return f"{self.address}, shard {self.path}" if self.path else self.address

    @property
    def suffix(self) -> str:
        return ""

    def open(self, mode: str = "rb") -> Any:
        raise DataError(f"{self}: a data set has rows, and no bytes")

    def resolve(self) -> Dataset:
        return self

    def state(self) -> tuple[int, str]:
        """No size, and what its revision or its files are recognized by. Errors: `DataError`."""
        return -1, _opened(self.address).mark

    def count(self) -> tuple[int, int]:
        """Bytes (-1: unknown), and rows if ranges of them can be read alone, else 0."""
        rows = _opened(self.address).rows
        return (-1, 0) if rows is None else (int(rows.data.nbytes), len(rows))

    def texts(self, start: int, stop: int, field: str, skipped: Counter[str]) -> Iterator[str]:
        """`field` of its rows, or of rows start..stop-1 if ranges can be read (stop -1: the end).

        Nulls are counted in `skipped`. Errors: `DataError` naming the row.
        """
        opened = _opened(self.address)
        names = opened.stream.column_names
        if names is not None and field not in names:
            there = ", ".join(map(repr, names[:12])) or "none"
            raise DataError(f"{self}: there is no text_field {field!r}; the columns: {there}")
        row = start
        for values in self._columns(opened, start, stop, field):
            for value in values:
                if value is None:
                    skipped["null documents"] += 1
                elif isinstance(value, str):
                    yield value
                else:
                    raise DataError(
                        f"{self}, row {row + 1}: text_field {field!r} is {type(value).__name__}; "
                        "it must be a string"
                    )
                row += 1

    def _columns(self, opened: _Opened, start: int, stop: int, field: str) -> Iterator[list[Any]]:
        row = start
        try:
            if opened.rows is not None:
                chosen = opened.rows.select_columns([field])
                stop = len(chosen) if stop < 0 else stop
                batches = (chosen[i : min(i + _BATCH, stop)] for i in range(start, stop, _BATCH))
            else:
                stream = opened.stream
                index = int(self.path.partition("-")[0])
                shard = stream.shard(num_shards=stream.num_shards, index=index)
                if shard.column_names is not None:
                    shard = shard.select_columns([field])
                batches = shard.iter(batch_size=_BATCH)
            for batch in batches:
                if field not in batch:
                    there = ", ".join(map(repr, list(batch)[:12])) or "none"
                    raise DataError(
                        f"{self}, row {row + 1}: there is no text_field {field!r}; "
                        f"the row's fields: {there}"
                    )
                yield batch[field]
                row += len(batch[field])
        except (DataError, GeneratorExit):
            raise
        except Exception as error:  # the library lets through what its readers raise
            raise DataError(f"{self}, after row {row}: cannot be read: {_told(error)}") from error


def is_saved(folder: Path) -> bool:
    """Whether save_to_disk has made this folder."""
    return any(all((folder / name).is_file() for name in names) for names in _SAVED)


def dataset(address: str, field: str) -> tuple[Dataset, list[str]]:
    """The data set of an address, pinned to the revision that it has now, and its shards' names.

    Errors: `DataError` naming `field` and the address if it cannot be found.
    """
    try:
        opened = _opened(address)
    except DataError as error:
        raise DataError(f"{field}={address!r}: {error}") from error
    pinned = Dataset(address)
    if opened.revision is not None:
        name, options = _parsed(address)
        pinned = Dataset(
            _spelled(
                name, [*(o for o in options if o[0] != "revision"), ("revision", opened.revision)]
            )
        )
    shards = opened.stream.num_shards if opened.rows is None else 1
    return pinned, [f"{index:05d}-of-{shards:05d}" for index in range(shards)]


@dataclass(frozen=True)
class _Opened:
    stream: Any  # IterableDataset, or Dataset
    rows: Any  # Dataset, if any row can be reached
    mark: str
    revision: str | None


@lru_cache(maxsize=4)
def _opened(address: str) -> _Opened:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{address}: reading data sets needs the package datasets: pip install 'groundup[data]'"
        ) from error
    name, options = _parsed(address)
    try:
        return (_from_disk if is_saved(Path(name)) else _streamed)(datasets, name, options)
    except DataError:
        raise
    except Exception as error:  # the library's, its readers' and the network's
        raise DataError(f"{address}: cannot be opened: {_told(error)}") from error


def _streamed(datasets: Any, name: str, options: list[tuple[str, str]]) -> _Opened:
    given: dict[str, Any] = {k: v for k, v in options if k not in ("split", "data_files")}
    files = [value for key, value in options if key == "data_files"]
    split = dict(options).get("split", "train")
    builder = datasets.load_dataset_builder(
        name, given.pop("config", None), data_files=files or None, **given
    )
    stream = builder.as_streaming_dataset(split=split)
    found = (builder.config.data_files or {}).get(split)
    marks: Any = builder.hash
    revision = None
    if found is not None:
        marks = [[PurePath(f).name, *m] for f, m in zip(found, found.origin_metadata, strict=True)]
        if builder.repo_id is not None and found.origin_metadata:
            _, revision = found.origin_metadata[0]
    identity = json.dumps([builder.name, builder.config.name, split, marks])
    return _Opened(stream, None, hashlib.sha256(identity.encode()).hexdigest(), revision)


def _from_disk(datasets: Any, name: str, options: list[tuple[str, str]]) -> _Opened:
    ignored = [key for key, _ in options if key != "split"]
    if ignored:
        raise DataError(f"{name}: {ignored[0]} would be ignored: a saved data set has only splits")
    data = datasets.load_from_disk(name)
    if isinstance(data, dict):
        split = dict(options).get("split", "train")
        if split not in data:
            raise DataError(f"{name}: there is no split {split!r}; valid are {sorted(data)}")
        data = data[split]
    elif options:
        raise DataError(f"{name}: split would be ignored: this data set was saved without splits")
    files = [Path(file["filename"]) for file in data.cache_files]
    state = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    digest = hashlib.sha256(json.dumps([data._fingerprint, state]).encode())
    return _Opened(data, data, digest.hexdigest(), None)


def _parsed(address: str) -> tuple[str, list[tuple[str, str]]]:
    name, question, rest = address.removeprefix(PREFIX).partition("?")
    try:
        options = parse_qsl(rest, strict_parsing=True) if question else []
    except ValueError as error:
        raise DataError(f"{address}: after the ? must come name=value&name=value") from error
    for key, _ in options:
        if key not in _OPTIONS:
            raise DataError(f"{address}: {key!r} is not valid: valid are {', '.join(_OPTIONS)}")
        if key != "data_files" and sum(other == key for other, _ in options) > 1:
            raise DataError(f"{address}: {key} is given twice")
    if not name:
        raise DataError(f"{address}: name a data set, as in dataset:allenai/c4?config=en")
    return name, options


def _spelled(name: str, options: list[tuple[str, str]]) -> str:
    return f"{PREFIX}{name}?{urlencode(options, safe='/*')}" if options else PREFIX + name


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
