"""Token files: a checksummed header and one flat, memory-mapped array of token ids.

    offset 0     8 bytes   magic "GUTOKENS"
           8     4         version, uint32 little-endian
          12     4         n, the length of the header's JSON, uint32 little-endian
          16    32         SHA-256 of the other 4064 bytes of the header region
          48     n         JSON: dtype, vocab_size, tokenizer, eos_id, tokens, documents, sha256
        48+n     up to 4096  zeros
        4096     tokens * itemsize   the payload, little-endian

The dtype is uint16 for vocabularies up to 65536 and uint32 above. `sha256` is of the payload.
Nothing depends on time, machine or path: the same tokens give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from groundup._atomic import atomic_file
from groundup._check import within
from groundup._json import parse
from groundup.data.errors import TokenFileError

__all__ = ["Header", "TokenFile", "TokenWriter"]

MAGIC = b"GUTOKENS"
VERSION = 1
REGION = 4096  # bytes before the payload: one page
_FIXED = struct.Struct("<8sII32s")
_DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Header:
    """What a token file says about itself."""

    dtype: str
    vocab_size: int
    tokenizer: str  # SHA-256 of the tokenizer, hexadecimal
    eos_id: int
    tokens: int
    documents: int
    sha256: str  # of the payload, hexadecimal


class TokenWriter:
    """Appends to a new token file; the file is at `path` once the `with` block has ended well.

    Errors: `ValueError` for a token outside the vocabulary. If the block raises, nothing is left
    and an older file at `path` stays.
    """

    def __init__(self, path: str | Path, *, vocab_size: int, eos_id: int, tokenizer: str) -> None:
        within("vocab_size", vocab_size, 1, 1 << 32)
        within("eos_id", eos_id, 0, vocab_size - 1)
        self.path = Path(path)
        self.vocab_size = vocab_size
        self.eos_id = eos_id
        self.tokenizer = tokenizer
        self.dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
        self.tokens = 0
        self.documents = 0
        self._digest = hashlib.sha256()
        self._context: AbstractContextManager[BinaryIO] | None = None
        self._file: BinaryIO | None = None

    def __enter__(self) -> TokenWriter:
        self._context = atomic_file(self.path)
        self._file = self._context.__enter__()
        self._file.write(bytes(REGION))
        return self

    def add(self, ids: NDArray[np.integer]) -> None:
        """Append one document: `ids` (1-dimensional) and the EOS token after them."""
        self.extend(ids, documents=1)
        self.extend(np.array([self.eos_id]), documents=0)

    def extend(self, ids: NDArray[np.integer], documents: int) -> None:
        """Append a stream of `documents` documents that have been joined already."""
        if self._file is None:
            raise ValueError(f"{self.path}: the writer is not open: use it in a with block")
        array = np.asarray(ids)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"ids has shape {array.shape} and dtype {array.dtype}: "
                "it must be a 1-dimensional array of integers"
            )
        if array.size and (int(array.min()) < 0 or int(array.max()) >= self.vocab_size):
            raise ValueError(
                f"token ids {int(array.min())}..{int(array.max())} are not valid: "
                f"they must be in 0..{self.vocab_size - 1}"
            )
        payload = array.astype(_DTYPES[self.dtype]).tobytes()
        self._file.write(payload)
        self._digest.update(payload)
        self.tokens += array.size
        self.documents += documents

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._context is not None
        assert self._file is not None
        file, self._file = self._file, None
        if kind is None:
            file.seek(0)
            file.write(_pack(self._header()))
        self._context.__exit__(kind, error, trace)

    def _header(self) -> Header:
        return Header(
            dtype=self.dtype,
            vocab_size=self.vocab_size,
            tokenizer=self.tokenizer,
            eos_id=self.eos_id,
            tokens=self.tokens,
            documents=self.documents,
            sha256=self._digest.hexdigest(),
        )


@dataclass(frozen=True)
class TokenFile:
    """An open token file: `tokens` is a read-only, memory-mapped array [header.tokens]."""

    path: Path
    header: Header
    tokens: NDArray[np.integer]

    @classmethod
    def open(cls, path: str | Path) -> TokenFile:
        """Open and check magic, version, header checksum, and the file's size against the header.

        Errors: `TokenFileError` naming the path and what is wrong. The payload's checksum takes
        reading all of it: see `verify`.
        """
        path = Path(path)
        try:
            with open(path, "rb") as file:
                region = file.read(REGION)
                size = file.seek(0, 2)
        except OSError as error:
            raise TokenFileError(f"{path}: cannot be read: {error.strerror or error}") from error
        header = _unpack(path, region)
        dtype = _DTYPES[header.dtype]
        expected = REGION + header.tokens * dtype.itemsize
        if size != expected:
            what = "truncated" if size < expected else "longer than its header says"
            raise TokenFileError(
                f"{path}: the file is {what}: {size} bytes, but {header.tokens} tokens of "
                f"{header.dtype} make {expected}"
            )
        tokens: NDArray[np.integer]
        if header.tokens:
            mapped = np.memmap(path, dtype=dtype, mode="r", offset=REGION, shape=(header.tokens,))
            tokens = np.asarray(mapped)
        else:
            tokens = np.empty(0, dtype=dtype)
        return cls(path, header, tokens)

    def verify(self) -> None:
        """Read all tokens and compare their checksum. Errors: `TokenFileError`."""
        digest = hashlib.sha256()
        for start in range(0, len(self.tokens), _CHUNK):
            digest.update(self.tokens[start : start + _CHUNK].tobytes())
        if digest.hexdigest() != self.header.sha256:
            raise TokenFileError(
                f"{self.path}: the tokens are damaged: their SHA-256 is {digest.hexdigest()}, "
                f"the header says {self.header.sha256}"
            )


def _pack(header: Header) -> bytes:
    text = json.dumps(asdict(header), sort_keys=True).encode()
    body = text.ljust(REGION - _FIXED.size, b"\0")
    assert len(body) == REGION - _FIXED.size
    return _FIXED.pack(MAGIC, VERSION, len(text), _checksum(VERSION, len(text), body)) + body


def _unpack(path: Path, region: bytes) -> Header:
    if region[: len(MAGIC)] != MAGIC[: len(region)] or not region:
        raise TokenFileError(f"{path}: not a token file: it does not start with {MAGIC!r}")
    if len(region) < REGION:
        raise TokenFileError(
            f"{path}: the file is truncated: {len(region)} bytes, but the header alone is {REGION}"
        )
    _, version, length, checksum = _FIXED.unpack_from(region)
    body = region[_FIXED.size :]
    if checksum != _checksum(version, length, body):
        raise TokenFileError(f"{path}: the header is damaged: its checksum does not match")
    if version != VERSION:
        raise TokenFileError(
            f"{path}: the file's format is version {version}, and this program reads {VERSION}"
        )
    try:
        values = parse(body[:length])
        header = Header(**{field.name: values[field.name] for field in fields(Header)})
    except (ValueError, KeyError, TypeError) as error:
        raise TokenFileError(f"{path}: the header cannot be read: {error!r:.500}") from error
    if (name := _not_valid(header)) is not None:
        value = getattr(header, name)
        told = f"{value!r:.80}" if isinstance(value, int | str) else f"a {type(value).__name__}"
        raise TokenFileError(f"{path}: the header holds a value that is not valid: {name}={told}")
    return header


def _not_valid(header: Header) -> str | None:
    """The first field with a value that no token file has."""
    for field in fields(Header):
        if type(getattr(header, field.name)).__name__ != field.type:
            return field.name
    fits = {
        "dtype": header.dtype in _DTYPES,
        "vocab_size": 1 <= header.vocab_size <= 1 << 32,
        "eos_id": 0 <= header.eos_id < header.vocab_size,
        "tokens": header.tokens >= 0,
        "documents": header.documents >= 0,
        "tokenizer": header.tokenizer.isprintable(),
        "sha256": re.fullmatch("[0-9a-f]{64}", header.sha256) is not None,
    }
    return next((name for name, fit in fits.items() if not fit), None)


def _checksum(version: int, length: int, body: bytes) -> bytes:
    return hashlib.sha256(MAGIC + struct.pack("<II", version, length) + body).digest()
