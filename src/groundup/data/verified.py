"""Tokens are held against their checksum once, and again when their file was changed or moved."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from groundup.data.corpus.measuring import remembered
from groundup.data.tokens import TokenFile

__all__ = ["verify_once"]

MEMORY = ".verified.json"
"""Beside the files' folder: absolute path → [size, mtime_ns, sha256] of what was found whole."""


def verify_once(files: Iterable[TokenFile]) -> None:
    """Read all tokens of the files that have not been read since they were written.

    Errors: `TokenFileError` if they are damaged.
    """
    for file in files:
        # Where nothing can be remembered, as in a folder shared read-only, it is read each time.
        with suppress(OSError), remembered(file.path.parent.parent / MEMORY) as known:
            path = os.path.abspath(file.path)
            stamp = os.stat(path)
            entry = [stamp.st_size, stamp.st_mtime_ns, file.header.sha256]
            if known.get(path) != entry:
                file.verify()
                known[path] = entry
