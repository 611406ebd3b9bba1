"""From a source to token files, over processes and machines, continuing where it was stopped.

The result is a folder named after everything that it depends on: the content of every file of the
source and of the held-out text, the split, the text field, and the tokenizer (or, for one that is
trained here, its size). Preparing the same thing again returns at once; something else gets a
folder of its own. Bytes do not depend on the number of processes or on interruptions.

Several processes or machines that prepare in one folder share the work: see claims.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup._atomic import remove_leftovers
from groundup._check import count
from groundup.data import tokenizer as tokenizers
from groundup.data.claims import Claims, Gone, remove_claims
from groundup.data.config import DataConfig
from groundup.data.corpus.kinds import WITH_FIELDS
from groundup.data.encoding import Repeated, encode, join, parts_folders, plan
from groundup.data.errors import DataError
from groundup.data.lock import LOCK_NAME
from groundup.data.parts import Part
from groundup.data.prepared import Prepared, finish, finished
from groundup.data.progress import Progress, silent
from groundup.data.split import SPLITS, check_split
from groundup.data.texts import Text, listings, measured, sample
from groundup.data.tokenizer import Tokenizer

__all__ = ["Share", "cores", "folder_of", "prepare", "prepare_share"]

VERSION = 2  # of the algorithm; part of the folder's name
_CLAIMS = ".claims"  # in the folder: who is at what


@dataclass(frozen=True)
class Share:
    """Part `number` (from 1) of `of` of the work. `ValueError` says what would be valid."""

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= count("number", self.number) <= count("of", self.of):
            raise ValueError(
                f"number={self.number} is not valid with of={self.of}: it must be in 1..{self.of}"
            )

    @classmethod
    def parse(cls, text: str) -> Share:
        """As people write it: "3/8"."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and int(of)):
            raise ValueError(f"part={text!r} is not valid: it must be like 3/8: the third of eight")
        if not 1 <= int(number) <= int(of):
            raise ValueError(
                f"part={text!r} is not valid: the first number must be in 1..{int(of)}"
            )
        return cls(int(number), int(of))


def prepare(
    config: DataConfig, *, progress: Progress | None = None, workers: int | None = None
) -> Prepared:
    """Make (or find) the token files of `config`.

    `workers`: processes, by default as many as there are cores for this process. May be killed at
    any moment and called again; several at the same time, also on several machines that share the
    folder, divide the work, and all return when it is done.
    Errors: `DataError` or `ValueError` naming the field or the file and line; `TokenFileError` if
    a finished folder has been damaged.
    """
    task = _task(config, progress, workers)
    while (prepared := finished(task.target)) is None:
        try:
            with _claims(task) as claims:
                if finished(task.target) is None:
                    _make(task, claims)
        except Gone:
            continue
    _clean(task)
    return prepared


def prepare_share(
    config: DataConfig,
    share: Share,
    *,
    progress: Progress | None = None,
    workers: int | None = None,
) -> tuple[int, int]:
    """Encode a share of what `prepare` would, without waiting for the others and without joining.

    Returns how many of the parts of the whole are there now, and how many there are to be.
    Errors: as of `prepare`.
    """
    task = _task(config, progress, workers)
    while finished(task.target) is None:
        try:
            with _claims(task) as claims:
                tokenizer = _tokenizer(task, claims)
                work = plan(task.target, task.texts, tokenizer, config.deduplicate)
                chosen = slice(share.number - 1, None, share.of)
                encode(work, tokenizer, claims, task.tell, task.workers, chosen)
                return len(list(work.folder.glob("*.json"))), len(work.jobs)
        except Gone:
            continue
    total = sum(len(text.shards) for text in task.texts)
    return total, total


@dataclass(frozen=True)
class _Task:
    """What is to be made, and how."""

    config: DataConfig
    texts: list[Text]
    given: Tokenizer | None
    identity: dict[str, Any]
    key: str
    target: Path
    tell: Progress
    workers: int

    def wait(self) -> None:
        self.tell("wait", 0, 1)


def _task(config: DataConfig, progress: Progress | None, workers: int | None) -> _Task:
    if config.mixture:
        raise ValueError("a mixture is prepared by prepare_all, part by part")
    workers = cores() if workers is None else count("workers", workers)
    tell = silent if progress is None else progress
    given = None if config.tokenizer == "train" else tokenizers.load(config.tokenizer)
    found = listings(config)
    folder = folder_of(config)
    texts = measured(config, found, folder, tell, workers)
    identity = _identity(config, texts, given)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    size = config.vocab_size if given is None else given.vocab_size
    target = folder / f"{found[0].name}-{size}-{key[:12]}"
    return _Task(config, texts, given, identity, key, target, tell, workers)


@contextmanager
def _claims(task: _Task) -> Iterator[Claims]:
    """Takes part in making the folder, which is removed again if it fails with nothing to keep."""
    with ExitStack() as stack:
        try:
            task.target.mkdir(parents=True, exist_ok=True)
            (task.target / LOCK_NAME).touch()
            claims = stack.enter_context(Claims(task.target / _CLAIMS))
        except FileNotFoundError as error:
            raise Gone from error  # another, which failed, has removed the folder
        try:
            yield claims
        except DataError:
            if not _worth_keeping(task):
                _discard(task, claims)
            raise
        except Exception as error:
            if claims.held:
                raise
            raise Gone from error


def _worth_keeping(task: _Task) -> bool:
    """Whether there is anything that took work: a trained tokenizer, a part."""
    trained = task.given is None and (task.target / "tokenizer.json").exists()
    return trained or any(True for _ in task.target.glob("parts-*/*.json"))


def _discard(task: _Task, claims: Claims) -> bool:
    """Remove the folder if nobody else is at it; who comes meanwhile finds the claims gone."""
    if not claims.alone:
        return False
    # At once, so that nobody finds half of it.
    removed = task.target.with_name(f".{task.target.name}-{secrets.token_hex(4)}")
    task.target.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
    return True


def _make(task: _Task, claims: Claims) -> None:
    """Take part in making what is not there; return when it is."""
    tokenizer = _tokenizer(task, claims)
    work = plan(task.target, task.texts, tokenizer, task.config.deduplicate)
    encoded = encode(work, tokenizer, claims, task.tell, task.workers)
    if not claims.once("join", lambda: finished(task.target) is not None, task.wait):
        return
    remove_leftovers(task.target)
    left_out = Repeated(work) if task.config.deduplicate else None
    try:
        _check(task.config, encoded.parts, left_out)
    except DataError:
        # Nothing in it is of use to other settings, which have a folder of their own.
        if not _discard(task, claims):
            _clean(task)
        raise
    join(task.target, encoded, tokenizer, left_out, task.tell)
    finish(task.target, task.key, task.identity, task.texts, encoded.parts, tokenizer)


def folder_of(config: DataConfig) -> Path:
    """Where prepared files are kept; made if it is not there."""
    folder = Path(config.folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"folder={config.folder!r} cannot be made: {error.strerror}") from error
    return folder


def _identity(config: DataConfig, texts: list[Text], given: Tokenizer | None) -> dict[str, Any]:
    """Everything that the result depends on."""
    held_out: dict[str, Any] = {"fraction": float(config.validation_fraction)}
    if len(texts) > 1:
        held_out = {"fingerprint": texts[1].measures.fingerprint}
    fields = any(file.kind in WITH_FIELDS for text in texts for file in text.measures.files)
    train = {"train": int(config.vocab_size)}
    identity: dict[str, Any] = {
        "version": VERSION,
        "source": texts[0].measures.fingerprint,
        "validation": held_out,
        "text_field": config.text_field if fields else None,
        "tokenizer": train if given is None else {"hash": given.hash},
    }
    if config.deduplicate:
        identity["deduplicate"] = True
    return identity


def _tokenizer(task: _Task, claims: Claims) -> Tokenizer:
    path = task.target / "tokenizer.json"
    if task.given is not None:
        task.given.save(path)
    elif claims.once("tokenizer", path.exists, task.wait):
        texts = sample(task.texts[0], task.tell)
        tokenizers.train(texts, task.config.vocab_size).save(path)
    return tokenizers.load(path)


def _check(config: DataConfig, parts: list[Part], left_out: Repeated | None) -> None:
    counts = {split: sum(part.documents[split] for part in parts) for split in SPLITS}
    if left_out is not None:
        counts = {split: counts[split] - left_out.number(split) for split in SPLITS}
    check_split(config, counts, min(part.smallest for part in parts))


def _clean(task: _Task) -> None:
    """Remove what is of use only while preparing; who still waits for it finds it gone."""
    remove_claims(task.target / _CLAIMS)  # before the parts: without those, all would be undone
    for folder in parts_folders(task.target):
        shutil.rmtree(folder, ignore_errors=True)


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
