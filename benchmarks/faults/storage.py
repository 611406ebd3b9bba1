"""Disks that are full or read-only: real ones, mounted for the purpose."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.ends import ends_the_same, says
from faults.moments import cut_off, in_training
from faults.place import STEPS, Place
from faults.registry import NotHere, fault

_FULL = "No space left on device"


@fault(
    "disk-full",
    "disk full in a run",
    "the run's folder is a tmpfs, filled by another file at random updates but for 0 to 200 KiB",
    times=8,
)
def disk_full(place: Place, times: int) -> Generator[str, None, str]:
    draw = random.Random(0)
    for _ in range(times):
        folder = place.folder()
        with _disk(folder.run, "16m"):
            started = in_training(folder, draw.randint(1, STEPS - 40))
            _fill(folder.run / "filler", leave=draw.randint(0, 200) * 1024)
            yield says(started.wait(), 2, _FULL, "run/")
            (folder.run / "filler").unlink()
            ends_the_same(place, folder)
    return "with room again, the same command ended as undisturbed"


@fault(
    "disk-full-at-start",
    "disk full at the start",
    "the run's folder is a full tmpfs, at first and after a kill",
    times=2,
)
def disk_full_at_start(place: Place, times: int) -> Generator[str, None, str]:
    for turn in range(times):
        folder = place.folder()
        with _disk(folder.run, "16m"):
            if turn % 2:
                cut_off(folder, 30)
            _fill(folder.run / "filler", leave=0)
            yield says(folder.finish(), 2, _FULL, "run/")
            (folder.run / "filler").unlink()
            ends_the_same(place, folder)
    return "with room again, the same command ended as undisturbed"


@fault(
    "disk-full-in-preparation",
    "disk full while data are prepared",
    "the folder of prepared data is a tmpfs of 8 to 120 KiB",
    times=5,
)
def disk_full_in_preparation(place: Place, times: int) -> Generator[str, None, str]:
    draw = random.Random(0)
    for _ in range(times):
        folder = place.folder(prepared=False)
        with _disk(folder.path / "data", f"{draw.randint(2, 30) * 4}k") as resize:
            yield says(folder.finish(), 2, _FULL, "data/")
            resize("16m")
            ends_the_same(place, folder)
    return "with room again, the same command ended as undisturbed"


@fault(
    "read-only",
    "read-only folder",
    "the run's folder is a tmpfs, mounted read-only, at first and after a kill",
    times=2,
)
def read_only(place: Place, times: int) -> Generator[str, None, str]:
    for turn in range(times):
        folder = place.folder()
        with _disk(folder.run, "16m"):
            if turn % 2:
                cut_off(folder, 30)
            _mount("-o", "remount,ro", str(folder.run))
            yield says(folder.finish(), 2, "Read-only file system", "run/")
            _mount("-o", "remount,rw", str(folder.run))
            ends_the_same(place, folder)
    return "writable again, the same command ended as undisturbed"


@contextmanager
def _disk(folder: Path, size: str) -> Iterator:
    """A file system of `size` at `folder`; gives what changes its size."""
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield lambda size: _mount("-o", f"remount,size={size}", str(folder))
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"mount is refused: {done.stderr.strip()}")


def _fill(path: Path, leave: int) -> None:
    """Write until the disk is full, then give `leave` bytes back."""
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
        size = file.seek(0, os.SEEK_END)
        file.truncate(max(0, size - leave))
