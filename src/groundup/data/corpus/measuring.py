"""Reading a source once: the length and the hash of every file, remembered for the next time."""

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
from groundup.data.corpus.compression import open_stream
from groundup.data.corpus.files import File, Listing

__all__ = ["Known", "Measures", "measure", "remembered"]

Known = dict[str, list[Any]]
"""Absolute path -> [size, mtime_ns, sha256, length] of the files that have been read."""

_CHUNK = 1 << 20
_RESOLUTION = 2_000_000_000  # nanoseconds, of the coarsest file system's clock


@dataclass(frozen=True)
class Measures:
    """The files of a source with their lengths, and a hash of all their content."""

    files: tuple[File, ...]
    fingerprint: str

    @property
    def length(self) -> int:
        """Bytes of text, uncompressed."""
        return sum(file.length for file in self.files)


def measure(
    listing: Listing,
    known: Known,
    progress: Callable[[int], None] = lambda done: None,
    threads: int = 1,
) -> Measures:
    """Read every file once: its uncompressed length, and the SHA-256 of its content.

    `known` spares reading files that have not changed, and is brought up to date.
    `progress(done)` counts bytes on disk. Errors: `DataError` for a damaged or truncated archive.
    """

    def one(file: File) -> tuple[str, list[Any]]:
        key = os.path.abspath(listing.root / file.path)
        old = known.get(key)
        if old is not None and old[:2] == [file.size, file.mtime_ns]:
            return key, old
        return key, [file.size, file.mtime_ns, *_read(Path(key))]

    done, files, identity = 0, [], []
    pool = ThreadPoolExecutor(max_workers=threads)
    try:
        for file, (key, entry) in zip(listing.files, pool.map(one, listing.files), strict=True):
            known[key] = entry
            _, _, digest, length = entry
            files.append(replace(file, length=length))
            identity.append([file.path, file.kind, digest])
            done += file.size
            progress(done)
    finally:
        pool.shutdown(cancel_futures=True)  # an error does not wait for the other files
    return Measures(tuple(files), hashlib.sha256(json.dumps(identity).encode()).hexdigest())


@contextmanager
def remembered(path: Path) -> Iterator[Known]:
    """What the file at `path` knows; written back when the block ends well."""
    try:
        known: Known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        known = {}
    before, started = dict(known), time.time_ns()
    yield known
    # A file changed within the clock's resolution would keep its stamp: remember older ones only.
    settled = {key: entry for key, entry in known.items() if entry[1] < started - _RESOLUTION}
    if settled != before:
        atomic_write(path, json.dumps(settled).encode())


def _read(path: Path) -> tuple[str, int]:
    digest, length = hashlib.sha256(), 0
    with open_stream(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            length += len(chunk)
    return digest.hexdigest(), length
