"""What preparing must know of every file before it starts: what it is recognized by, its length,
and what it can be cut into.

Files here are read once, for a hash of their content, which is remembered for the next time. Files
of a store are not: their size and mark stand for their content.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup._json import seal, unseal
from groundup.data.corpus.compression import is_compressed, open_stream
from groundup.data.corpus.dataset import Dataset
from groundup.data.corpus.files import File, Listing
from groundup.data.corpus.parquet import measure_parquet
from groundup.data.corpus.places import Place

__all__ = ["Known", "Measures", "Remembered", "measure", "remembered", "unread"]

Known = dict[str, list[Any]]
"""Absolute path -> [size, mark, sha256, length, pieces] of the files that have been read."""

_CHUNK = 1 << 20
_RESOLUTION = 2_000_000_000  # nanoseconds, of the coarsest file system's clock
_SAVE = 30.0  # seconds

# Kinds of which not the bytes are cut: their length and the number of their pieces.
_PIECES: dict[str, Callable[[Any], tuple[int, int]]] = {
    "parquet": measure_parquet,
    "dataset": Dataset.count,
}


@dataclass(frozen=True)
class Measures:
    """The files of a source with their lengths, and a hash of all their content."""

    files: tuple[File, ...]
    fingerprint: str

    @property
    def length(self) -> int:
        """Bytes of text, estimated where files are not measured: see `File.amount`."""
        return sum(file.amount for file in self.files)


def measure(
    listing: Listing,
    known: Known,
    progress: Callable[[int], None] = lambda done: None,
    threads: int = 1,
) -> Measures:
    """Measure every file: length, pieces, and a hash of its content, or what a store has for that.

    `known` spares reading files that have not changed, and is brought up to date.
    `progress(done)` counts bytes as stored. Errors: `DataError` for a damaged or truncated file.
    """

    def one(file: File) -> tuple[str, list[Any]]:
        place = listing.root / file.path
        if not isinstance(place, Path):
            return "", [file.size, file.mark, *_asked(place, file)]
        key = os.path.abspath(place)
        old = known.get(key)
        if old is not None and old[:2] == [file.size, file.mark]:
            return key, old
        return key, [file.size, file.mark, *_read(place, file)]

    done, files, identity = 0, [], []
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        for file, (key, entry) in zip(listing.files, pool.map(one, listing.files), strict=True):
            if key:
                known[key] = entry
            _, _, digest, length, *pieces = entry
            files.append(replace(file, length=length, pieces=sum(pieces)))
            identity.append([file.path, file.kind, digest])
            done += max(file.size, 0)
            progress(done)
    finally:
        pool.shutdown(cancel_futures=True)  # an error does not wait for the other files
    return Measures(tuple(files), hashlib.sha256(json.dumps(identity).encode()).hexdigest())


def unread(listing: Listing, known: Known) -> int:
    """Bytes that `measure` would read."""
    return sum(
        file.size
        for file in listing.files
        if isinstance(listing.root, Path)
        and known.get(os.path.abspath(listing.root / file.path), [])[:2] != [file.size, file.mark]
    )


class Remembered(Known):
    """What is known, kept in a file at `path`; see `remembered`."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(unseal(path.read_bytes()))
        except (OSError, ValueError):  # a wrong length would cut the end of a file off
            super().__init__()
        self._path = path
        self._started = time.time_ns()
        self._saved, self._when = dict(self), time.monotonic()

    def save(self, least: float = _SAVE) -> None:
        """Write it back, if the last time is `least` seconds ago and there is something new."""
        if time.monotonic() - self._when < least:
            return
        # A file changed within the clock's resolution would keep its stamp: only older ones.
        settled = {k: entry for k, entry in self.items() if entry[1] < self._started - _RESOLUTION}
        if settled != self._saved:
            atomic_write(self._path, seal(settled))
        self._saved, self._when = settled, time.monotonic()


@contextmanager
def remembered(path: Path) -> Iterator[Remembered]:
    """What the file at `path` knows; written back when the block ends well."""
    known = Remembered(path)
    yield known
    known.save(least=0.0)


def _asked(place: Place, file: File) -> tuple[str, int, int]:
    """Of a file that is not read: its hash, its length (-1: unknown) and its pieces."""
    length, pieces = -1 if is_compressed(place) else file.size, 0
    if file.kind in _PIECES:
        length, pieces = _PIECES[file.kind](place)
    return f"{file.size} {file.mark}", length, pieces


def _read(place: Path, file: File) -> tuple[str, int, int]:
    digest, length, pieces = hashlib.sha256(), 0, 0
    with open_stream(place) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            length += len(chunk)
    if file.kind in _PIECES:
        length, pieces = _PIECES[file.kind](place)
    return digest.hexdigest(), length, pieces
