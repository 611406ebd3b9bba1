"""Text to evaluate on: any source of training text, read as it is and tokenized on the way, so that
nothing is left on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from groundup._check import count
from groundup.data import DataError
from groundup.data.corpus.compression import is_compressed, open_stream
from groundup.data.corpus.cutting import Shard
from groundup.data.corpus.files import Listing, stamp
from groundup.data.corpus.lines import lines
from groundup.data.corpus.places import root_of
from groundup.data.corpus.reading import documents
from groundup.data.corpus.sources import find

__all__ = ["Texts"]

_RAW = ".raw"


@dataclass(frozen=True)
class Texts:
    """A source, found.

    Attributes:
        source: as it was spelled.
        listing: its files.
        text_field: of a JSONL line, or the column of a table.
        limit: items to read of it, at most.
    """

    source: str
    listing: Listing
    text_field: str = "text"
    limit: int | None = None

    @classmethod
    def find(
        cls, source: str, option: str, text_field: str = "text", limit: int | None = None
    ) -> Texts:
        """What `source` names, as `data.source` of a recipe would, for a command's `option`; and
        a file of plain text called NAME.raw, as WikiText's are.

        Raises:
            DataError: naming the option and the source, if there is nothing to read.
            ValueError: for a limit below 1.
        """
        if limit is not None:
            count("limit", limit)
        return cls(source, _raw(source) or find(source, option), text_field, limit)

    @property
    def name(self) -> str:
        """The file's or folder's name, without what says its kind."""
        return self.listing.name

    def check(self) -> None:
        """Read the first document.

        Raises:
            DataError: if it cannot be read, or there is none.
        """
        if next(self.documents(), None) is None:
            raise DataError(f"{self.source!r} holds no text")

    def documents(self) -> Iterator[str]:
        """Its documents, in order: as training's, but for a text file of more than 1 MiB, whose
        sections of 64 KiB are documents here as there.

        Raises:
            DataError: naming the file and the place that cannot be read.
        """
        # Measured files would be cut into ranges; each whole, their documents are the same.
        whole = Shard(root_of(self.listing.root), self.text_field, self.listing.files, 0, -1, -1)
        return islice(documents(whole, Counter()), self.limit)

    def lines(self) -> Iterator[str]:
        """Its documents, those of a text file being its lines that are not blank, without their
        ends."""
        return islice(self._lines(), self.limit)

    def _lines(self) -> Iterator[str]:
        root = self.listing.root
        for file in self.listing.files:
            if file.kind == "text":
                path = root / file.path
                decoded = (_decode(str(path), line) for _, line in lines(path, 0, -1))
                yield from (line.rstrip() for line in decoded if not line.isspace())
            else:
                alone = Shard(root_of(root), self.text_field, (file,), 0, -1, -1)
                yield from documents(alone, Counter())

    def whole(self) -> Iterator[str]:
        """The content of each of its files.

        Raises:
            DataError: for a file that is not plain text.
        """
        for file in self.listing.files:
            path = self.listing.root / file.path
            if file.kind != "text":
                raise DataError(f"{path}: it must be a file of plain text")
            with open_stream(path) as stream:
                yield _decode(str(path), stream.read())


def _raw(source: str) -> Listing | None:
    """A file of that name. In a folder, such names are of photographs as well."""
    path = Path(source).expanduser()
    plain = path.with_suffix("") if is_compressed(path) else path
    if plain.suffix.lower() != _RAW or not path.is_file():
        return None
    return Listing(plain.stem, path.parent, (stamp(path.parent, path.name, "text"),), {})


def _decode(path: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
