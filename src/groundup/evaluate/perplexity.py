"""Perplexity of documents, weighted by tokens: sums over all of them, never means of means.

Every token is scored exactly once. The first is predicted from a token that stands for the
beginning; a document longer than the model reads is read in windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from groundup.data import Tokenizer
from groundup.evaluate.scoring import Request, Scorer

__all__ = ["Encoded", "Perplexity", "encoded", "exponential", "perplexity", "windows", "words"]

_TOGETHER = 64  # documents that are tokenized at once
_BATCHES = 64  # that are scored at once: windows of about one length meet in a batch
T = TypeVar("T")


@dataclass(frozen=True)
class Encoded:
    """A document: its tokens, without special ones, and the words and bytes that it counts for."""

    tokens: NDArray[np.integer]
    words: int
    bytes: int


@dataclass(frozen=True)
class Perplexity:
    """Σ −log p over all tokens of all documents, and what it is divided by.

    Attributes:
        nats: Σ −log p.
        tokens: that were scored.
        words: separated by whitespace, of the text as it was given.
        bytes: of it in UTF-8.
        documents: how many.
    """

    nats: float
    tokens: int
    words: int
    bytes: int
    documents: int

    def numbers(self) -> dict[str, float | int | None]:
        """The above, and e^(nats per token, word, byte) and bits per byte; None where there is
        nothing to divide by, or no float64 as large."""
        return {
            "perplexity": exponential(self.nats, self.tokens),
            "word_perplexity": exponential(self.nats, self.words),
            "byte_perplexity": exponential(self.nats, self.bytes),
            "bits_per_byte": self.nats / math.log(2) / self.bytes if self.bytes else None,
            "nats": self.nats,
            "tokens": self.tokens,
            "words": self.words,
            "bytes": self.bytes,
            "documents": self.documents,
        }


def perplexity(
    scorer: Scorer,
    documents: Iterable[Encoded],
    beginning: int,
    stride: int | None = None,
    advance: Callable[[int], None] = lambda tokens: None,
) -> Perplexity:
    """Of all the documents together.

    Args:
        scorer: what reads them, `scorer.length` tokens at once.
        documents: read once, a few at a time.
        beginning: the token that the first of a document is predicted from.
        stride: see `windows`.
        advance: hears how many tokens are done.

    Raises:
        ValueError: if there is no token in the documents; for a stride that is not valid.
    """
    check_stride(stride, scorer.length)
    nats, tokens = 0.0, 0
    counts = np.zeros(3, dtype=np.int64)  # words, bytes, documents

    def requests() -> Iterator[Request]:
        for document in documents:
            counts[:] += (document.words, document.bytes, 1)
            yield from windows(document.tokens, beginning, scorer.length, stride)

    for some in _in_parts(requests(), _BATCHES * scorer.batch):
        nats -= math.fsum(score.logprob for score in scorer.score(some))
        tokens += sum(request.scored for request in some)
        advance(tokens)
    if not tokens:
        raise ValueError("there is nothing to score: the text has no tokens")
    return Perplexity(nats, tokens, *map(int, counts))


def windows(
    tokens: NDArray[np.integer], beginning: int, length: int, stride: int | None = None
) -> Iterator[Request]:
    """Requests that score each of `tokens` once.

    The first scores `length` tokens. Each further one scores the next `stride`, or what is left of
    them, given as many before them as make `length` inputs: so that each token has at least
    length − stride + 1 before it, that of the beginning included. Without a stride, windows are
    disjoint but for the last, which begins earlier, as those of LM Evaluation Harness do
    (`get_rolling_token_windows` with context_len 1).

    Args:
        tokens: ids, 1-dimensional.
        beginning: the token before them.
        length: inputs of the model at once.
        stride: 1 ≤ stride ≤ length; None for `length`.
    """
    ids = np.concatenate([np.array([beginning], dtype=np.int64), tokens.astype(np.int64)])
    start, stop = 0, min(length, len(tokens))
    while start < stop:
        yield Request(ids[max(0, stop - length) : stop + 1], stop - start)
        start, stop = stop, min(stop + (stride or length), len(tokens))


def check_stride(stride: int | None, length: int) -> None:
    """Raises:
    ValueError: unless 1 ≤ stride ≤ length, or it is None.
    """
    if stride is not None and not 1 <= stride <= length:
        raise ValueError(
            f"stride={stride} is not valid: it must be from 1 to length={length}, the tokens that "
            "are read at once"
        )


def encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """Documents as they are, tokenized a few at a time."""
    for some in _in_parts(texts, _TOGETHER):
        for text, tokens in zip(some, tokenizer.encode_batch(some), strict=True):
            yield Encoded(tokens, words(text), len(text.encode()))


def words(text: str) -> int:
    """How many there are, separated by whitespace."""
    return len(text.split())


def exponential(nats: float, count: int) -> float | None:
    """e^(nats/count); None without a count, or beyond float64."""
    if not count or math.isnan(nats):
        return None
    try:
        return math.exp(nats / count)
    except OverflowError:
        return None


def _in_parts(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    """Lists of `size`; only the last may be shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
