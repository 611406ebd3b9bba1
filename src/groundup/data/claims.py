"""Sharing work between processes and machines that prepare in one folder.

Each run that takes part has a file of its own, `owner-…`, which it holds a lock on and writes a new
number into from time to time. What it works on it claims by a symbolic link that names that file:
making one is atomic, and fails where there is one already, on every file system that has links.

A claim counts while its owner lives. On this machine the kernel says so: the lock ends with the
last process that has the owner's descriptor. Of another machine's owner the number must go on
changing, seen by the clock here, so no clocks are compared. A claim of a dead owner is not removed,
but followed by one with the next number, so that two who find it dead cannot both have it.

Claims only spare work. Everything that is made under one is the same whoever makes it, and appears
whole or not at all: an owner that was taken for dead, and wakes up, does no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

__all__ = ["LEASE", "Claims", "Gone", "remove_claims"]

LEASE = 120.0
"""Seconds without a new number after which an owner on another machine is taken for dead."""
_BEAT = 10.0  # seconds between numbers
_PAUSE = 0.1  # seconds between two looks


class Gone(Exception):
    """The folder of claims is not there: somebody has finished the work and removed it."""


class Claims:
    """Takes part in the work that `folder` is about, for the length of a `with` block.

    Errors: `OSError` if the file system has no symbolic links.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = f"owner-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Claims:
        import fcntl  # POSIX only, and needed only here

        self._folder.mkdir(exist_ok=True)
        try:
            # Kept open: processes that inherit it keep the owner alive until they have ended.
            self.descriptor = os.open(
                self._folder / self._owner, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644
            )
        except FileNotFoundError as error:
            raise Gone from error
        with contextlib.suppress(OSError):  # no locks here: others go by the numbers
            fcntl.flock(self.descriptor, fcntl.LOCK_EX)
            os.pwrite(self.descriptor, b"lock", 0)
        self._beating.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._beating.join()
        (self._folder / self._owner).unlink(missing_ok=True)
        os.close(self.descriptor)

    def take(self, name: str) -> bool:
        """Claim `name`; False if another owner has it who lives. Errors: `Gone`, `OSError`."""
        for number in range(1 << 20):
            path = self._folder / f"{name}.{number}"
            try:
                os.symlink(self._owner, path)
                return True
            except FileNotFoundError as error:
                raise Gone from error
            except FileExistsError:
                pass
            except OSError as error:
                raise OSError(
                    f"{path}: the file system cannot make symbolic links ({error.strerror}): "
                    "set folder to one that can, such as a local disk"
                ) from error
            try:
                owner = os.readlink(path)
            except FileNotFoundError as error:
                raise Gone from error
            if owner == self._owner:
                return True
            if self._lives(owner):
                return False
        raise AssertionError("a million owners have died")

    def once(self, name: str, made: Callable[[], bool], tell: Callable[[], None]) -> bool:
        """Whether this owner is to make `name`; else waits until it is `made`. Errors: `Gone`."""
        while not made():
            if self.take(name):
                return not made()
            tell()
            time.sleep(_PAUSE)
        return False

    @property
    def held(self) -> bool:
        """Whether the folder is still there, with this owner's file."""
        return (self._folder / self._owner).exists()

    @property
    def alone(self) -> bool:
        """Whether nobody else who lives takes part now."""
        owners = {path.name for path in self._folder.glob("owner-*")}
        return self._owner in owners and not any(map(self._lives, owners - {self._owner}))

    def remove(self) -> None:
        """Remove the folder, for all: the work is done."""
        remove_claims(self._folder)

    def _lives(self, owner: str) -> bool:
        import fcntl

        path = self._folder / owner
        try:
            with open(path, "rb") as file:
                number = file.read()
                if number.startswith(b"lock") and owner.split("-")[1] == _machine():
                    try:
                        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    except BlockingIOError:
                        return True
                    return False
        except FileNotFoundError:
            return False
        before, since = self._seen.setdefault(owner, (number, time.monotonic()))
        if number != before:
            self._seen[owner] = (number, time.monotonic())
            return True
        return time.monotonic() - since < LEASE

    def _beat(self) -> None:
        number = 0
        while not self._over.wait(_BEAT):
            number += 1
            with contextlib.suppress(OSError):  # seen by others as silence, which it is
                os.pwrite(self.descriptor, f" {number:020}".encode(), 4)
                os.fsync(self.descriptor)


def remove_claims(folder: Path) -> None:
    """Remove a folder of claims, and what a killed removal has left of it."""
    with contextlib.suppress(FileNotFoundError):
        # At once, for those who are about to claim: a half-empty folder would let them.
        os.rename(folder, folder.with_name(f"{folder.name}-{secrets.token_hex(4)}"))
    for left in folder.parent.glob(f"{folder.name}-*"):
        shutil.rmtree(left, ignore_errors=True)


def _machine() -> str:
    """The same for all processes that see each other's locks, and for no others."""
    try:
        name = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        name = platform.node()
    return hashlib.sha256(name.encode()).hexdigest()[:16]
