"""Which documents stand behind a stretch of the packed token stream: their number and beginning.

Documents are joined with the end-of-document token, so document d begins after the d-th of them
(the first is number 0).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.data.tokenizer import Tokenizer
from groundup.data.tokens import TokenFile

__all__ = ["Document", "Documents"]

_BLOCK = 1 << 22  # tokens counted at once
_LOOK_BACK = 1 << 16
_COUNTED = 2_000_000_000  # tokens of a file whose documents are numbered, at most


@dataclass(frozen=True)
class Document:
    """One document: its number in the token file (None: the file is too large to count), and the
    first characters of its text."""

    number: int | None
    starts: str


class Documents:
    """Names the documents of a token file.

    The first time a number is asked for, ends of documents are counted up to that place, in blocks
    whose counts are kept: 0.3 s for 10⁹ tokens in memory, else as long as reading them takes. In a
    file of more than 2·10⁹ tokens no document is numbered.

    Args:
        file: an open token file.
        tokenizer: the one that it was made with.
        characters: of a document's beginning, at most.
    """

    def __init__(self, file: TokenFile, tokenizer: Tokenizer, characters: int = 80) -> None:
        self._tokens = file.tokens
        self._end = file.header.eos_id
        self._tokenizer = tokenizer
        self._characters = characters
        self._before = [0]  # documents that end before each block

    def of_windows(
        self, windows: Iterable[int], length: int, limit: int
    ) -> tuple[list[tuple[Document, int]], int]:
        """The documents of these windows of `length` inputs, in order, each once.

        Returns the first `limit` of them, each with the place in `windows` of the first that it is
        in, and how many there are.
        """
        first: dict[int, int] = {}
        for place, window in enumerate(windows):
            start = int(window) * length
            for begins in self._starts(start, start + length + 1):
                first.setdefault(begins, place)
        listed = list(first.items())[:limit]
        return [(self._document(start), place) for start, place in listed], len(first)

    def _starts(self, start: int, stop: int) -> list[int]:
        """Where the documents with a token in start..stop-1 begin."""
        ends = np.flatnonzero(self._tokens[start : stop - 1] == self._end) + start
        return [self._start_of(start), *(ends + 1).tolist()]

    def _start_of(self, position: int) -> int:
        """Where the document begins that `position` is in."""
        while position > 0:
            low = max(0, position - _LOOK_BACK)
            ends = np.flatnonzero(self._tokens[low:position] == self._end)
            if len(ends):
                return low + int(ends[-1]) + 1
            position = low
        return 0

    def _document(self, start: int) -> Document:
        # Four tokens a character: no text in UTF-8 needs more of a byte-level tokenizer.
        ids = self._tokens[start : start + 4 * self._characters]
        ends = np.flatnonzero(ids == self._end)
        text = self._tokenizer.decode(ids[: ends[0]] if len(ends) else ids)
        return Document(self._number(start), text[: self._characters])

    def _number(self, start: int) -> int | None:
        if len(self._tokens) > _COUNTED:
            return None
        block = start // _BLOCK
        while len(self._before) <= block:
            low = (len(self._before) - 1) * _BLOCK
            self._before.append(self._before[-1] + self._count(self._tokens[low : low + _BLOCK]))
        return self._before[block] + self._count(self._tokens[block * _BLOCK : start])

    def _count(self, tokens: NDArray[np.integer]) -> int:
        return int(np.count_nonzero(tokens == self._end))
