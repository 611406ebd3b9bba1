"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from groundup.train.heap import keep_freed_memory
from tests.forked import Forked

PAGES = 24 * 1024  # of an update: 96 MiB


def update() -> None:
    _ = [torch.ones(1 << 20) for _ in range(24)]


def print_faults(kept: bool) -> None:
    """Print the page faults of an update."""
    if kept:
        keep_freed_memory(torch.device("cpu"))
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
    assert faults[0] < PAGES / 10
    assert faults[1] > PAGES / 2  # what it is there for


def test_other_devices_and_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        """A C library without mallopt."""

    monkeypatch.setattr("ctypes.CDLL", lambda _: Without())
    keep_freed_memory(torch.device("cpu"))
    monkeypatch.setattr("ctypes.CDLL", None)  # asking it would fail
    keep_freed_memory(torch.device("cuda"))
