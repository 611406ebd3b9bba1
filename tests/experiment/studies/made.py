"""Arms whose runs are a few lines of Python, which end at once, wait, fail, or are killed."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from groundup.experiment.studies import Setting
from groundup.experiment.studies.running import train_all
from groundup.experiment.studies.trials import wanted

_BEGIN = """
import json, os, signal, sys, time

told, folder = json.load(open(sys.argv[1])), sys.argv[2]
out = os.path.dirname(os.path.dirname(folder))
os.makedirs(folder, exist_ok=True)

def note(name, text=""):
    with open(os.path.join(folder, name), "a") as file:
        file.write(text + "\\n")

def until(path):
    while not os.path.exists(path):
        time.sleep(0.005)

def end(value):
    with open(os.path.join(folder, "new"), "w") as file:
        json.dump({"loss": value, "began": began, "ended": time.monotonic()}, file)
    os.replace(os.path.join(folder, "new"), os.path.join(folder, "summary.json"))

def saved(*_):
    note("saved")
    print("groundup: stopped, saved", flush=True)
    sys.exit(143)

signal.signal(signal.SIGTERM, saved)
note("begun", str(os.getpid()))
began = time.monotonic()
"""

LOSS = "end(told['peak'] + told['seed'] / 100)"
"""Ends at once; the lower the rate, the lower the loss."""

WAIT = "until(os.path.join(out, 'go'))\n" + LOSS
"""Ends when OUT/go is there."""


@dataclass(frozen=True)
class Made:
    """An arm, and what its runs do."""

    script: str = LOSS
    peak: float = 1.0
    suffix: str = ".json"
    value: str = "loss"

    def configuration(self, variant: str, peak: float, seed: int) -> str:
        return json.dumps({"variant": variant, "peak": peak, "seed": seed})

    def command(self, file: str, folder: str) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", _BEGIN + self.script, file, folder]


def setting(multiples: tuple[float, ...] = (1.0,), seeds: int = 1) -> Setting:
    return Setting(lambda change: {}, multiples, seeds)


def wait_both(out: str) -> None:
    """Two runs that wait, trained to their end."""
    arms = {"a": Made(WAIT), "b": Made(WAIT)}
    train_all(lambda: wanted(arms, setting(), Path(out)), 2, print)


def pids(out: Path) -> list[int]:
    """The processes that were begun."""
    return [int(pid) for path in sorted(out.glob("*/*/begun")) for pid in path.read_text().split()]
