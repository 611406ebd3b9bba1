"""Runs the checks of a module on two ranks (gloo, CPU), each a process of its own.

One pair of processes runs all, one after the other: starting a pair costs more than any check.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from tests.forked import Forked

WORLD = 2
_PATIENCE = 300  # seconds for all checks; only what hangs takes as long


def run(module: str, folder: Path) -> dict[str, str]:
    """Run every ``check_…(folder)`` of `module`; name → "" or what went wrong on which ranks."""
    ranks = [
        Forked(_main, module, rank, folder, log=folder / f"{rank}.log") for rank in range(WORLD)
    ]
    try:
        for process in ranks:
            if process.wait(_PATIENCE) is None:
                break
    finally:
        for process in ranks:
            process.kill()
    outcomes: dict[str, str] = {}
    for rank in range(WORLD):
        told = folder / f"{rank}.json"
        of_rank = json.loads(told.read_text()) if told.exists() else {}
        log = (folder / f"{rank}.log").read_text()[-3000:]
        for name in names(module):
            said = of_rank.get(name, f"did not come to an end\n{log}")
            outcomes[name] = outcomes.get(name, "") + (f"rank {rank}: {said}\n" if said else "")
    return outcomes


def names(module: str) -> list[str]:
    return [name for name in vars(importlib.import_module(module)) if name.startswith("check_")]


def _main(module: str, rank: int, folder: Path) -> None:
    checks = importlib.import_module(module)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(folder / "store"), WORLD),
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=30),
    )
    outcomes: dict[str, str] = {}
    for name in names(module):
        try:
            getattr(checks, name)(folder)
            outcomes[name] = ""
        except BaseException:
            outcomes[name] = traceback.format_exc()
        (folder / f"{rank}.json").write_text(json.dumps(outcomes))
    sys.stdout.flush()
    # Not by way of destroying the group: gloo now and then aborts or hangs in it.
    os._exit(0)
