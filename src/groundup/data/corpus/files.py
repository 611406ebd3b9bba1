"""A file of a source, and a list of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from groundup.data.corpus.places import Place, state
from groundup.data.errors import DataError

__all__ = ["File", "Listing", "check_unchanged", "stamp"]

_LARGE = 1 << 25  # bytes that a file of unknown size is taken to have
_PACKED = 4  # bytes of text in one of a compressed file, about


@dataclass(frozen=True)
class File:
    """Where a file is under the root, what it holds, and its state when listed."""

    path: str  # relative to the root, with forward slashes
    kind: str  # a key of `reading.READERS`
    size: int  # bytes as stored, -1 if the store does not say
    mark: int | str  # differs once the content does: see `places.state`
    length: int = -1  # bytes of text, once measured; -1 where that would take reading it twice
    pieces: int = 0  # of which ranges can be read alone: row groups of a Parquet file; 0: none

    @property
    def amount(self) -> int:
        """`length`, or an estimate of it: for sharing work out and showing how far it is."""
        if self.length >= 0:
            return self.length
        return self.size * _PACKED if self.size >= 0 else _LARGE


@dataclass(frozen=True)
class Listing:
    """The files of a source in order (by relative path), and how many were left out, and why."""

    name: str
    root: Place
    files: tuple[File, ...]
    skipped: dict[str, int]
    origin: str = ""
    """The address that it was found at, with the revision that this stood for; "" if here."""

    @property
    def size(self) -> int:
        """Bytes as stored, of the files that say it."""
        return sum(max(file.size, 0) for file in self.files)

    def without(self, other: Listing) -> Listing:
        """This source without the files that `other` has too."""
        taken = {(other.root / file.path).resolve() for file in other.files}
        kept = tuple(f for f in self.files if (self.root / f.path).resolve() not in taken)
        skipped = dict(self.skipped)
        if len(kept) < len(self.files):
            skipped["files that are the validation text"] = len(self.files) - len(kept)
        return replace(self, files=kept, skipped=skipped)


def stamp(root: Place, path: str, kind: str) -> File:
    """The file as it is now. Errors: `DataError` if it is not there."""
    return File(path, kind, *state(root / path))


def check_unchanged(root: Place, file: File) -> None:
    """Errors: `DataError` if the file is no longer what was listed."""
    if state(root / file.path) != (file.size, file.mark):
        raise DataError(
            f"{root / file.path}: the file has changed since preparing began: start it again"
        )
