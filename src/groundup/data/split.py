"""Which documents are held out."""

from __future__ import annotations

import hashlib
import math

from groundup.data.config import DataConfig
from groundup.data.errors import DataError

__all__ = ["ALL", "SPLITS", "check_split", "split_value"]

SPLITS = ("train", "validation")
ALL = 1 << 64
"""Above every `split_value`: the threshold that holds out everything."""


def split_value(text: str) -> int:
    """A document's place in [0, 2^64), from its text alone: below the threshold it is held out.

    So the split is the same on every machine and in any order of files, and two copies of one
    document never lie on both sides.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=b"groundup-split").digest()
    return int.from_bytes(digest, "little")


def check_split(config: DataConfig, counts: dict[str, int], smallest: int) -> None:
    """Both sides must have documents; `smallest` is the smallest `split_value` of all.

    Errors: `DataError` that says what would help.
    """
    if all(counts.values()):
        return
    if config.validation is not None:
        empty = "validation" if counts["train"] else "source"
        raise DataError(f"{empty}={getattr(config, empty)!r} has no document with any text")
    total = sum(counts.values())
    if total < 2:
        raise DataError(
            f"source={config.source!r} has {total} document(s), of which none can be held out: "
            "name a held-out file or folder as validation"
        )
    of = (
        f"validation_fraction={config.validation_fraction} of the {total} documents of "
        f"source={config.source!r}"
    )
    if counts["train"]:
        needed = math.ceil(smallest / ALL * 1000 + 0.1) / 1000  # a little more, in three decimals
        raise DataError(
            f"{of} holds out none: set it to {needed} or more, "
            "or name a held-out file or folder as validation"
        )
    raise DataError(f"{of} leaves none to train on: make it smaller")
