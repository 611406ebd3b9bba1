"""One way to read a file, compressed or not, in which a damaged archive is always an error.

`zstandard`'s own stream reader ends quietly at the end of the first frame and at a truncated one;
the reader here goes on to the next frame and raises `EOFError` when the last one is incomplete.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

from groundup.data.errors import DataError

__all__ = ["SUFFIXES", "is_compressed", "open_stream"]

SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_CHUNK = 1 << 20


def is_compressed(path: PurePath) -> bool:
    """Whether the name ends in one of `SUFFIXES`."""
    return path.suffix.lower() in SUFFIXES


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """The uncompressed bytes of `path`, as a buffered binary stream.

    Errors: `DataError` naming the file if it is damaged, truncated or cannot be read, also when
    that shows only while reading inside the block.
    """
    try:
        with _open(path) as stream:
            yield stream
    except DataError:
        raise
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the file is damaged or truncated: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _open(path: Path) -> BinaryIO:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES and path.stat().st_size == 0:
        raise EOFError(f"it is empty, which is no {suffix} archive")
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.open(path, "rb"))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    if suffix == ".zst":
        return cast(BinaryIO, io.BufferedReader(_Zstandard(path), _CHUNK))
    return open(path, "rb")


class _Zstandard(io.RawIOBase):
    """The content of all frames of a zstd file, one after another."""

    def __init__(self, path: Path) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise DataError(
                f"{path}: reading .zst needs the package zstandard: "
                "pip install 'groundup[train]' (or decompress the file)"
            ) from error
        self._error: type[Exception] = zstandard.ZstdError
        # Frames made with --long=31 are fine; memory is taken only as a frame asks for it.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        self._file = open(path, "rb")  # noqa: SIM115 - closed in close()
        self._frame: Any = self._decompressor.decompressobj()
        self._fed = False  # whether the current frame has got any input
        self._input = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._input:
                self._input = self._file.read(1 << 17)
                if not self._input:
                    if self._fed:
                        raise EOFError("the last zstd frame is incomplete")
                    return 0
            self._fed = True
            try:
                output = self._frame.decompress(self._input)
            except self._error as error:
                raise EOFError(str(error)) from error
            self._input = b""
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = self._decompressor.decompressobj()
                self._fed = False
            self._ready = memoryview(output)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
