"""What to read, how to cut it into tokens, and where to keep the result."""

from __future__ import annotations

from dataclasses import dataclass

from groundup._check import count, is_number

__all__ = ["MIN_VOCABULARY", "DataConfig"]

MIN_VOCABULARY = 257  # 256 bytes and the end-of-document token
_FRACTION = 0.02
_VOCABULARY = 2048


@dataclass(frozen=True)
class DataConfig:
    """The data of a run. `ValueError` names the field, its value and what would be valid."""

    source: str = "python"
    """The text: "python" (the source code that ships with this interpreter), or a file or folder
    of plain text or JSONL, compressed or not (a folder called python: "./python")."""

    validation: str | None = None
    """A held-out file or folder. Without it, a fixed part of the source's documents is held out."""

    validation_fraction: float = _FRACTION
    """The part of the source's documents that is held out when there is no `validation`."""

    text_field: str = "text"
    """The field of a JSONL line that holds the document."""

    tokenizer: str = "train"
    """"train" (a byte-level BPE, trained on the source), a tokenizer.json, or a folder with one."""

    vocab_size: int = _VOCABULARY
    """The vocabulary of a trained tokenizer, its end-of-document token included."""

    length: int = 128
    """The sequence length in tokens."""

    folder: str = "data"
    """Where prepared token files are kept."""

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
        count("length", self.length)
