"""The lock on a folder that is being prepared."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LOCK_NAME", "locked"]

LOCK_NAME = ".groundup-lock"  # marks a folder of prepared files, which is no source


@contextmanager
def locked(folder: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """Hold the folder's lock; it ends with the last process that has the yielded descriptor."""
    import fcntl  # POSIX only, and needed only here

    path = folder / LOCK_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(0.1)
            except OSError as error:
                raise OSError(
                    f"{path}: the file system cannot lock files ({error.strerror}): "
                    "set folder to one that can, such as a local disk"
                ) from error
        yield descriptor
    finally:
        os.close(descriptor)
