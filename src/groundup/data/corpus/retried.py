"""Reading over a connection that may break."""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any, BinaryIO, Protocol

__all__ = ["Retried"]

_TRIES = 5
_PAUSE = 1.0  # seconds before the second try, doubled for each further one


class _Source(Protocol):
    def open(self, position: int) -> BinaryIO:
        """The content from `position` on."""

    def failed(self, error: Exception) -> bool:
        """Told of what went wrong before it is asked again; whether to wait before that."""


class Retried(io.RawIOBase):
    """The content of `source`, which is opened again where reading fails.

    `size`: its bytes, or -1 if unknown; a stream that ends earlier has failed.
    Errors: `OSError` when `_TRIES` tries in a row bring nothing; what is not there or not allowed
    is not tried again.
    """

    def __init__(self, source: _Source, size: int) -> None:
        self._source = source
        self._size = size
        self._position = 0
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._size >= 0

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset != self._position:
            self._drop()
            self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        for attempt in range(_TRIES):
            try:
                data = self._read(len(buffer))
            except (FileNotFoundError, PermissionError):
                raise
            except Exception as error:  # every store has its own
                self._drop()
                if attempt == _TRIES - 1:
                    raise OSError(
                        f"after {_TRIES} tries at byte {self._position}: "
                        f"{str(error) or type(error).__name__}"
                    ) from error
                if self._source.failed(error):
                    time.sleep(_PAUSE * 2**attempt)
            else:
                buffer[: len(data)] = data
                self._position += len(data)
                return len(data)
        raise AssertionError("unreachable")

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, count: int) -> bytes:
        if 0 <= self._size <= self._position:
            return b""
        if self._file is None:
            self._file = self._source.open(self._position)
        data = self._file.read(count)
        if not data and self._size >= 0:
            raise EOFError(f"it ends after {self._position} of {self._size} bytes")
        return data

    def _drop(self) -> None:
        if self._file is not None:
            with contextlib.suppress(Exception):
                self._file.close()
        self._file = None
