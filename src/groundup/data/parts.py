"""One shard as files of its own: the unit that preparing resumes by.

Part i is `i.train.gtok` and `i.validation.gtok`, with duplicates to be found also `i.train.ids` and
`i.validation.ids`, and `i.json`, written last: while that is not there, the part does not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup._json import seal, unseal
from groundup.data.corpus.cutting import Shard
from groundup.data.corpus.reading import documents
from groundup.data.errors import TokenFileError
from groundup.data.identities import Identities, check_identities
from groundup.data.split import ALL, SPLITS, split_value
from groundup.data.tokenizer import Tokenizer
from groundup.data.tokens import TokenFile, TokenWriter

__all__ = ["Job", "Part", "encode_part", "finished_part", "ids_path", "recorded_part", "split_path"]

_BATCH = 1 << 20  # characters that are encoded together


@dataclass(frozen=True)
class Job:
    """A shard to encode into part `index`.

    Documents with a split value below `threshold` go to validation; `identify`: write their ids.
    """

    index: int
    shard: Shard
    threshold: int
    identify: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        return cls(**{**values, "shard": Shard.from_json(values["shard"])})


@dataclass(frozen=True)
class Part:
    """What a finished part holds besides its tokens."""

    index: int
    tokenizer: str
    smallest: int  # the smallest `split_value` of its documents, 2^64 without any
    bytes: int  # of its documents' text, in UTF-8
    documents: dict[str, int]  # by side
    ids: dict[str, str]  # SHA-256 of the files of ids, by side, if there are any
    skipped: dict[str, int]


def split_path(folder: Path, index: int, split: str) -> Path:
    """The token file of one side of a part."""
    return folder / f"{index:06d}.{split}.gtok"


def ids_path(folder: Path, index: int, split: str) -> Path:
    """The ids of the documents of one side of a part: see `identities.py`."""
    return folder / f"{index:06d}.{split}.ids"


def encode_part(folder: Path, job: Job, tokenizer: Tokenizer) -> Part:
    """Encode a shard and write its part.

    Errors: `DataError` if the shard cannot be read; nothing of the part stays then.
    """
    skipped: Counter[str] = Counter()
    smallest, size = ALL, 0
    ids = [Identities() for _ in SPLITS] if job.identify else []
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                TokenWriter(
                    split_path(folder, job.index, split),
                    vocab_size=tokenizer.vocab_size,
                    eos_id=tokenizer.eos_id,
                    tokenizer=tokenizer.hash,
                )
            )
            for split in SPLITS
        ]
        for texts in _grouped(documents(job.shard, skipped)):
            for text, tokens in zip(texts, tokenizer.encode_batch(texts), strict=True):
                value = split_value(text)
                smallest = min(smallest, value)
                size += len(text.encode())
                side = value < job.threshold
                writers[side].add(tokens)
                if ids:
                    ids[side].add(text)
    digests = {
        split: ids[side].write(ids_path(folder, job.index, split))
        for side, split in enumerate(SPLITS if ids else ())
    }
    counts = {split: writers[side].documents for side, split in enumerate(SPLITS)}
    part = Part(
        job.index, tokenizer.hash, smallest, size, counts, digests, dict(sorted(skipped.items()))
    )
    atomic_write(_record(folder, job.index), seal(asdict(part)))
    return part


def recorded_part(folder: Path, job: Job, tokenizer: Tokenizer) -> Part | None:
    """The part, if it has been finished with this tokenizer; its files are not looked at."""
    try:
        part = Part(**unseal(_record(folder, job.index).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    same = part.index == job.index and part.tokenizer == tokenizer.hash
    return part if same and bool(part.ids) == job.identify else None


def finished_part(folder: Path, job: Job, tokenizer: Tokenizer) -> Part | None:
    """The part, if it is there, whole, undamaged, and made with this tokenizer.

    If its files are damaged its record is removed: it no longer counts, for anybody.
    """
    part = recorded_part(folder, job, tokenizer)
    if part is None:
        return None
    try:
        for split in SPLITS:
            file = TokenFile.open(split_path(folder, job.index, split))
            if file.header.tokenizer != tokenizer.hash:
                raise TokenFileError(f"{file.path}: made with another tokenizer")
            file.verify()
        for split, digest in part.ids.items():
            check_identities(ids_path(folder, job.index, split), digest)
    except (FileNotFoundError, TokenFileError):
        _record(folder, job.index).unlink(missing_ok=True)
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
