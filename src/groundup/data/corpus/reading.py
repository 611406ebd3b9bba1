"""Reading the documents of a shard."""

from __future__ import annotations

import tokenize
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from groundup.data.corpus.compression import open_stream
from groundup.data.corpus.cutting import SECTION, WHOLE, Shard
from groundup.data.corpus.files import File, stamp
from groundup.data.corpus.jsonl import read_jsonl
from groundup.data.corpus.lines import lines
from groundup.data.errors import DataError

__all__ = ["READERS", "documents"]


def documents(shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    """The documents of a shard, in order; what is left out is counted in `skipped`.

    Errors: `DataError` naming the file and the line or byte, if the content is not what it should
    be or the file has changed since it was listed.
    """
    root = Path(shard.root)
    for file in shard.files:
        path = root / file.path
        if stamp(root, file.path, file.kind) != replace(file, length=-1):
            raise DataError(f"{path}: the file has changed since preparing began: start it again")
        for text in READERS[file.kind](path, file, shard, skipped):
            if text:
                yield text
            else:
                skipped["empty documents"] += 1


def _python(path: Path, file: File, shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    """A Python file, in the encoding that it declares; undecodable ones are left out."""
    with open_stream(path) as stream:
        try:
            encoding, _ = tokenize.detect_encoding(stream.readline)
            stream.seek(0)
            yield stream.read().decode(encoding)
        except (SyntaxError, UnicodeDecodeError):
            skipped["undecodable Python files"] += 1


def _text(path: Path, file: File, shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    """A text file: one document, or one per section if it is longer than `WHOLE`."""
    if file.length <= WHOLE:
        with open_stream(path) as stream:
            yield _decode(path, stream.read(), 0)
        return
    placed = lines(path, shard.start, shard.stop)
    for _, section in groupby(placed, key=lambda line: line[0] // SECTION):
        offsets, content = zip(*section, strict=True)
        yield _decode(path, b"".join(content), offsets[0])


def _jsonl(path: Path, file: File, shard: Shard, skipped: Counter[str]) -> Iterator[str]:
    return read_jsonl(path, shard.start, shard.stop, shard.field)


Reader = Callable[[Path, File, Shard, Counter[str]], Iterator[str]]
READERS: dict[str, Reader] = {"python": _python, "text": _text, "jsonl": _jsonl}
"""How a kind of file becomes documents."""


def _decode(path: Path, content: bytes, offset: int) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8: {error.reason} at byte {offset + error.start}; "
            "convert the file, or take it out of the folder"
        ) from error
    return text.removeprefix("\ufeff") if offset == 0 else text
