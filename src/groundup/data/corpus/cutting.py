"""Cutting a source into shards: a few small files, or a range of a large one.

The range is of bytes, or of pieces (row groups, rows) where a file has those.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from groundup.data.corpus.compression import is_compressed
from groundup.data.corpus.files import File, Listing
from groundup.data.corpus.measuring import Measures
from groundup.data.corpus.places import root_of

__all__ = ["SECTION", "WHOLE", "Shard", "shards"]

SECTION = 1 << 16
"""A text file longer than `WHOLE` becomes one document per `SECTION` bytes, cut at line ends."""
WHOLE = 1 << 20
_SMALLEST, _LARGEST = 1 << 18, 1 << 25
_PIECES = 16  # of a compressed file, each of which decompresses it from the start


@dataclass(frozen=True)
class Shard:
    """Whole `files`, or what starts at bytes (or pieces) start..stop-1 of a single one.

    `stop` -1: its end. `length`: bytes of text, about.
    """

    root: str  # a `Place`: see `root_of`
    field: str  # of a JSONL line; a column of a table
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
    root = root_of(listing.root)
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
        ranges = _ranges(file, wanted)
        if len(ranges) > 1:
            flush()
            result += [Shard(root, field, (file,), *cut) for cut in ranges]
        else:
            group.append(file)
            size += file.amount
            if size >= wanted:
                flush()
    flush()
    return result


def _ranges(file: File, wanted: int) -> list[tuple[int, int, int]]:
    """A file as (start, stop, bytes of text) of about `wanted` bytes each; none if it stays whole.

    A file that is not measured stays whole, since another range would read it from its start too.
    """
    if file.pieces:
        count = min(file.pieces, -(-file.amount // wanted))
        bounds = [file.pieces * i // count for i in range(count + 1)] if count else []
        return [(a, b, file.amount * (b - a) // file.pieces) for a, b in pairwise(bounds)]
    divisible = file.kind == "jsonl" or (file.kind == "text" and file.length > WHOLE)
    if not divisible or file.length <= wanted:
        return []
    step = wanted
    if is_compressed(PurePath(file.path)):
        step = max(step, _sections(file.length // _PIECES))
    starts = range(0, file.length, step)
    return [(a, min(a + step, file.length), min(step, file.length - a)) for a in starts]


def _sections(length: int) -> int:
    """`length` rounded up to whole sections."""
    return -(-length // SECTION) * SECTION
