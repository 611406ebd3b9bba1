"""One shard as files of its own: the unit that preparing resumes by.

Part i is `i.train.gtok` and `i.validation.gtok`, and `i.json`, written last: while that is not
there, the part does not count.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from groundup._atomic import atomic_write
from groundup.data.corpus.cutting import Shard
from groundup.data.corpus.reading import documents
from groundup.data.errors import TokenFileError
from groundup.data.split import ALL, SPLITS, split_value
from groundup.data.tokenizer import Tokenizer
from groundup.data.tokens import TokenFile, TokenWriter

__all__ = ["Part", "encode_part", "finished_part", "split_path"]

_BATCH = 1 << 20  # characters that are encoded together


@dataclass(frozen=True)
class Part:
    """What a finished part holds besides its tokens."""

    index: int
    tokenizer: str
    smallest: int  # the smallest `split_value` of its documents, 2^64 without any
    skipped: dict[str, int]


def split_path(folder: Path, index: int, split: str) -> Path:
    """The token file of one side of a part."""
    return folder / f"{index:06d}.{split}.gtok"


def encode_part(
    folder: Path, index: int, shard: Shard, threshold: int, tokenizer: Tokenizer
) -> Part:
    """Encode a shard and write its part; documents with a split value below `threshold` go to
    validation. Errors: `DataError` if the shard cannot be read; nothing of the part stays then.
    """
    skipped: Counter[str] = Counter()
    smallest = ALL
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                TokenWriter(
                    split_path(folder, index, split),
                    vocab_size=tokenizer.vocab_size,
                    eos_id=tokenizer.eos_id,
                    tokenizer=tokenizer.hash,
                )
            )
            for split in SPLITS
        ]
        for texts in _grouped(documents(shard, skipped)):
            for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
                value = split_value(text)
                smallest = min(smallest, value)
                writers[value < threshold].add(ids)
    part = Part(index, tokenizer.hash, smallest, dict(sorted(skipped.items())))
    atomic_write(_record(folder, index), json.dumps(asdict(part)).encode())
    return part


def finished_part(folder: Path, index: int, tokenizer: Tokenizer) -> Part | None:
    """The part, if it is there, whole, undamaged, and made with this tokenizer."""
    try:
        part = Part(**json.loads(_record(folder, index).read_bytes()))
        if part.index != index or part.tokenizer != tokenizer.hash:
            return None
        for split in SPLITS:
            file = TokenFile.open(split_path(folder, index, split))
            if file.header.tokenizer != tokenizer.hash:
                return None
            file.verify()
    except (FileNotFoundError, TokenFileError, ValueError, TypeError):
        return None
    return part


def _record(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.json"


def _grouped(texts: Iterator[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _BATCH:
            yield group
            group, size = [], 0
    if group:
        yield group
