"""A finished folder of token files.

prepared.json    what it is; written last: while it is not there, the folder is not finished
train.gtok, validation.gtok, tokenizer.json, tokenizer_config.json
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup.data.errors import TokenFileError
from groundup.data.parts import Part
from groundup.data.split import SPLITS
from groundup.data.texts import Text
from groundup.data.tokenizer import Tokenizer
from groundup.data.tokens import TokenFile

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
    parts: Iterable[Part],
    tokenizer: Tokenizer,
) -> Prepared:
    """Write prepared.json beside files that are complete."""
    headers = {split: TokenFile.open(target / f"{split}.gtok").header for split in SPLITS}
    skipped: Counter[str] = Counter()
    for counts in (*(text.listing.skipped for text in texts), *(part.skipped for part in parts)):
        skipped.update(counts)
    report = {
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
    atomic_write(target / MANIFEST, (json.dumps(report, indent=2) + "\n").encode())
    return _prepared(target, report)


def finished(target: Path) -> Prepared | None:
    """The folder's content, if prepared.json and what it describes are there.

    Errors: `TokenFileError` if that is damaged.
    """
    try:
        prepared = _prepared(target, json.loads((target / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(target, f"{MANIFEST} cannot be read: {error}") from error
    if not all(p.exists() for p in (prepared.train, prepared.validation, prepared.tokenizer)):
        return None
    for path in (prepared.train, prepared.validation):
        try:
            header = TokenFile.open(path).header
        except TokenFileError as error:
            raise _damaged(target, str(error)) from error
        if header.tokenizer != prepared.report["tokenizer"]:
            raise _damaged(target, f"{path.name} was made with another tokenizer")
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
