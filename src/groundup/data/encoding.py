"""From shards to token files: parts, made by whoever comes first, then joined.

parts-*/    the finished parts of an unfinished run, named after its shards and tokenizer
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.data.claims import Claims, Gone
from groundup.data.errors import TokenFileError
from groundup.data.identities import repeats
from groundup.data.parts import (
    Job,
    Part,
    finished_part,
    ids_path,
    recorded_part,
    split_path,
)
from groundup.data.progress import Progress
from groundup.data.split import SPLITS
from groundup.data.texts import Text
from groundup.data.tokenizer import Tokenizer
from groundup.data.tokens import TokenFile, TokenWriter
from groundup.data.workers import encode_parts

__all__ = ["Encoded", "Plan", "Repeated", "encode", "join", "parts_folders", "plan"]

_CHUNK = 1 << 22  # tokens
_PAUSE = 0.2  # seconds, while others encode what is left
_FIRST = ("validation", "train")  # held-out text stays, and what equals it is not trained on


@dataclass(frozen=True)
class Plan:
    """All that there is to encode, in order, and the folder that parts are made in."""

    folder: Path
    jobs: list[Job]

    @property
    def length(self) -> int:
        """Bytes of text, about."""
        return sum(job.shard.length for job in self.jobs)


@dataclass(frozen=True)
class Encoded:
    """All parts, in order, and the folder that they are in."""

    folder: Path
    parts: list[Part]


def plan(target: Path, texts: list[Text], tokenizer: Tokenizer, identify: bool) -> Plan:
    """What encoding these texts takes; `identify`: with the ids that `find_repeats` needs."""
    jobs = [
        Job(index, shard, threshold, identify)
        for index, (shard, threshold) in enumerate(
            (shard, text.threshold) for text in texts for shard in text.shards
        )
    ]
    return Plan(target / f"parts-{_digest(jobs, tokenizer)[:12]}", jobs)


def encode(
    work: Plan,
    tokenizer: Tokenizer,
    claims: Claims,
    tell: Progress,
    workers: int,
    share: slice | None = None,
) -> Encoded:
    """Encode what is not encoded yet and nobody else is at; wait for what others are at.

    `share`: only these of the jobs, and without waiting. Errors: as of `encode_part`; `Gone`.
    """
    jobs = work.jobs if share is None else work.jobs[share]
    work.folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(max_workers=workers) as pool:
        whole = pool.map(lambda job: finished_part(work.folder, job, tokenizer), jobs)
        parts = {job.index: part for job, part in zip(jobs, whole, strict=True) if part}
    total = sum(job.shard.length for job in jobs)

    def told() -> list[Job]:
        missing = [job for job in jobs if job.index not in parts]
        tell("encode", total - sum(job.shard.length for job in missing), total)
        return missing

    missing = told()
    while missing:
        left = sum(job.shard.length for job in missing)
        try:
            for part in _encoded(missing, work.folder, tokenizer, claims, workers):
                parts[part.index] = part
                left -= work.jobs[part.index].shard.length
                tell("encode", total - left, total)
        except OSError as error:
            if not work.folder.exists():
                raise Gone from error
            raise
        for job in missing:
            made = recorded_part(work.folder, job, tokenizer) if job.index not in parts else None
            if made is not None:
                parts[job.index] = made
        missing = told()
        if share is not None:
            break
        if missing:
            time.sleep(_PAUSE)
    return Encoded(work.folder, [parts[job.index] for job in jobs if job.index in parts])


class Repeated:
    """The documents of which an equal one comes earlier; all held-out text comes first."""

    def __init__(self, work: Plan) -> None:
        self._jobs = len(work.jobs)
        self._repeats = repeats(
            [ids_path(work.folder, job.index, split) for split in _FIRST for job in work.jobs]
        )

    def of(self, split: str, place: int) -> NDArray[np.bool_]:
        """Of the documents of one side of a part: bool [documents]."""
        return self._repeats.of(_FIRST.index(split) * self._jobs + place)

    def number(self, split: str) -> int:
        """How many there are on one side."""
        first = _FIRST.index(split) * self._jobs
        return int(self._repeats.counts[first : first + self._jobs].sum())


def join(
    target: Path, encoded: Encoded, tokenizer: Tokenizer, left_out: Repeated | None, tell: Progress
) -> None:
    """Write the token file of each side from its parts, without the documents in `left_out`."""
    done, total = 0, len(SPLITS) * len(encoded.parts)
    for split in SPLITS:
        with TokenWriter(
            target / f"{split}.gtok",
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
            tokenizer=tokenizer.hash,
        ) as writer:
            for place, part in enumerate(encoded.parts):
                file = TokenFile.open(split_path(encoded.folder, part.index, split))
                if left_out is None:
                    kept = [(0, len(file.tokens), file.header.documents)]
                else:
                    kept = _kept(file, left_out.of(split, place))
                for first, last, documents in kept:
                    for start in range(first, last, _CHUNK):
                        stop = min(start + _CHUNK, last)
                        writer.extend(file.tokens[start:stop], documents=0)
                    writer.documents += documents
                done += 1
                tell("join", done, total)


def parts_folders(target: Path) -> list[Path]:
    """The folders of parts that are there."""
    return list(target.glob("parts-*"))


def _encoded(
    missing: list[Job], folder: Path, tokenizer: Tokenizer, claims: Claims, workers: int
) -> Iterator[Part]:
    ours = _claimed(missing, folder, tokenizer, claims)
    first = next(ours, None)
    if first is None:  # no processes for nothing to do
        return
    ours = chain([first], ours)
    workers = min(workers, len(missing))
    yield from encode_parts(ours, folder, tokenizer, workers, claims.descriptor)


def _claimed(jobs: list[Job], folder: Path, tokenizer: Tokenizer, claims: Claims) -> Iterator[Job]:
    """Jobs as they are claimed, one at a time; those that others have or have done are left."""

    def done(job: Job) -> bool:
        return recorded_part(folder, job, tokenizer) is not None

    for job in jobs:
        # Asked again once it is claimed: whoever had it before may have finished it meanwhile.
        if not done(job) and claims.take(f"{job.index:06d}") and not done(job):
            yield job


def _kept(file: TokenFile, left_out: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """What stays of a part: ranges of tokens, and the number of documents in each."""
    ends = [0]
    for start in range(0, len(file.tokens), _CHUNK):
        found = np.flatnonzero(file.tokens[start : start + _CHUNK] == file.header.eos_id)
        ends += (found + start + 1).tolist()
    if len(ends) - 1 != len(left_out):
        raise TokenFileError(
            f"{file.path}: {len(ends) - 1} documents, but {len(left_out)} ids: delete the folder "
            f"{file.path.parent.parent} to have it prepared again"
        )
    edges = np.flatnonzero(np.diff(np.concatenate([[True], left_out, [True]]).astype(np.int8)))
    return [
        (ends[first], ends[last], int(last - first))
        for first, last in edges.reshape(-1, 2).tolist()
    ]


def _digest(jobs: list[Job], tokenizer: Tokenizer) -> str:
    plan = [
        [[file.path for file in job.shard.files], job.shard.start, job.shard.stop, job.threshold]
        for job in jobs
    ]
    return hashlib.sha256(json.dumps([plan, tokenizer.hash]).encode()).hexdigest()
