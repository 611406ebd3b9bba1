"""Freed memory stays with the process."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
import torch

from groundup.train.heap import keep_freed_memory

CODE = """
import json, resource, torch
from groundup.train.heap import keep_freed_memory
KEPT

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def update():
    return [torch.ones(1 << 20) for _ in range(24)]  # 96 MiB, 24576 pages

update()
before = faults()
for _ in range(5):
    update()
print(json.dumps((faults() - before) / 5))
"""


def faults(kept: str) -> float:
    """Page faults of an update, in a process of its own."""
    code = CODE.replace("KEPT", kept)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what other C libraries do is theirs")
def test_an_update_fetches_no_page_again() -> None:
    assert faults("keep_freed_memory(torch.device('cpu'))") < 1000
    assert faults("") > 10_000  # what it is there for


def test_other_devices_and_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        """A C library without mallopt."""

    monkeypatch.setattr("ctypes.CDLL", lambda _: Without())
    keep_freed_memory(torch.device("cpu"))
    monkeypatch.setattr("ctypes.CDLL", None)  # asking it would fail
    keep_freed_memory(torch.device("cuda"))
