"""How long everything takes that comes before training: imports, help, the first update.

    python benchmarks/startup.py                    # all of it, some five minutes
    python benchmarks/startup.py --only imports help

Every time is that of a fresh process, from its start: wall time, and the processor time of it and
its children. The kinds take turns; given are the median and the range. `imports` is `import
groundup`, the same over what torch itself takes, and `groundup.train.trainer`, with all that a run
needs. `help` is `groundup --help` and that of each command. `first update` is from the command to
the end of the first update of the quickstart:

    cold      no tokenizer and no tokens are there: both are made of the interpreter's library
    warm      both are there
    compiled  warm, with train.compile and no kernels there; again: with those of the run before

and where a warm one's time goes, from a run inside of which the clock is read at certain calls.
Bars: `import groundup` 0.2 s, `groundup --help` 0.5 s, the first update 20 s.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timing
import torch

from groundup.cli import COMMANDS

PYTHON = sys.executable
GROUNDUP = (PYTHON, "-m", "groundup")
BARS = {"import groundup": 0.2, "groundup --help": 0.5, "cold": 20.0, "warm": 20.0}

# Ends the process after the first update, and says when which part of the way to it ended.
_FIRST = """
import atexit, functools, importlib, json, os, sys, time
began, said = float(sys.argv.pop(1)), []
def mark(name):
    said.append((name, time.time() - began))
def marked(module, name, label):
    place = importlib.import_module(module)
    for part in name.split(".")[:-1]:
        place = getattr(place, part)
    name = name.rpartition(".")[2]
    found = getattr(place, name)
    @functools.wraps(found)
    def wrapper(*args, **kwargs):
        result = found(*args, **kwargs)
        mark(label)
        return result
    setattr(place, name, wrapper)
mark("the interpreter")
import torch
mark("import torch")
import groundup.cli, groundup.commands.train, groundup.train.trainer, groundup.commands._parallel
mark("import groundup's trainer")
marked("groundup.commands.train", "parse", "the recipe and flags")
marked("groundup.commands._parallel", "prepared", "tokenizer and tokens")
marked("groundup.train.run", "build", "data, model, optimizer")
marked("groundup.train.run", "resume", "looking for a checkpoint")
made = importlib.import_module("groundup.train.update").make
def first(*args):
    mark("the run's folder and files")
    result = made(*args)
    mark("the first update")
    print("\\n" + json.dumps(said), flush=True)
    os._exit(0)
importlib.import_module("groundup.train.update").make = first
sys.exit(groundup.cli.main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Kind:
    """One thing that is timed: a command, and what is done before each time."""

    name: str
    command: Sequence[str]
    before: Callable[[], object] = lambda: None
    says: bool = False


def taken(kind: Kind, environment: dict[str, str], folder: Path) -> dict[str, Any]:
    """Seconds of one process: wall, processor, and what it says of its parts."""
    kind.before()
    command = [str(time.time()) if word == "BEGAN" else word for word in kind.command]
    used, began = _of_children(), time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, check=False
    )
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{kind.name} ended with {done.returncode}: {done.stderr}")
    found: dict[str, Any] = {"wall": wall, "cpu": _of_children() - used}
    if kind.says:
        marks = json.loads(done.stdout.splitlines()[-1])
        ends = [0.0, *(end for _, end in marks)]
        found["parts"] = {
            name: end - start for (name, end), start in zip(marks, ends, strict=False)
        }
    return found


def _of_children() -> float:
    """Processor seconds of all processes started here that have ended, and of theirs."""
    used = os.times()
    return used.children_user + used.children_system


def imports() -> list[Kind]:
    modules = ("pass", "import torch", "import groundup", "import torch, groundup",
               "import groundup.train.trainer")  # fmt: skip
    return [Kind(code, (PYTHON, "-c", code)) for code in modules]


def helps() -> list[Kind]:
    kinds = [Kind("groundup --help", (*GROUNDUP, "--help"))]
    return kinds + [
        Kind(f"groundup {name} --help", (*GROUNDUP, name, "--help")) for name in COMMANDS
    ]


def first_updates(folder: Path, flags: Sequence[str]) -> list[Kind]:
    """In this order: each leaves to the next what it needs."""
    warm, cold = folder / "warm", folder / "cold"

    def kind(name: str, data: Path, *more: str, before: Callable[[], object]) -> Kind:
        out = ("--out", str(folder / "run"), "--data.folder", str(data))
        command = (PYTHON, "-c", _FIRST, "BEGAN", "train", "quickstart", *out, *flags, *more)
        return Kind(name, command, before, says=True)

    def gone(*names: str) -> Callable[[], object]:
        return lambda: [_remove(folder / name) for name in names]

    compiled = ("--train.compile", "True")
    return [
        kind("cold", cold, before=gone("run", "cold")),
        kind("warm", warm, before=gone("run")),
        kind("compiled", warm, *compiled, before=gone("run", "kernels")),
        kind("compiled again", warm, *compiled, before=gone("run")),
    ]


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def measure(kinds: Sequence[Kind], args: Any, folder: Path) -> list[dict[str, Any]]:
    environment = {key: v for key, v in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "kernels")
    environment["OMP_NUM_THREADS"] = str(args.threads)
    found: dict[str, list[dict[str, Any]]] = {kind.name: [] for kind in kinds}
    draw = random.Random(0)
    for number in range(args.quick, args.times + 1):
        order = kinds if any(kind.says for kind in kinds) else draw.sample(list(kinds), len(kinds))
        for kind in order:
            one = taken(kind, environment, folder)
            if number:  # the first time files are read from disk, and compiled to bytecode
                found[kind.name].append(one)
    return [_summed(name, times) for name, times in found.items()]


def _summed(name: str, times: Sequence[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {"name": name, "bar": BARS.get(name), "times": len(times)}
    for clock in ("wall", "cpu"):
        values = [one[clock] for one in times]
        result[clock] = {
            "median": statistics.median(values),
            "least": min(values),
            "most": max(values),
        }
    if "parts" in times[0]:
        result["parts"] = {
            part: statistics.median(one["parts"][part] for one in times)
            for part in times[0]["parts"]
        }
    return result


def show(group: str, results: Sequence[dict[str, Any]]) -> None:
    print(f"\n{group:<36}wall, s               processor, s")
    for one in results:
        cells = (
            f"{c['median']:6.2f} ({c['least']:.2f} to {c['most']:.2f})"
            for c in (one["wall"], one["cpu"])
        )
        bar = f"bar {one['bar']} s" if one["bar"] else ""
        print(f"  {one['name']:<32}" + "".join(f"{cell:<24}" for cell in cells) + bar, flush=True)
    for one in results:
        if "parts" in one:
            said = ", ".join(f"{part} {seconds:.2f}" for part, seconds in one["parts"].items())
            print(f"  {one['name']}: {said}", flush=True)


def _how_many(args: argparse.Namespace) -> int:
    """Of the kinds of first updates."""
    return 1 if args.quick else 2 if args.without_compiling else 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    groups = ("imports", "help", "first update")
    add("--only", nargs="+", choices=groups, default=list(groups))
    add("--times", type=int, default=3, help="of each, besides a first one (default 3)")
    add("--threads", type=int, default=1, help="of torch, on a CPU (default 1)")
    add("--device", default="auto", choices=("auto", "cpu", "cuda"))
    add("--steps", type=int, default=750, help="of the quickstart, which ends after the first")
    add("--without-compiling", action="store_true", help="leave out what compiles")
    add("--quick", action="store_true", help="one first update, on little text: does it run?")
    add("--out", type=Path, help="a JSON file for the numbers")
    args = parser.parse_args()
    device = torch.device("cuda" if args.device != "cpu" and torch.cuda.is_available() else "cpu")
    print(f"{timing.hardware(device)}, torch {torch.__version__}")
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ["--device", args.device, "--steps", str(args.steps)]
        if args.quick:
            args.only, args.times = ["first update"], 1
            flags += ["--data.source", str(Path(__file__).parents[1] / "src" / "groundup")]
        kinds = {
            "imports": imports(),
            "help": helps(),
            "first update": first_updates(folder, flags)[: _how_many(args)],
        }
        for group in args.only:
            results[group] = measure(kinds[group], args, folder)
            show(group, results[group])
    if args.out:
        setting = {key: str(value) for key, value in vars(args).items() if key != "out"}
        found = {"setting": setting, **timing.circumstances(device), "results": results}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
