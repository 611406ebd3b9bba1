"""A process that saves checkpoints without end, killed again and again.

One process forks those that are killed: importing torch takes longer than all they do.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from groundup.train.checkpoint import Checkpoints
from groundup.train.world import ALONE

KILLS = 10


def model() -> tuple[nn.Module, torch.optim.Optimizer]:
    found = nn.Sequential(*(nn.Linear(100, 100) for _ in range(3)))
    return found, torch.optim.AdamW(found.parameters())


def fill(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """All tensors tell the step."""
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(step)
            optimizer.state[p] = {"step": torch.tensor(float(step))}
            optimizer.state[p]["exp_avg"] = torch.full_like(p, -step)
            optimizer.state[p]["exp_avg_sq"] = torch.full_like(p, step + 0.5)


def check(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    for p in model.parameters():
        state = optimizer.state[p]
        assert p.eq(step).all()
        assert state["step"] == step
        assert state["exp_avg"].eq(-step).all()
        assert state["exp_avg_sq"].eq(step + 0.5).all()


def _run(folder: Path, saves: float) -> None:
    """Go on, tell where from, and save `saves` times, changing all while it is written."""
    weights, optimizer = model()
    partial = any((folder / "c").glob(".step-*.partial"))
    checkpoints = Checkpoints(folder / "c", ALONE, 2)
    notes: list[str] = []
    found = checkpoints.resume(weights, optimizer, notes.append)
    assert not notes, notes
    assert not any((folder / "c").glob(".*"))
    step = 0
    if found is not None:
        step, state = found
        assert state["of"] == step
        check(weights, optimizer, step)
    with open(folder / "told", "a") as file:
        file.write(json.dumps({"step": step, "partial": partial}) + "\n")
    while saves > 0:
        step += 1
        saves -= 1
        fill(weights, optimizer, step)
        checkpoints.save(step, weights, optimizer, {"of": step})
        fill(weights, optimizer, 10**6)


def _main(folder: Path) -> None:
    torch.set_num_threads(1)
    # What a killed process has written the kernel has: only a power cut asks for more.
    os.fsync = lambda _: None
    _import_what_is_imported_late(folder / "before")
    draw = random.Random(0)
    for kill in range(KILLS):
        before = _newest(folder)
        child = os.fork()
        if child == 0:
            try:
                _run(folder, float("inf"))
            finally:
                os._exit(1)
        until = time.monotonic() + 60
        while _newest(folder) <= before:
            assert time.monotonic() < until, "no checkpoint in a minute"
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"kill {kill}: it had ended by itself"
    _run(folder, 1)


def _import_what_is_imported_late(folder: Path) -> None:
    """Once, and not in every process that is killed."""
    for step in (0, 1):
        weights, optimizer = model()
        checkpoints = Checkpoints(folder, ALONE, 2)
        checkpoints.resume(weights, optimizer, print)
        fill(weights, optimizer, step)
        checkpoints.save(step, weights, optimizer, {})
        checkpoints.close()


def _newest(folder: Path) -> int:
    return max((int(path.name[5:]) for path in (folder / "c").glob("step-*")), default=0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
