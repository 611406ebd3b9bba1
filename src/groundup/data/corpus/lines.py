"""The lines of a range of bytes of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from groundup.data.corpus.compression import Openable, is_compressed, open_stream
from groundup.data.errors import DataError

__all__ = ["line_number", "lines"]

_CHUNK = 1 << 20
_LONGEST = 1 << 28  # bytes of a line: an archive of a few KB may hold a line larger than the memory


def lines(path: Openable, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """The lines that start at bytes start..stop-1 of the uncompressed content, with their place.

    Lines end at line feeds only. `stop` -1: to the end. Errors: `DataError` for a line of more than
    256 MiB.
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
            position = start - 1 + _rest_of_line(stream)
        while stop < 0 or position < stop:
            line = stream.readline(_LONGEST + 1)
            if not line:
                break
            if len(line) > _LONGEST:
                raise DataError(
                    f"{path}: the line at byte {position} has more than {_LONGEST >> 20} MiB, the "
                    "most that a line may have: break it up"
                )
            yield position, line
            position += len(line)


def line_number(path: Openable, offset: int) -> int:
    """Which line (from 1) begins at `offset`; read again, only for an error's message."""
    with open_stream(path) as stream:
        return 1 + sum(chunk.count(b"\n") for chunk in _chunks(stream, offset))


def _rest_of_line(stream: BinaryIO) -> int:
    """Read to the line's end; how many bytes that were."""
    count = 0
    while piece := stream.readline(_CHUNK):
        count += len(piece)
        if piece.endswith(b"\n"):
            break
    return count


def _chunks(stream: BinaryIO, count: int) -> Iterator[bytes]:
    """The next `count` bytes, or what there is of them."""
    while count > 0 and (chunk := stream.read(min(count, _CHUNK))):
        yield chunk
        count -= len(chunk)
