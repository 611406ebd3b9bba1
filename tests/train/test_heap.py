"""Freed memory stays with the process."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from groundup.train.heap import keep_freed_memory
from tests.forked import Forked

MIB = 1 << 20
GLIBC = hasattr(ctypes.CDLL(None), "mallinfo2")


class Mallinfo2(ctypes.Structure):
    """Of <malloc.h>: `hblks` blocks have a mapping of their own, which free gives back at once;
    `fordblks` bytes of the heap are free."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def now() -> Mallinfo2:
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = Mallinfo2
    return mallinfo2()


def print_fate(kept: bool) -> None:
    """Print whether a tensor of 64 MiB has a mapping of its own, and whether its memory stays."""
    if kept:
        keep_freed_memory()
    before = now()
    tensor = torch.ones(16 * MIB)
    mapped = now().hblks - before.hblks
    del tensor
    print(mapped, now().fordblks - before.fordblks >= 60 * MIB)


@pytest.mark.skipif(not GLIBC, reason="what other C libraries do is theirs")
@pytest.mark.parametrize(("kept", "fate"), [(False, "1 False"), (True, "0 True")])
def test_what_an_update_has_freed_is_there_for_the_next(
    tmp_path: Path, kept: bool, fate: str
) -> None:
    process = Forked(print_fate, kept, log=tmp_path / "log")
    assert process.wait(60) == 0, process.log.read_text()
    assert process.log.read_text().strip() == fate


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        """A C library without mallopt."""

    monkeypatch.setattr("ctypes.CDLL", lambda _: Without())
    keep_freed_memory()
