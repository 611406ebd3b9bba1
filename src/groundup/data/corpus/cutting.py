"""Cutting a source into shards: a few small files, or a range of bytes of a large one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from groundup.data.corpus.compression import is_compressed
from groundup.data.corpus.files import File, Listing
from groundup.data.corpus.measuring import Measures

__all__ = ["SECTION", "WHOLE", "Shard", "shards"]

SECTION = 1 << 16
"""A text file longer than `WHOLE` becomes one document per `SECTION` bytes, cut at line ends."""
WHOLE = 1 << 20
_SMALLEST, _LARGEST = 1 << 18, 1 << 25
_PIECES = 16  # of a compressed file, each of which decompresses it from the start


@dataclass(frozen=True)
class Shard:
    """Whole `files`, or what starts at bytes start..stop-1 of a single one (stop -1: its end)."""

    root: str
    field: str  # of a JSONL line
    files: tuple[File, ...]
    start: int
    stop: int
    length: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Shard:
        return cls(**{**values, "files": tuple(File(**file) for file in values["files"])})


def shards(listing: Listing, measures: Measures, field: str) -> list[Shard]:
    """The source as shards, in order: about 1/512 of it each, but 256 KiB to 32 MiB."""
    root = str(listing.root)
    wanted = _sections(min(max(measures.length // 512, _SMALLEST), _LARGEST))
    result: list[Shard] = []
    group: list[File] = []
    size = 0

    def flush() -> None:
        nonlocal size
        if group:
            result.append(Shard(root, field, tuple(group), 0, -1, size))
        group.clear()
        size = 0

    for file in measures.files:
        divisible = file.kind == "jsonl" or (file.kind == "text" and file.length > WHOLE)
        if divisible and file.length > wanted:
            flush()
            step = wanted
            if is_compressed(PurePath(file.path)):
                step = max(step, _sections(file.length // _PIECES))
            for start in range(0, file.length, step):
                stop = min(start + step, file.length)
                result.append(Shard(root, field, (file,), start, stop, stop - start))
        else:
            group.append(file)
            size += file.length
            if size >= wanted:
                flush()
    flush()
    return result


def _sections(length: int) -> int:
    """`length` rounded up to whole sections."""
    return -(-length // SECTION) * SECTION
