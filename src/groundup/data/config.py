"""What to read, how to cut it into tokens, and where to keep the result."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from groundup._check import count, is_number, unknown
from groundup.data.mixture.part import MixturePart, check_parts, corpus_fields
from groundup.data.mixture.weights import follows_warmup, shares, with_warmup_at

__all__ = ["MIN_VOCABULARY", "DataConfig"]

MIN_VOCABULARY = 257  # 256 bytes and the end-of-document token
_Documents = Literal["together", "apart"]
_FRACTION = 0.02
_VOCABULARY = 2048


@dataclass(frozen=True)
class DataConfig:
    """The data of a run. `ValueError` names the field, its value and what would be valid."""

    source: str = "python"
    """The text: "python" (the source code that ships with this interpreter); a file or folder of
    plain text, JSONL (both compressed or not) or Parquet, or a pattern (*, **) for such files; an
    address that fsspec knows, such as "s3://bucket/folder" or "https://host/text.jsonl.gz"; or a
    data set, "dataset:NAME?config=…&split=…&revision=…". (A folder called python: "./python".)"""

    validation: str | None = None
    """Held-out text, named like a source. Without it, a fixed part of the source's documents is
    held out."""

    validation_fraction: float = _FRACTION
    """The part of the source's documents that is held out when there is no `validation`."""

    text_field: str = "text"
    """The field of a JSONL line, or the column of a table, that holds the document."""

    tokenizer: str = "train"
    """"train" (a byte-level BPE, trained on the source), a tokenizer.json, or a folder with one."""

    vocab_size: int = _VOCABULARY
    """The vocabulary of a trained tokenizer, its end-of-document token included."""

    deduplicate: bool = False
    """Whether to leave out documents of which an equal one comes earlier in the source, or is held
    out."""

    length: int = 128
    """The sequence length in tokens."""

    documents: _Documents = "together"
    """Whether a token attends to the documents before its own in a sequence, or to its own alone.
    The tokens that are read are the same."""

    folder: str = "data"
    """Where prepared token files are kept."""

    mixture: tuple[MixturePart, ...] = ()
    """Several corpora, mixed by weight, in the place of `source`: [[data.mixture]] tables."""

    def __post_init__(self) -> None:
        for name in ("source", "validation", "text_field", "tokenizer", "folder"):
            value = getattr(self, name)
            if name == "validation" and value is None:
                continue
            if not isinstance(value, str) or not value or "\0" in value:
                raise ValueError(f"{name}={value!r} is not valid: it must be a non-empty string")
        if self.validation == "python":
            raise ValueError(
                "validation='python' is not valid: it must be a held-out file or folder "
                "(a folder called python: './python'), or None"
            )
        fraction = self.validation_fraction
        if not is_number(fraction) or not 0 < fraction < 1:
            raise ValueError(
                f"validation_fraction={fraction!r} is not valid: "
                "it must be a number above 0 and below 1"
            )
        if self.validation is not None and fraction != _FRACTION:
            raise ValueError(
                f"validation_fraction={fraction!r} would be ignored, because "
                f"validation={self.validation!r} names the held-out text: give only one of them"
            )
        count("vocab_size", self.vocab_size, MIN_VOCABULARY)
        if self.tokenizer != "train" and self.vocab_size != _VOCABULARY:
            raise ValueError(
                f"vocab_size={self.vocab_size!r} would be ignored, because "
                f"tokenizer={self.tokenizer!r} brings its own: leave vocab_size out, "
                "or set tokenizer='train'"
            )
        if not isinstance(self.deduplicate, bool):
            raise ValueError(f"deduplicate={self.deduplicate!r} is not valid: true or false")
        count("length", self.length)
        if self.documents not in get_args(_Documents):
            raise unknown("documents", self.documents, get_args(_Documents))
        if self.mixture:
            self._check_mixture()

    def corpora(self) -> tuple[DataConfig, ...]:
        """A configuration for each corpus: those of the parts of a mixture, or this one."""
        return tuple(self._of(part) for part in self.mixture) or (self,)

    def shares(self, steps: int, batch: int, warmup_end: float | None = None) -> NDArray[np.int64]:
        """The share of each part of the mixture in the batch of each update: `weights.shares`, of a
        run of `steps` updates of `batch` sequences whose residual warmup ends at `warmup_end`."""
        weights = {part.name: part.weight for part in self.mixture}
        return shares(weights, steps, batch * self.length, warmup_end)

    @property
    def follows_warmup(self) -> bool:
        """Whether the mixture has a point at the end of the residual warmup."""
        return any(follows_warmup(part.weight) for part in self.mixture)

    def with_warmup_at(self, end: int) -> DataConfig:
        """The same with the update `end` in the place of the mixture's "warmup"."""
        parts = (replace(p, weight=with_warmup_at(p.weight, end)) for p in self.mixture)
        return replace(self, mixture=tuple(parts))

    @property
    def unused(self) -> tuple[str, ...]:
        """The fields that parts of a mixture have in the place of this."""
        return tuple(corpus_fields(self.mixture[0])) if self.mixture else ()

    def _of(self, part: MixturePart) -> DataConfig:
        own = corpus_fields(part)
        if own["validation"] is not None:
            own["validation_fraction"] = _FRACTION
        return replace(self, mixture=(), **own)

    def _check_mixture(self) -> None:
        defaults = {field.name: field.default for field in fields(self)}
        for name in self.unused:
            if (value := getattr(self, name)) != defaults[name]:
                raise ValueError(
                    f"{name}={value!r} would be ignored, because there is a mixture: say it of a "
                    "part"
                )
        check_parts(self.mixture)
        for part in self.mixture:
            try:
                self._of(part)
            except ValueError as error:
                raise ValueError(f"mixture, {part.name!r}: {error}") from None
        fraction = self.validation_fraction
        if fraction != _FRACTION and all(part.validation is not None for part in self.mixture):
            raise ValueError(
                f"validation_fraction={fraction!r} would be ignored, because every part of the "
                "mixture names its held-out text"
            )
