"""Where documents come from: listing a source, measuring its files, cutting it into shards.

A source is a name (`SOURCES`: the seam for sources to come) or a path. Listing it gives files of
some kind (`READERS`: how a kind of file becomes documents). A shard is a few small files, or a
range of bytes of a large one; shards are what preparing spreads over processes and resumes by.
A record (a JSONL line, a section of a long text) belongs to the shard in which it starts, so how
a source is cut into shards never changes its documents or their order.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sysconfig
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from groundup.data.compression import SUFFIXES, is_compressed, open_stream, skip
from groundup.data.errors import DataError

__all__ = [
    "READERS",
    "SOURCES",
    "File",
    "Listing",
    "Measures",
    "Shard",
    "documents",
    "find",
    "measure",
    "shards",
    "split_value",
]

SECTION = 1 << 16
"""A text file longer than `WHOLE` becomes one document per `SECTION` bytes, cut at line ends."""
WHOLE = 1 << 20
LOCK_NAME = ".groundup-lock"  # marks a folder of prepared files, which is no source

_TEXT = (".txt", ".text", ".md", ".markdown", ".rst", ".tokens", ".py")
_JSONL = (".jsonl", ".json", ".ndjson")
_CHUNK = 1 << 20

# Parts of the standard library that are not in the built-in corpus. Tests hold deliberately broken
# files; encodings, pydoc_data, _sysconfigdata and config-* are generated tables (the latter with
# paths of the machine); and tests, tkinter, idlelib, lib2to3, distutils, ensurepip, turtledemo are
# left out of, or packaged apart by, many distributions: without them the corpus depends on the
# Python version alone.
# fmt: off
_NOT_TEXT = frozenset({
    "__pycache__", "__phello__", "dist-packages", "distutils", "encodings", "ensurepip", "idlelib",
    "lib-dynload", "lib2to3", "pydoc_data", "site-packages", "sitecustomize.py", "test", "tests",
    "tkinter", "turtledemo", "usercustomize.py",
})
# fmt: on


@dataclass(frozen=True)
class File:
    """A file of a source: where it is under the root, what it holds, and its state when listed."""

    path: str  # relative to the root, with forward slashes
    kind: str  # a key of READERS
    size: int
    mtime_ns: int
    length: int = -1  # bytes after decompression, once measured


@dataclass(frozen=True)
class Listing:
    """The files of a source in order (by relative path), and how many were left out, and why."""

    name: str
    root: Path
    files: tuple[File, ...]
    skipped: dict[str, int]

    def without(self, other: Listing) -> Listing:
        """This source without the files that `other` has too."""
        taken = {(other.root / file.path).resolve() for file in other.files}
        kept = tuple(f for f in self.files if (self.root / f.path).resolve() not in taken)
        skipped = dict(self.skipped)
        if len(kept) < len(self.files):
            skipped["files that are the validation text"] = len(self.files) - len(kept)
        return replace(self, files=kept, skipped=skipped)


@dataclass(frozen=True)
class Measures:
    """What reading a source once tells: its files with lengths, and a hash of all their content."""

    files: tuple[File, ...]
    fingerprint: str

    @property
    def length(self) -> int:
        """Bytes of text, uncompressed."""
        return sum(file.length for file in self.files)


@dataclass(frozen=True)
class Shard:
    """A piece of a source: whole `files`, or bytes start..stop-1 of a single one."""

    root: str
    field: str  # of a JSONL line
    files: tuple[File, ...]
    start: int
    stop: int
    length: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Shard:
        return cls(**{**values, "files": tuple(File(**file) for file in values["files"])})


# Listing


def find(source: str, field: str = "source") -> Listing:
    """The files of `source`: a name in `SOURCES`, or the path of a file or folder.

    In a folder, files of an unknown kind, hidden ones, linked folders and folders of prepared
    tokens are left out and counted. Errors: `DataError` if there is nothing to read.
    """
    if source in SOURCES:
        return SOURCES[source]()
    path = Path(source).expanduser()
    if path.is_file():
        kind = _kind(PurePosixPath(path.name))
        if kind is None:
            raise DataError(
                f"{field}={source!r} is not valid: {path.name} is of an unknown kind; {_valid()}"
            )
        only = (_stamp(path.parent, path.name, kind),)
        return Listing(_stem(path.name), path.parent, only, {})
    if not path.is_dir():
        names = ", ".join(repr(name) for name in SOURCES)
        raise DataError(
            f"{field}={source!r} is not valid: there is no such file or folder; {_valid()}"
            + (f"; or {names}" if field == "source" else "")
        )
    files, skipped = _walk(path)
    if not files:
        raise DataError(
            f"{field}={source!r} is not valid: the folder holds no text "
            f"({_counts(skipped) or 'it is empty'}); {_valid()}"
        )
    return Listing(_stem(path.resolve().name), path, files, skipped)


def _builtin() -> Listing:
    """The Python source code of the standard library, as it lies next to this interpreter."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in _NOT_TEXT]
        for name in files:
            path = (Path(folder) / name).relative_to(root).as_posix()
            generated = path.startswith(("config-", "_sysconfigdata"))
            if name.endswith(".py") and name not in _NOT_TEXT and not generated:
                found.append(_stamp(root, path, "python"))
    if not found:
        raise DataError(
            f"source='python' is not available: there is no Python source in {root}; "
            "name a file or folder instead"
        )
    name = f"python{platform.python_version()}"
    return Listing(name, root, tuple(sorted(found, key=lambda file: file.path)), {})


SOURCES: dict[str, Callable[[], Listing]] = {"python": _builtin}


def _walk(root: Path) -> tuple[tuple[File, ...], dict[str, int]]:
    found: list[File] = []
    skipped: Counter[str] = Counter()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

    for folder, names, files in os.walk(root, onerror=fail):
        here = Path(folder)
        if LOCK_NAME in files:
            skipped["folders of prepared tokens"] += 1
            names.clear()
            continue
        for name in list(names):
            if name.startswith("."):
                skipped["hidden folders"] += 1
                names.remove(name)
            elif (here / name).is_symlink():
                skipped["linked folders"] += 1
                names.remove(name)
        for name in files:
            relative = PurePosixPath((here / name).relative_to(root).as_posix())
            kind = _kind(relative)
            if name.startswith("."):
                skipped["hidden files"] += 1
            elif kind is None:
                skipped[f"files of unknown kind ({relative.suffix or 'no suffix'})"] += 1
            else:
                found.append(_stamp(root, relative.as_posix(), kind))
    ordered = dict(sorted(skipped.items()))
    return tuple(sorted(found, key=lambda file: file.path)), ordered


def _kind(path: PurePosixPath) -> str | None:
    if is_compressed(path):
        path = path.with_suffix("")
    suffix = path.suffix.lower()
    return "text" if suffix in _TEXT else "jsonl" if suffix in _JSONL else None


def _stamp(root: Path, path: str, kind: str) -> File:
    try:
        state = os.stat(root / path)
    except OSError as error:
        raise DataError(f"{root / path}: cannot be read: {error.strerror}") from error
    return File(path, kind, state.st_size, state.st_mtime_ns)


def _stem(name: str) -> str:
    """A file's or folder's name without its suffixes, fit for the name of a folder."""
    path = PurePosixPath(name)
    while path.suffix.lower() in (*SUFFIXES, *_TEXT, *_JSONL):
        path = path.with_suffix("")
    kept = "".join(c if c.isalnum() or c in "._-" else "-" for c in path.name).strip(".-")
    return kept[:60] or "text"


def _valid() -> str:
    kinds = " ".join((*_TEXT, *_JSONL))
    return f"valid are {kinds}, each also compressed ({' '.join(SUFFIXES)}), or a folder of them"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


# Measuring


def measure(
    listing: Listing,
    cache: dict[str, list[Any]],
    progress: Callable[[int, int], None] | None = None,
    threads: int = 1,
) -> Measures:
    """Read every file once: its uncompressed length, and the SHA-256 of its content.

    `cache` (absolute path -> [size, mtime_ns, sha256, length]) spares reading files that have not
    changed, and is brought up to date. `progress(done, total)` counts bytes on disk.
    Errors: `DataError` for a damaged or truncated archive.
    """
    done, total = 0, sum(file.size for file in listing.files)
    paths = [listing.root / file.path for file in listing.files]
    keys = [os.path.abspath(path) for path in paths]

    def one(job: tuple[File, str]) -> list[Any]:
        file, key = job
        known = cache.get(key)
        if known is not None and known[:2] == [file.size, file.mtime_ns]:
            return known
        return [file.size, file.mtime_ns, *_read_once(Path(key))]

    files, identity = [], []
    pool = ThreadPoolExecutor(max_workers=max(1, threads))
    try:
        results = pool.map(one, zip(listing.files, keys, strict=True))
        for file, key, known in zip(listing.files, keys, results, strict=True):
            cache[key] = known
            files.append(replace(file, length=int(known[3])))
            identity.append([file.path, file.kind, known[2]])
            done += file.size
            if progress is not None:
                progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)  # an error does not wait for the other files
    text = json.dumps(identity, ensure_ascii=True).encode()
    return Measures(tuple(files), hashlib.sha256(text).hexdigest())


def _read_once(path: Path) -> tuple[str, int]:
    digest, length = hashlib.sha256(), 0
    with open_stream(path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            length += len(chunk)
    return digest.hexdigest(), length


# Cutting


def shards(listing: Listing, measures: Measures, field: str) -> list[Shard]:
    """The source as shards, in order: about 1/512 of it each, but 256 KiB to 32 MiB.

    A compressed file makes 16 at most, because each of its shards decompresses from the start.
    """
    wanted = _sections(min(max(measures.length // 512, 1 << 18), 1 << 25))
    result: list[Shard] = []
    group: list[File] = []

    def flush() -> None:
        if group:
            length = sum(file.length for file in group)
            result.append(Shard(str(listing.root), field, tuple(group), 0, -1, length))
            group.clear()

    for file in measures.files:
        divisible = file.kind == "jsonl" or (file.kind == "text" and file.length > WHOLE)
        if divisible and file.length > wanted:
            flush()
            step = wanted
            if is_compressed(PurePosixPath(file.path)):
                step = max(step, _sections(file.length // 16))
            for start in range(0, file.length, step):
                stop = min(start + step, file.length)
                piece = Shard(str(listing.root), field, (file,), start, stop, stop - start)
                result.append(piece)
            continue
        group.append(file)
        if sum(member.length for member in group) >= wanted:
            flush()
    flush()
    return result


def _sections(length: int) -> int:
    return -(-length // SECTION) * SECTION


# Reading


def documents(shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    """The documents of a shard, in order; what is left out is counted in `skipped`.

    Errors: `DataError` naming the file and the line or byte, if the content is not what it should
    be or the file has changed since it was listed.
    """
    for file in shard.files:
        path = Path(shard.root) / file.path
        now = _stamp(Path(shard.root), file.path, file.kind)
        if (now.size, now.mtime_ns) != (file.size, file.mtime_ns):
            raise DataError(f"{path}: the file has changed since preparing began: start it again")
        stop = file.length if shard.stop < 0 else shard.stop
        for text in READERS[file.kind](path, file, shard.start, stop, shard.field, skipped):
            if text:
                yield text
            else:
                skipped["empty documents"] += 1


def split_value(text: str) -> int:
    """A document's place in [0, 2^64), from its text alone: below the threshold it is held out.

    So the split is the same on every machine and in any order of files, and two copies of one
    document never lie on both sides.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"groundup-split").digest()
    return int.from_bytes(digest, "little")


def _read_python(
    path: Path, file: File, start: int, stop: int, field: str, skipped: Counter[str]
) -> Iterator[str]:
    """A Python file, in the encoding that it declares; undecodable ones are left out."""
    with open_stream(path) as stream:
        try:
            encoding, _ = tokenize.detect_encoding(stream.readline)
            stream.seek(0)
            yield stream.read().decode(encoding)
        except (SyntaxError, UnicodeDecodeError):
            skipped["undecodable Python files"] += 1


def _read_text(
    path: Path, file: File, start: int, stop: int, field: str, skipped: Counter[str]
) -> Iterator[str]:
    """A text file: one document, or one per section if it is longer than `WHOLE`."""
    if file.length <= WHOLE:
        with open_stream(path) as stream:
            yield _decode(path, stream.read(), 0)
        return
    section, begin, lines = -1, 0, list[bytes]()
    for offset, line in _lines(path, start, stop):
        if offset // SECTION != section:
            if lines:
                yield _decode(path, b"".join(lines), begin)
            section, begin, lines = offset // SECTION, offset, []
        lines.append(line)
    if lines:
        yield _decode(path, b"".join(lines), begin)


def _read_jsonl(
    path: Path, file: File, start: int, stop: int, field: str, skipped: Counter[str]
) -> Iterator[str]:
    """One document per line, split at line feeds only; blank lines are none."""
    for offset, line in _lines(path, start, stop):
        if line.isspace():
            continue
        try:
            yield _parse(line.removeprefix(b"\xef\xbb\xbf") if offset == 0 else line, field)
        except (ValueError, RecursionError) as error:
            number = _line_number(path, offset)
            raise DataError(f"{path}, line {number}: {error}") from error


Reader = Callable[[Path, File, int, int, str, Counter[str]], Iterator[str]]
READERS: dict[str, Reader] = {"python": _read_python, "text": _read_text, "jsonl": _read_jsonl}


def _parse(line: bytes, field: str) -> str:
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: {error.reason} at byte {error.start} of the line") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON value: {error}; each line must be a JSON object") from error
    if not isinstance(values, dict):
        raise ValueError(f"a JSON {type(values).__name__}; each line must be a JSON object")
    if field not in values:
        there = ", ".join(repr(name) for name in list(values)[:12]) or "none"
        raise ValueError(f"there is no text_field {field!r}; the line's fields: {there}")
    text = values[field]
    if not isinstance(text, str):
        raise ValueError(f"text_field {field!r} is {type(text).__name__}; it must be a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"text_field {field!r} holds half a surrogate pair at character {error.start}, "
            "which is no Unicode text"
        ) from error
    return text


def _decode(path: Path, content: bytes, offset: int) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8: {error.reason} at byte {offset + error.start}; "
            "convert the file, or take it out of the folder"
        ) from error
    return text.removeprefix("\ufeff") if offset == 0 else text


def _lines(path: Path, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """The lines that start at bytes start..stop-1 of the uncompressed content, with their place."""
    with open_stream(path) as stream:
        position = _to_line(stream, start, not is_compressed(path))
        while position < stop:
            line = stream.readline()
            if not line:
                break
            yield position, line
            position += len(line)


def _to_line(stream: BinaryIO, start: int, seekable: bool) -> int:
    """Go to the first line that starts at or after `start`; return where that is."""
    if start == 0:
        return 0
    skip(stream, start - 1, seekable)
    return start - 1 + len(stream.readline())


def _line_number(path: Path, offset: int) -> int:
    """Which line (from 1) begins at `offset`; read again, only for an error's message."""
    number = 1
    with open_stream(path) as stream:
        while offset > 0:
            chunk = stream.read(min(offset, _CHUNK))
            if not chunk:
                break
            number += chunk.count(b"\n")
            offset -= len(chunk)
    return number
