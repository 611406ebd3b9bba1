"""One way to read a file, compressed or not, in which a damaged archive is always an error.

The readers of `bz2`, `lzma` and `zstandard` end quietly where what follows a stream is no further
one, the last also at a truncated one; parallel compressors write many streams, so that damage
behind the first would cut the text off. The reader here goes on to the end of the file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import PurePath
from typing import Any, BinaryIO, Protocol, cast

from groundup.data.errors import DataError

__all__ = ["SUFFIXES", "Openable", "is_compressed", "open_stream"]

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_CHUNK = 1 << 20
_PIECE = 1 << 12  # bytes decompressed at once: of them no format makes more than 128 MiB


class Openable(Protocol):
    """A `Path`, or what acts like one: see `places.py`."""

    @property
    def suffix(self) -> str: ...

    def open(self, mode: str, /) -> Any: ...


def is_compressed(path: PurePath | Openable) -> bool:
    """Whether the name ends in one of `SUFFIXES`."""
    return path.suffix.lower() in SUFFIXES


@contextmanager
def open_stream(path: Openable) -> Iterator[BinaryIO]:
    """The uncompressed bytes of `path`, as a buffered binary stream.

    Errors: `DataError` naming the file if it is damaged, truncated or cannot be read, also when
    that shows only while reading inside the block.
    """
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(path.open("rb"))
            if is_compressed(path) and not raw.peek(1):
                raise EOFError(f"it is empty, which is no {path.suffix} archive")
            yield stack.enter_context(_decompressed(path, raw))
    except DataError:
        raise
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the file is damaged or truncated: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _decompressed(path: Openable, raw: BinaryIO) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(raw, "rb"))
    if suffix == ".bz2":
        return _buffered(_Streams(raw, bz2.BZ2Decompressor))
    if suffix == ".xz":
        return _buffered(_Streams(raw, lzma.LZMADecompressor, padding=bytes(4)))
    if suffix == ".zst":
        return _buffered(_Streams(raw, _zstandard(path)))
    return raw


def _buffered(streams: io.RawIOBase) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(streams, _CHUNK))


class _Stream(Protocol):
    """Decompresses one stream: what `bz2`, `lzma` and `zstandard` have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Streams(io.RawIOBase):
    """The content of all streams of a file, one after another.

    `padding`: what may stand between and behind streams, any number of times.
    """

    def __init__(self, raw: BinaryIO, begin: Callable[[], _Stream], padding: bytes = b"") -> None:
        self._file, self._begin, self._padding = raw, begin, padding
        self._stream: _Stream | None = None
        self._input = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            self._input = self._input or self._file.read(_PIECE)
            if self._stream is None:
                self._pass_padding()
                if not self._input:
                    return 0
                self._stream = self._begin()
            if not self._input:
                raise EOFError("its last stream is incomplete")
            self._ready = memoryview(self._decompress(self._stream))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _pass_padding(self) -> None:
        while self._padding:
            if len(self._input) < len(self._padding):
                self._input += self._file.read(_PIECE)
            if not self._input.startswith(self._padding):
                return
            self._input = self._input.removeprefix(self._padding)

    def _decompress(self, stream: _Stream) -> bytes:
        try:
            found = stream.decompress(self._input)
        except MemoryError:
            raise EOFError("it asks for more memory than there is") from None
        except Exception as error:  # each library has its own
            raise EOFError(str(error)) from error
        self._input = stream.unused_data if stream.eof else b""
        if stream.eof:
            self._stream = None
        return found


def _zstandard(path: Openable) -> Callable[[], _Stream]:
    try:
        import zstandard
    except ImportError as error:
        raise DataError(
            f"{path}: reading .zst needs the package zstandard: "
            "pip install 'groundup[train]' (or decompress the file)"
        ) from error
    # Frames made with --long=31 are fine; memory is taken only as a frame asks for it.
    return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj
