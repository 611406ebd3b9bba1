"""From shards to token files: parts, of which an earlier run may have finished some, then joined.

parts-*/    the finished parts of an unfinished run, named after its shards and tokenizer
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from groundup._atomic import remove_leftovers
from groundup.data.parts import Part, finished_part, split_path
from groundup.data.progress import Progress
from groundup.data.split import SPLITS
from groundup.data.texts import Text
from groundup.data.tokenizer import Tokenizer
from groundup.data.tokens import TokenFile, TokenWriter
from groundup.data.workers import Job, encode_parts

__all__ = ["Encoded", "encode", "join", "parts_folders"]

_CHUNK = 1 << 22  # tokens


@dataclass(frozen=True)
class Encoded:
    """All parts, in order, and the folder that they are in."""

    folder: Path
    parts: list[Part]

    def files(self, split: str) -> Iterable[TokenFile]:
        """The token files of one side, in order."""
        return (TokenFile.open(split_path(self.folder, part.index, split)) for part in self.parts)


def encode(
    target: Path, texts: list[Text], tokenizer: Tokenizer, tell: Progress, workers: int, lock: int
) -> Encoded:
    """Encode what is not encoded yet; parts of other settings are removed."""
    jobs = [
        Job(index, shard, threshold)
        for index, (shard, threshold) in enumerate(
            (shard, text.threshold) for text in texts for shard in text.shards
        )
    ]
    folder = target / f"parts-{_digest(jobs, tokenizer)[:12]}"
    for other in parts_folders(target):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    parts = {job.index: p for job in jobs if (p := finished_part(folder, job.index, tokenizer))}
    missing = [job for job in jobs if job.index not in parts]
    total = sum(job.shard.length for job in jobs)
    done = total - sum(job.shard.length for job in missing)
    tell("encode", done, total)
    for part in encode_parts(missing, folder, target / "tokenizer.json", workers, lock):
        parts[part.index] = part
        done += jobs[part.index].shard.length
        tell("encode", done, total)
    return Encoded(folder, [parts[job.index] for job in jobs])


def join(target: Path, encoded: Encoded, tokenizer: Tokenizer, tell: Progress) -> None:
    """Write the token file of each side from its parts."""
    done, total = 0, len(SPLITS) * len(encoded.parts)
    for split in SPLITS:
        with TokenWriter(
            target / f"{split}.gtok",
            vocab_size=tokenizer.vocab_size,
            eos_id=tokenizer.eos_id,
            tokenizer=tokenizer.hash,
        ) as writer:
            for file in encoded.files(split):
                for start in range(0, len(file.tokens), _CHUNK):
                    writer.extend(file.tokens[start : start + _CHUNK], documents=0)
                writer.documents += file.header.documents
                done += 1
                tell("join", done, total)


def parts_folders(target: Path) -> list[Path]:
    """The folders of parts that are there."""
    return list(target.glob("parts-*"))


def _digest(jobs: list[Job], tokenizer: Tokenizer) -> str:
    plan = [
        [[file.path for file in job.shard.files], job.shard.start, job.shard.stop, job.threshold]
        for job in jobs
    ]
    return hashlib.sha256(json.dumps([plan, tokenizer.hash]).encode()).hexdigest()
