"""From a source to token files, over processes, continuing where it was stopped.

The result is a folder named after everything that it depends on: the content of every file of the
source and of the held-out text, the split, the text field, and the tokenizer (or, for one that is
trained here, its size). Preparing the same thing again returns at once; something else gets a
folder of its own. Bytes do not depend on the number of processes or on interruptions.

    prepared.json    what it is; written last: while it is not there, the folder is not finished
    train.gtok, validation.gtok, tokenizer.json, tokenizer_config.json
    parts-*/         the finished shards of an unfinished run
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup.data import corpora
from groundup.data import tokenizer as tokenizers
from groundup.data.atomic import atomic_write, remove_leftovers
from groundup.data.config import DataConfig
from groundup.data.corpora import Listing, Measures, Shard
from groundup.data.errors import DataError, TokenFileError
from groundup.data.parts import SPLITS, Part, finished_part, split_path
from groundup.data.tokenizer import Tokenizer
from groundup.data.tokens import TokenFile, TokenWriter
from groundup.data.workers import Job, encode_parts

__all__ = ["Prepared", "Progress", "prepare"]

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total); phases are read, wait, tokenizer, encode, join."""

VERSION = 1  # of the algorithm; part of the folder's name
MANIFEST = "prepared.json"
_SAMPLE = 20_000_000  # characters that a tokenizer is trained on, at most
_PLACES = 32  # of a larger source, from which they are taken
_CHUNK = 1 << 22  # tokens
_ALL = 1 << 64


@dataclass(frozen=True)
class Prepared:
    """A finished folder and the files in it; `report` is the content of its prepared.json."""

    folder: Path
    train: Path
    validation: Path
    tokenizer: Path
    report: dict[str, Any]


@dataclass(frozen=True)
class _Text:
    """A source with its measures, and the split value below which its documents are held out."""

    listing: Listing
    measures: Measures
    shards: list[Shard]
    threshold: int


def prepare(
    config: DataConfig, *, progress: Progress | None = None, workers: int | None = None
) -> Prepared:
    """Make (or find) the token files of `config`.

    `workers`: processes, by default as many as there are cores for this process. May be killed at
    any moment and called again; two at the same time share the work's result, not the work.
    Errors: `DataError` or `ValueError` naming the field or the file and line; `TokenFileError` if
    a finished folder has been damaged.
    """
    workers = _cores() if workers is None else workers
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers={workers!r} is not valid: it must be an integer of at least 1")
    tell: Progress = progress if progress is not None else lambda phase, done, total: None
    given = None if config.tokenizer == "train" else tokenizers.load(config.tokenizer)
    listings = _listings(config)
    folder = Path(config.folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"folder={config.folder!r} cannot be made: {error.strerror}") from error

    texts = _measured(config, listings, folder, tell, workers)
    identity = _identity(config, texts, given)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    size = config.vocab_size if given is None else given.vocab_size
    target = folder / f"{listings[0].name}-{size}-{key[:12]}"
    # Parts beside a finished result: killed while removing them.
    if (prepared := _finished(target, key)) is not None and not _parts(target):
        return prepared
    target.mkdir(exist_ok=True)
    with _lock(target / corpora.LOCK_NAME, tell) as lock:
        remove_leftovers(target)
        if (prepared := _finished(target, key)) is not None:
            for parts in _parts(target):
                shutil.rmtree(parts)
            return prepared
        tokenizer = _tokenizer(config, target, texts[0], given, tell)
        parts, kept = _encode(target, texts, tokenizer, tell, workers, lock)
        try:
            _check_split(config, parts, kept, len(texts) > 1)
        except DataError:
            shutil.rmtree(parts)  # of no use to other settings
            raise
        for split in SPLITS:
            _join(target, parts, kept, split, tokenizer, tell)
        report = _report(key, identity, texts, kept, target, tokenizer)
        atomic_write(target / MANIFEST, (json.dumps(report, indent=2) + "\n").encode())
        shutil.rmtree(parts)
    return _prepared(target, report)


# What there is to read


def _listings(config: DataConfig) -> list[Listing]:
    source = corpora.find(config.source)
    if config.validation is None:
        return [source]
    validation = corpora.find(config.validation, "validation")
    source = source.without(validation)
    if not source.files:
        raise DataError(
            f"source={config.source!r} has no file that is not in "
            f"validation={config.validation!r} too: the held-out text must be another"
        )
    return [source, validation]


def _measured(
    config: DataConfig, listings: list[Listing], folder: Path, tell: Progress, workers: int
) -> list[_Text]:
    path = folder / ".fingerprints.json"
    cache = _read_cache(path)
    before = dict(cache)
    started = time.time_ns()
    total = sum(file.size for listing in listings for file in listing.files)
    done, texts = 0, []
    for position, listing in enumerate(listings):

        def advance(count: int, _: int, offset: int = done) -> None:
            tell("read", offset + count, total)

        measures = corpora.measure(listing, cache, advance, workers)
        done += sum(file.size for file in listing.files)
        if measures.length == 0:
            what = config.source if position == 0 else config.validation
            raise DataError(f"{what}: the source is empty: it has no text")
        if len(listings) > 1:
            threshold = 0 if position == 0 else _ALL
        else:
            threshold = int(config.validation_fraction * 2**64)
        cut = corpora.shards(listing, measures, config.text_field)
        texts.append(_Text(listing, measures, cut, threshold))
    # A file changed within the clock's resolution would keep its stamp: remember older ones only.
    settled = {key: value for key, value in cache.items() if value[1] < started - 2_000_000_000}
    if settled != before:
        atomic_write(path, json.dumps(settled).encode())
    return texts


def _read_cache(path: Path) -> dict[str, list[Any]]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    types = [int, int, str, int]
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, list) and [type(item) for item in value] == types
    }


def _identity(config: DataConfig, texts: list[_Text], given: Tokenizer | None) -> dict[str, Any]:
    """Everything that the result depends on."""
    held_out: dict[str, Any] = {"fraction": config.validation_fraction}
    if len(texts) > 1:
        held_out = {"fingerprint": texts[1].measures.fingerprint}
    jsonl = any(file.kind == "jsonl" for text in texts for file in text.measures.files)
    return {
        "version": VERSION,
        "source": texts[0].measures.fingerprint,
        "validation": held_out,
        "text_field": config.text_field if jsonl else None,
        "tokenizer": {"train": config.vocab_size} if given is None else {"hash": given.hash},
    }


# The lock


@contextmanager
def _lock(path: Path, tell: Progress) -> Iterator[int]:
    """Hold the folder's lock; it ends with the last process that has the descriptor."""
    import fcntl  # POSIX only, and needed only here

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tell("wait", 0, 1)
                time.sleep(0.1)
            except OSError as error:
                raise OSError(
                    f"{path}: the file system cannot lock files ({error.strerror}): "
                    "set folder to one that can, such as a local disk"
                ) from error
        yield descriptor
    finally:
        os.close(descriptor)


# The steps


def _tokenizer(
    config: DataConfig, target: Path, text: _Text, given: Tokenizer | None, tell: Progress
) -> Tokenizer:
    path = target / "tokenizer.json"
    if given is not None:
        given.save(path)
        return tokenizers.load(path)
    if not path.exists():
        tokenizers.train(_sample(text, tell), config.vocab_size).save(path)
    return tokenizers.load(path)


def _sample(text: _Text, tell: Progress) -> Iterator[str]:
    """Training documents: all, or equal parts from `_PLACES` places evenly spread over the source.

    Held-out documents are never among them.
    """
    skipped: Counter[str] = Counter()
    chosen, quota = text.shards, text.measures.length
    if text.measures.length > _SAMPLE:
        places = min(_PLACES, len(chosen))
        chosen = [chosen[place * len(chosen) // places] for place in range(places)]
        quota = _SAMPLE // places
    for done, shard in enumerate(chosen, start=1):
        left = quota
        for document in corpora.documents(shard, skipped):
            if corpora.split_value(document) >= text.threshold:
                yield document[:left]
            left -= len(document)
            if left <= 0:
                break
        tell("tokenizer", done, len(chosen))


def _encode(
    target: Path,
    texts: list[_Text],
    tokenizer: Tokenizer,
    tell: Progress,
    workers: int,
    lock: int,
) -> tuple[Path, list[Part]]:
    """All parts, of which those that an earlier run has finished are kept."""
    jobs = [(shard, text.threshold) for text in texts for shard in text.shards]
    plan = [
        [[f.path for f in shard.files], shard.start, shard.stop, threshold]
        for shard, threshold in jobs
    ]
    digest = hashlib.sha256(json.dumps([plan, tokenizer.hash]).encode()).hexdigest()
    folder = target / f"parts-{digest[:12]}"
    for other in _parts(target):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    kept = {i: part for i in range(len(jobs)) if (part := finished_part(folder, i, tokenizer))}
    missing = [Job(i, *jobs[i]) for i in range(len(jobs)) if i not in kept]
    total = sum(shard.length for shard, _ in jobs)
    done = total - sum(job.shard.length for job in missing)
    tell("encode", done, total)
    for job in encode_parts(missing, folder, target / "tokenizer.json", workers, lock):
        done += job.shard.length
        tell("encode", done, total)
    for job in missing:
        part = finished_part(folder, job.index, tokenizer)
        if part is None:
            raise TokenFileError(f"{folder}: part {job.index} is damaged just after being written")
        kept[job.index] = part
    return folder, [kept[i] for i in range(len(jobs))]


def _check_split(config: DataConfig, folder: Path, parts: list[Part], separate: bool) -> None:
    """Both sides must have documents. Errors: `DataError` that says what would help."""
    counts = {
        split: sum(
            TokenFile.open(split_path(folder, part.index, split)).header.documents for part in parts
        )
        for split in SPLITS
    }
    total = sum(counts.values())
    if all(counts.values()):
        return
    if separate:
        empty = "source" if not counts["train"] else "validation"
        raise DataError(f"{empty}={getattr(config, empty)!r} has no document with any text")
    if total < 2:
        raise DataError(
            f"source={config.source!r} has {total} document(s), of which none can be held out: "
            "name a held-out file or folder as validation"
        )
    if not counts["validation"]:
        needed = min(part.smallest for part in parts) / 2**64
        raise DataError(
            f"validation_fraction={config.validation_fraction} of the {total} documents of "
            f"source={config.source!r} holds out none: set it to {_above(needed)} "
            "or more, or name a held-out file or folder as validation"
        )
    raise DataError(
        f"validation_fraction={config.validation_fraction} of the {total} documents of "
        f"source={config.source!r} leaves none to train on: make it smaller"
    )


def _above(fraction: float) -> float:
    """A little more, in three decimals."""
    return math.ceil(fraction * 1000 + 0.1) / 1000


def _join(
    target: Path, folder: Path, parts: list[Part], split: str, tokenizer: Tokenizer, tell: Progress
) -> None:
    total = len(SPLITS) * len(parts)
    before = SPLITS.index(split) * len(parts)
    with TokenWriter(
        target / f"{split}.gtok",
        vocab_size=tokenizer.vocab_size,
        eos_id=tokenizer.eos_id,
        tokenizer=tokenizer.hash,
    ) as writer:
        for done, part in enumerate(parts, start=1):
            file = TokenFile.open(split_path(folder, part.index, split))
            for start in range(0, len(file.tokens), _CHUNK):
                writer.extend(file.tokens[start : start + _CHUNK], documents=0)
            writer.documents += file.header.documents
            tell("join", before + done, total)


# The result


def _report(
    key: str,
    identity: dict[str, Any],
    texts: list[_Text],
    parts: list[Part],
    target: Path,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    headers = {split: TokenFile.open(target / f"{split}.gtok").header for split in SPLITS}
    skipped: Counter[str] = Counter()
    for counts in (*(text.listing.skipped for text in texts), *(part.skipped for part in parts)):
        skipped.update(counts)
    return {
        "key": key,
        "identity": identity,
        "sources": [
            {
                "name": text.listing.name,
                "files": len(text.measures.files),
                "bytes": text.measures.length,
            }
            for text in texts
        ],
        "skipped": dict(sorted(skipped.items())),
        "documents": {split: headers[split].documents for split in SPLITS},
        "tokens": {split: headers[split].tokens for split in SPLITS},
        "vocab_size": tokenizer.vocab_size,
        "eos": tokenizer.eos,
        "tokenizer": tokenizer.hash,
    }


def _finished(target: Path, key: str) -> Prepared | None:
    """The folder's content, if prepared.json is there and fits what lies beside it."""
    try:
        report = json.loads((target / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TokenFileError(_damaged(target, f"{MANIFEST} cannot be read: {error}")) from error
    prepared = _prepared(target, report)
    if not all(p.exists() for p in (prepared.train, prepared.validation, prepared.tokenizer)):
        return None
    if not isinstance(report, dict) or report.get("key") != key:
        raise TokenFileError(_damaged(target, f"{MANIFEST} is of another source or settings"))
    for path in (prepared.train, prepared.validation):
        try:
            header = TokenFile.open(path).header
        except TokenFileError as error:
            raise TokenFileError(_damaged(target, str(error))) from error
        if header.tokenizer != report["tokenizer"]:
            raise TokenFileError(_damaged(target, f"{path.name} was made with another tokenizer"))
    return prepared


def _damaged(target: Path, what: str) -> str:
    return f"{target}: {what}; delete this folder to have it prepared again"


def _prepared(target: Path, report: dict[str, Any]) -> Prepared:
    return Prepared(
        folder=target,
        train=target / "train.gtok",
        validation=target / "validation.gtok",
        tokenizer=target / "tokenizer.json",
        report=report,
    )


def _parts(target: Path) -> list[Path]:
    return list(target.glob("parts-*"))


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
