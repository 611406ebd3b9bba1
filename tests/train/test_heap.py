"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from groundup.train.heap import keep_freed_memory
from tests.forked import Forked


def update() -> None:
    """96 MiB."""
    _ = [torch.ones(1 << 20) for _ in range(24)]


def print_faults(kept: bool) -> None:
    """Print the page faults of an update."""
    if kept:
        keep_freed_memory()
    update()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        update()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what other C libraries do is theirs")
def test_an_update_fetches_no_page_again(tmp_path: Path) -> None:
    faults = []
    for kept in (True, False):
        process = Forked(print_faults, kept, log=tmp_path / f"{kept}")
        assert process.wait(60) == 0, process.log.read_text()
        faults.append(float(process.log.read_text()))
    assert faults[0] < 1000 < faults[1]  # of 24 thousand pages; how many otherwise, malloc decides


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        """A C library without mallopt."""

    monkeypatch.setattr("ctypes.CDLL", lambda _: Without())
    keep_freed_memory()
