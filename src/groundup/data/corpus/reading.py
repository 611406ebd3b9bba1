"""Reading the documents of a shard."""

from __future__ import annotations

import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from groundup.data.corpus.compression import Openable, open_stream
from groundup.data.corpus.cutting import SECTION, WHOLE, Shard
from groundup.data.corpus.dataset import Dataset
from groundup.data.corpus.files import File, check_unchanged
from groundup.data.corpus.jsonl import read_jsonl
from groundup.data.corpus.lines import lines
from groundup.data.corpus.parquet import read_parquet
from groundup.data.corpus.places import place_of
from groundup.data.errors import DataError

__all__ = ["READERS", "documents"]


def documents(shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    """The documents of a shard, in order; what is left out is counted in `skipped`.

    Errors: `DataError` naming the file and the line, byte or row, if the content is not what it
    should be or the file has changed since it was listed.
    """
    root = place_of(shard.root)
    for file in shard.files:
        check_unchanged(root, file)
        for text in READERS[file.kind](root / file.path, file, shard, skipped):
            if text:
                yield text
            else:
                skipped["empty documents"] += 1


def _python(path: Openable, file: File, shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    """A Python file, in the encoding that it declares; undecodable ones are left out."""
    with open_stream(path) as stream:
        try:
            encoding, _ = tokenize.detect_encoding(stream.readline)
            stream.seek(0)
            yield stream.read().decode(encoding)
        except (SyntaxError, UnicodeDecodeError):
            skipped["undecodable Python files"] += 1


def _text(path: Openable, file: File, shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    """A text file: one document, or one per section if it is longer than `WHOLE`."""
    if file.length <= WHOLE:
        with open_stream(path) as stream:
            content = stream.read(WHOLE + 1)
        if len(content) <= WHOLE:
            yield _decode(path, content, 0)
            return
        # Its length was not known.
    placed = lines(path, shard.start, shard.stop)
    for _, section in groupby(placed, key=lambda line: line[0] // SECTION):
        offsets, parts = zip(*section, strict=True)
        yield _decode(path, b"".join(parts), offsets[0])


def _jsonl(path: Openable, file: File, shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    return read_jsonl(path, shard.start, shard.stop, shard.field)


def _parquet(path: Openable, file: File, shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    return read_parquet(path, shard.start, shard.stop, shard.field, skipped)


def _dataset(path: Dataset, file: File, shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    return path.texts(shard.start, shard.stop, shard.field, skipped)


Reader = Callable[[Any, File, Shard, Counter[str]], Iterator[str]]
READERS: dict[str, Reader] = {
    "python": _python,
    "text": _text,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "dataset": _dataset,
}
"""How a kind of file becomes documents."""


def _decode(path: Openable, content: bytes, offset: int) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8: {error.reason} at byte {offset + error.start}; "
            "convert the file, or take it out of the folder"
        ) from error
    return text.removeprefix("\ufeff") if offset == 0 else text
