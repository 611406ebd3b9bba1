"""Files behind an address that fsspec understands: s3://, gs://, hf://, https://, memory://, ….

Credentials, endpoints and proxies are fsspec's business and that of the store's own package, which
take them from the environment and from fsspec's configuration files.
"""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from groundup.data.corpus.kinds import kind_of
from groundup.data.corpus.retried import Retried
from groundup.data.errors import DataError

__all__ = ["Remote", "found", "is_address"]

# What stores call a checksum of a file, or else the time when it was written: the first that a
# file has marks its content.
_MARKS = (
    "sha256", "md5", "md5Hash", "Content-MD5", "content_hash", "checksum", "crc32c", "ETag", "etag",
    "blob_id", "LastModified", "last_modified", "Last-Modified", "updated", "mtime", "modified",
    "modificationTime", "created",
)  # fmt: skip
_PATTERN = "*["  # and no ?, which is common in URLs
_BUFFER = 1 << 20


def is_address(source: str) -> bool:
    """Whether fsspec is to look for it, rather than the file system here."""
    return "://" in source


@dataclass(frozen=True)
class Remote:
    """A file or folder of a store, `path` below the folder that `address` names.

    The folder of "s3://b/c4/en/*.json.gz" and of "s3://b/c4/en/a.jsonl" is "s3://b/c4/en".
    """

    address: str
    path: str = ""

    def __truediv__(self, path: str) -> Remote:
        return replace(self, path=f"{self.path}/{path}" if self.path else path)

    def __str__(self) -> str:
        fs, _ = _connect(self.address)
        return str(fs.unstrip_protocol(self._full()))

    @property
    def suffix(self) -> str:
        return _plain(self.path).suffix

    def resolve(self) -> Remote:
        return self

    def state(self) -> tuple[int, str]:
        """Bytes (-1: unknown), and the file's mark: see `places.state`. Errors: `DataError`."""
        fs, _ = _connect(self.address)
        try:
            info = fs.info(self._full())
        except Exception as error:  # every store has its own
            raise DataError(f"{self}: cannot be read: {told(error)}") from error
        size = info.get("size")
        mark = next((f"{key} {info[key]}" for key in _MARKS if info.get(key)), "")
        return (-1 if size is None else int(size)), mark

    def open(self, mode: str = "rb") -> BinaryIO:
        """Its bytes, from any position; a connection that breaks is made again.

        Errors, also while reading: `OSError` after some tries, or if bytes are missing.
        """
        fs, _ = _connect(self.address)
        size, _ = self.state()
        stream = Retried(_Opener(fs, self._full(), mode), size)
        return cast(BinaryIO, io.BufferedReader(stream, _BUFFER))

    def _full(self) -> str:
        base = _folder(_connect(self.address)[1])
        return f"{base}/{self.path}" if self.path else base


class _Opener:
    """Opens one file of a store at a position."""

    def __init__(self, fs: Any, path: str, mode: str) -> None:
        self._fs, self._path, self._mode = fs, path, mode
        self._ranges = True  # whether the server is believed to send parts of files

    def open(self, position: int) -> BinaryIO:
        if self._ranges:
            file = cast(BinaryIO, self._fs.open(self._path, self._mode))
            if position:
                file.seek(position)
            return file
        file = cast(BinaryIO, self._fs.open(self._path, self._mode, block_size=0))
        while position > 0 and (skipped := file.read(min(position, _BUFFER))):
            position -= len(skipped)
        return file

    def failed(self, error: Exception) -> bool:
        # fsspec's way to say that an HTTP server does not send the range it was asked for.
        refused = isinstance(error, ValueError) and "http" in self._fs.protocol
        self._ranges = self._ranges and not refused
        return not refused


def found(address: str, field: str) -> tuple[Remote, list[str]]:
    """The folder of an address, and below it the paths of the files that the address means.

    Those are one file, all in a folder, or those that a pattern (*, **, [ab]) fits.
    Errors: `DataError` naming `field` and the address if it cannot be reached.
    """
    try:
        fs, path = _connect(address)
        fs.invalidate_cache()  # of an earlier time in this process
        base = _folder(path)
        if any(character in path for character in _PATTERN):
            names = fs.glob(path)
        else:
            names = [path] if kind_of(_plain(path)) else fs.find(base)
        if not names:
            with suppress(FileNotFoundError):
                fs.ls(base)  # which raises what kept the others from finding anything
    except ImportError as error:
        raise DataError(f"{field}={address!r} needs another package: {error}") from error
    except Exception as error:
        raise DataError(f"{field}={address!r} cannot be listed: {told(error)}") from error
    below = [name[len(base) + 1 :] for name in names if name.startswith(f"{base}/")]
    return Remote(address), sorted(path for path in below if path)


def told(error: BaseException) -> str:
    """What an error of somebody else's says, or else its cause, or at least its name.

    Of whatever goes wrong with a file of an HTTP server, fsspec says that it is not found, and the
    address; the server's answer is the cause.
    """
    status = getattr(error, "status", None)  # of an HTTP response; its text repeats the address
    if isinstance(status, int):
        return f"HTTP status {status} {getattr(error, 'message', '')}".rstrip()
    said = str(error)
    if said and not (is_address(said) and len(said.split()) == 1):
        return said
    return type(error).__name__ if error.__cause__ is None else told(error.__cause__)


@cache
def _connect(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise ImportError(
            f"{address}: reading addresses needs the package fsspec: pip install 'groundup[data]'"
        ) from error
    fs, path = url_to_fs(address)
    return fs, str(path)


def _folder(path: str) -> str:
    """The folder that an address is about, without asking the store."""
    for place, character in enumerate(path):
        if character in _PATTERN:
            return path[:place].rpartition("/")[0]
    return path.rpartition("/")[0] if kind_of(_plain(path)) else path.rstrip("/")


def _plain(path: str) -> PurePosixPath:
    """Without the question of a URL."""
    return PurePosixPath(path.partition("?")[0])
