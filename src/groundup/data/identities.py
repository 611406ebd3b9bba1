"""Documents by their text: a stable id of each, and which of many have been there before.

A file of ids holds, for each document, 16 bytes of id and 4 of its number in its token file, sorted
by id. So what several files have in common is found one range of ids at a time, in memory that does
not depend on how many documents there are but for one bit each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup._atomic import atomic_write
from groundup.data.errors import TokenFileError

__all__ = ["Identities", "Repeats", "check_identities", "document_id", "repeats"]

_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("document", "<u4")])
_MEMORY = 1 << 30  # bytes, about
_COST = 80  # bytes of memory for a row that is compared


def document_id(text: str) -> str:
    """A document's id, from its text alone: 128 bits of BLAKE2b, hexadecimal."""
    return _digest(text).hex()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, person=b"groundup-text").digest()


class Identities:
    """Collects the ids of documents, in order."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, text: str) -> None:
        """The next document."""
        self._bytes += _digest(text)

    def write(self, path: Path) -> str:
        """Write the file, atomically; its SHA-256."""
        ids = np.frombuffer(self._bytes, dtype=">u8").reshape(-1, 2)
        rows = np.empty(len(ids), dtype=_ROW)
        rows["high"], rows["low"], rows["document"] = ids[:, 0], ids[:, 1], np.arange(len(ids))
        content = rows[np.lexsort((rows["low"], rows["high"]))].tobytes()
        atomic_write(path, content)
        return hashlib.sha256(content).hexdigest()


def check_identities(path: Path, digest: str) -> None:
    """Errors: `TokenFileError` if the file is not what `write` has written."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise TokenFileError(f"{path}: the ids are damaged")


@dataclass(frozen=True)
class Repeats:
    """Which documents of several files have been there before."""

    counts: NDArray[np.int64]
    """How many of each file: [files]."""
    _bits: NDArray[np.uint8]
    _first: list[int]

    def of(self, file: int) -> NDArray[np.bool_]:
        """Of the documents of that file, in order: bool [documents]."""
        start, stop = self._first[file : file + 2]
        bits = np.unpackbits(self._bits[start // 8 : -(-stop // 8)], bitorder="little")
        return bits[start % 8 : start % 8 + stop - start].astype(np.bool_)


def repeats(files: Sequence[Path], memory: int = _MEMORY) -> Repeats:
    """The documents of which an equal one comes earlier, in an earlier file or the same.

    Reads 20 bytes a document, once; `memory`: bytes, about, and a bit for each document besides.
    """
    counts = [path.stat().st_size // _ROW.itemsize for path in files]
    first = np.cumsum([0, *counts]).tolist()
    bits = np.zeros(-(-first[-1] // 8), dtype=np.uint8)
    repeated = np.zeros(len(files), dtype=np.int64)
    ranges = max(1, -(-first[-1] * _COST // memory))
    edges = [(1 << 64) * i // ranges for i in range(1, ranges)]
    places = [0] * len(files)  # where the next range begins in each file
    for edge in [*edges, None]:
        found = [np.empty(0, dtype=_ROW)]
        number = [np.empty(0, dtype=np.int64)]
        for index, path in enumerate(files):
            if counts[index] == places[index]:
                continue
            rows = np.memmap(path, dtype=_ROW, mode="r")
            start, stop = places[index], counts[index]
            if edge is not None:
                stop = int(np.searchsorted(rows["high"], np.uint64(edge)))
            found.append(np.array(rows[start:stop]))
            number.append(found[-1]["document"].astype(np.int64) + first[index])
            places[index] = stop
        again = _again(np.concatenate(found), np.concatenate(number))
        np.bitwise_or.at(bits, again // 8, np.uint8(1) << (again % 8).astype(np.uint8))
        where = np.searchsorted(first, again, side="right") - 1
        repeated += np.bincount(where, minlength=len(files))
    return Repeats(repeated, bits, first)


def _again(rows: NDArray[np.void], number: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of the rows whose id an earlier row has."""
    order = np.lexsort((rows["low"], rows["high"]))  # stable: of equal ones, the earlier first
    high, low = rows["high"][order], rows["low"][order]
    same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return number[order[1:][same]]
