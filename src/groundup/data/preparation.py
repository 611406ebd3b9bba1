"""From a source to token files, over processes, continuing where it was stopped.

The result is a folder named after everything that it depends on: the content of every file of the
source and of the held-out text, the split, the text field, and the tokenizer (or, for one that is
trained here, its size). Preparing the same thing again returns at once; something else gets a
folder of its own. Bytes do not depend on the number of processes or on interruptions.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from groundup._atomic import remove_leftovers
from groundup._check import count
from groundup.data import tokenizer as tokenizers
from groundup.data.config import DataConfig
from groundup.data.encoding import encode, join, parts_folders
from groundup.data.errors import DataError
from groundup.data.lock import locked
from groundup.data.prepared import Prepared, finish, finished
from groundup.data.progress import Progress, silent
from groundup.data.split import SPLITS, check_split
from groundup.data.texts import Text, listings, measured, sample
from groundup.data.tokenizer import Tokenizer

__all__ = ["prepare"]

VERSION = 1  # of the algorithm; part of the folder's name


def prepare(
    config: DataConfig, *, progress: Progress | None = None, workers: int | None = None
) -> Prepared:
    """Make (or find) the token files of `config`.

    `workers`: processes, by default as many as there are cores for this process. May be killed at
    any moment and called again; two at the same time share the work's result, not the work.
    Errors: `DataError` or `ValueError` naming the field or the file and line; `TokenFileError` if
    a finished folder has been damaged.
    """
    workers = _cores() if workers is None else count("workers", workers)
    tell = silent if progress is None else progress
    given = None if config.tokenizer == "train" else tokenizers.load(config.tokenizer)
    found = listings(config)
    folder = Path(config.folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"folder={config.folder!r} cannot be made: {error.strerror}") from error

    texts = measured(config, found, folder, tell, workers)
    identity = _identity(config, texts, given)
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    size = config.vocab_size if given is None else given.vocab_size
    target = folder / f"{found[0].name}-{size}-{key[:12]}"
    # Parts beside a finished result: killed while removing them.
    if (prepared := finished(target)) is not None and not parts_folders(target):
        return prepared
    target.mkdir(exist_ok=True)
    with locked(target, lambda: tell("wait", 0, 1)) as lock:
        remove_leftovers(target)
        prepared = finished(target)
        if prepared is None:
            tokenizer = _tokenizer(config, target, texts[0], given, tell)
            encoded = encode(target, texts, tokenizer, tell, workers, lock)
            counts = {s: sum(f.header.documents for f in encoded.files(s)) for s in SPLITS}
            try:
                check_split(config, counts, min(part.smallest for part in encoded.parts))
            except DataError:
                shutil.rmtree(encoded.folder)  # of no use to other settings
                raise
            join(target, encoded, tokenizer, tell)
            prepared = finish(target, key, identity, texts, encoded.parts, tokenizer)
        for parts in parts_folders(target):
            shutil.rmtree(parts)
    return prepared


def _identity(config: DataConfig, texts: list[Text], given: Tokenizer | None) -> dict[str, Any]:
    """Everything that the result depends on."""
    held_out: dict[str, Any] = {"fraction": float(config.validation_fraction)}
    if len(texts) > 1:
        held_out = {"fingerprint": texts[1].measures.fingerprint}
    jsonl = any(file.kind == "jsonl" for text in texts for file in text.measures.files)
    train = {"train": int(config.vocab_size)}
    return {
        "version": VERSION,
        "source": texts[0].measures.fingerprint,
        "validation": held_out,
        "text_field": config.text_field if jsonl else None,
        "tokenizer": train if given is None else {"hash": given.hash},
    }


def _tokenizer(
    config: DataConfig, target: Path, text: Text, given: Tokenizer | None, tell: Progress
) -> Tokenizer:
    path = target / "tokenizer.json"
    if given is not None:
        given.save(path)
    elif not path.exists():
        tokenizers.train(sample(text, tell), config.vocab_size).save(path)
    return tokenizers.load(path)


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
