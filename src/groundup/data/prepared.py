"""A finished folder of token files.

prepared.json    what it is; written last: while it is not there, the folder is not finished
train.gtok, validation.gtok, tokenizer.json, tokenizer_config.json
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup._json import seal, unseal
from groundup.data.errors import TokenFileError
from groundup.data.parts import Part
from groundup.data.split import SPLITS
from groundup.data.texts import Text
from groundup.data.tokenizer import CONFIG, Tokenizer, config
from groundup.data.tokens import TokenFile
from groundup.data.verified import verify_once

__all__ = ["MANIFEST", "Prepared", "finish", "finished"]

MANIFEST = "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """A finished folder and the files in it; `report` is the content of its prepared.json."""

    folder: Path
    train: Path
    validation: Path
    tokenizer: Path
    report: dict[str, Any]


def finish(
    target: Path,
    key: str,
    identity: dict[str, Any],
    texts: list[Text],
    parts: Sequence[Part],
    tokenizer: Tokenizer,
) -> Prepared:
    """Write prepared.json beside files that are complete; `parts`: of all texts, in order."""
    headers = {split: TokenFile.open(target / f"{split}.gtok").header for split in SPLITS}
    skipped: Counter[str] = Counter()
    for counts in (*(text.listing.skipped for text in texts), *(part.skipped for part in parts)):
        skipped.update(counts)
    found = sum(sum(part.documents.values()) for part in parts)
    if repeated := found - sum(header.documents for header in headers.values()):
        skipped["duplicate documents"] = repeated
    report = {
        "key": key,
        "identity": identity,
        "sources": _sources(texts, parts),
        "skipped": dict(sorted(skipped.items())),
        "documents": {split: headers[split].documents for split in SPLITS},
        "tokens": {split: headers[split].tokens for split in SPLITS},
        "vocab_size": tokenizer.vocab_size,
        "eos": tokenizer.eos,
        "tokenizer": tokenizer.hash,
    }
    atomic_write(target / MANIFEST, seal(report, indent=2))
    return _prepared(target, report)


def _sources(texts: list[Text], parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Of each text: its name, its files and the bytes of text in its documents, in UTF-8."""
    sources, left = [], iter(parts)
    for text in texts:
        size = sum(part.bytes for part in islice(left, len(text.shards)))
        source = {"name": text.listing.name, "files": len(text.measures.files), "bytes": size}
        if text.listing.origin:
            source["origin"] = text.listing.origin
        sources.append(source)
    return sources


def finished(target: Path) -> Prepared | None:
    """The folder's content, if prepared.json and what it describes are there.

    Errors: `TokenFileError` if that is damaged.
    """
    try:
        prepared = _prepared(target, unseal((target / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(target, f"{MANIFEST} cannot be read: {error}") from error
    if not all(p.exists() for p in (prepared.train, prepared.validation, prepared.tokenizer)):
        return None
    report = prepared.report
    tokenizer, eos = report["tokenizer"], target / CONFIG
    if not eos.exists() or eos.read_bytes() != config(report["eos"]):
        raise _damaged(target, f"{CONFIG} was changed")
    if hashlib.sha256(prepared.tokenizer.read_bytes()).hexdigest() != tokenizer:
        raise _damaged(target, f"{prepared.tokenizer.name} was changed")
    try:
        files = [TokenFile.open(path) for path in (prepared.train, prepared.validation)]
        verify_once(files)
    except TokenFileError as error:
        raise _damaged(target, str(error)) from error
    for split, file in zip(SPLITS, files, strict=True):
        header = file.header
        if header.tokenizer != tokenizer:
            raise _damaged(target, f"{file.path.name} was made with another tokenizer")
        if (header.tokens, header.documents) != (
            report["tokens"][split],
            report["documents"][split],
        ):
            raise _damaged(target, f"{file.path.name} is that of another folder")
    return prepared


def _prepared(target: Path, report: dict[str, Any]) -> Prepared:
    return Prepared(
        folder=target,
        train=target / "train.gtok",
        validation=target / "validation.gtok",
        tokenizer=target / "tokenizer.json",
        report=report,
    )


def _damaged(target: Path, what: str) -> TokenFileError:
    return TokenFileError(f"{target}: {what}; delete this folder to have it prepared again")
