"""What a file holds, by its name."""

from __future__ import annotations

from pathlib import PurePath

from groundup.data.corpus.compression import SUFFIXES, is_compressed

__all__ = ["JSONL", "PARQUET", "TEXT", "VALID", "WITH_FIELDS", "kind_of"]

TEXT = (".txt", ".text", ".md", ".markdown", ".rst", ".tokens", ".py")
JSONL = (".jsonl", ".json", ".ndjson")
PARQUET = (".parquet",)
WITH_FIELDS = ("jsonl", "parquet", "dataset")
"""Kinds of which `text_field` says where a document's text is."""
VALID = (
    f"{' '.join((*TEXT, *JSONL))}, each also compressed ({' '.join(SUFFIXES)}), {' '.join(PARQUET)}"
)


def kind_of(path: PurePath) -> str | None:
    """How to read a file of this name, compressed or not; None if that is unknown."""
    if path.suffix.lower() in PARQUET:
        return "parquet"
    suffix = (path.with_suffix("") if is_compressed(path) else path).suffix.lower()
    return "text" if suffix in TEXT else "jsonl" if suffix in JSONL else None
