"""The documents behind a batch of several corpora, named with the part that they are of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from groundup.data.documents import Document, Documents

__all__ = ["MixedDocuments", "PartDocument"]


@dataclass(frozen=True)
class PartDocument(Document):
    """A document, its number in the token file of its `part`."""

    part: str


class MixedDocuments:
    """Names the documents of the token files of several parts.

    Args:
        names: of the parts.
        documents: of each.
        windows: how many each part has; they are numbered through, as `MixedBatches.order` does.
    """

    def __init__(
        self, names: Sequence[str], documents: Sequence[Documents], windows: Sequence[int]
    ) -> None:
        self._names, self._documents = names, documents
        self._first = np.cumsum([0, *windows])

    def of_windows(
        self, windows: Iterable[int], length: int, limit: int
    ) -> tuple[list[tuple[Document, int]], int]:
        """As `Documents.of_windows`, of windows of all parts."""
        chosen = np.fromiter(windows, dtype=np.int64)
        of = np.searchsorted(self._first, chosen, side="right") - 1
        found: list[tuple[Document, int]] = []
        number = 0
        for part, (name, documents) in enumerate(zip(self._names, self._documents, strict=True)):
            places = np.flatnonzero(of == part)
            own = (chosen[places] - self._first[part]).tolist()
            listed, more = documents.of_windows(own, length, limit)
            number += more
            found += [
                (PartDocument(document.number, document.starts, name), int(places[place]))
                for document, place in listed
            ]
        found.sort(key=lambda entry: entry[1])
        return found[:limit], number
