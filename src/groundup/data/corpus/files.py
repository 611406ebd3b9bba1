"""A file of a source, and a list of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from groundup.data.corpus.compression import is_compressed
from groundup.data.errors import DataError

__all__ = ["JSONL", "TEXT", "File", "Listing", "kind_of", "stamp"]

TEXT = (".txt", ".text", ".md", ".markdown", ".rst", ".tokens", ".py")
JSONL = (".jsonl", ".json", ".ndjson")


@dataclass(frozen=True)
class File:
    """Where a file is under the root, what it holds, and its state when listed."""

    path: str  # relative to the root, with forward slashes
    kind: str  # a key of `reading.READERS`
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

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)

    def without(self, other: Listing) -> Listing:
        """This source without the files that `other` has too."""
        taken = {(other.root / file.path).resolve() for file in other.files}
        kept = tuple(f for f in self.files if (self.root / f.path).resolve() not in taken)
        skipped = dict(self.skipped)
        if len(kept) < len(self.files):
            skipped["files that are the validation text"] = len(self.files) - len(kept)
        return replace(self, files=kept, skipped=skipped)


def kind_of(path: PurePath) -> str | None:
    """How to read a file of this name, compressed or not; None if that is unknown."""
    suffix = (path.with_suffix("") if is_compressed(path) else path).suffix.lower()
    return "text" if suffix in TEXT else "jsonl" if suffix in JSONL else None


def stamp(root: Path, path: str, kind: str) -> File:
    """The file as it is now. Errors: `DataError` if it is not there."""
    try:
        state = os.stat(root / path)
    except OSError as error:
        raise DataError(f"{root / path}: cannot be read: {error.strerror}") from error
    return File(path, kind, state.st_size, state.st_mtime_ns)
