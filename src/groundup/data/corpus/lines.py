"""The lines of a range of bytes of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from groundup.data.corpus.compression import is_compressed, open_stream

__all__ = ["line_number", "lines"]

_CHUNK = 1 << 20


def lines(path: Path, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """The lines that start at bytes start..stop-1 of the uncompressed content, with their place.

    Lines end at line feeds only. `stop` -1: to the end.
    """
    with open_stream(path) as stream:
        position = 0
        if start > 0:
            # From one byte before, the rest of a line tells where the next one starts.
            if is_compressed(path):
                for _ in _chunks(stream, start - 1):
                    pass
            else:
                stream.seek(start - 1)
            position = start - 1 + len(stream.readline())
        while stop < 0 or position < stop:
            line = stream.readline()
            if not line:
                break
            yield position, line
            position += len(line)


def line_number(path: Path, offset: int) -> int:
    """Which line (from 1) begins at `offset`; read again, only for an error's message."""
    with open_stream(path) as stream:
        return 1 + sum(chunk.count(b"\n") for chunk in _chunks(stream, offset))


def _chunks(stream: BinaryIO, count: int) -> Iterator[bytes]:
    """The next `count` bytes, or what there is of them."""
    while count > 0 and (chunk := stream.read(min(count, _CHUNK))):
        yield chunk
        count -= len(chunk)
