"""Scratch folders with a corpus and a recipe, runs of it, and the same runs undisturbed."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from faults.processes import Ended, Started

STEPS, CHECKPOINT_EVERY, EVAL_EVERY = 120, 7, 10
EXACT = ("metrics.jsonl", "events.jsonl", "measurements.jsonl", "sketches.jsonl")
"""The files of a run that are the same, byte for byte, whatever happened to it."""

_WORDS = ["if", "else", "for", "in", "while", "def", "return", "self", "x", "=", "+", "(", ")", ":"]
_RECIPE: dict[str, dict[str, Any]] = {
    "model": {"layers": 3, "width": 32, "heads": 2},
    "data": {
        "source": "texts",
        "folder": "data",
        "validation_fraction": 0.2,
        "vocab_size": 280,
        "length": 32,
    },
    "residual": {"schedule": "linear", "T": 2},
    "rate": {"peak": 3e-3, "warmup": 2, "decay": 4},
    "train": {
        "steps": STEPS,
        "batch": 8,
        "precision": "float32",
        "compile": False,
        "device": "cpu",
        "eval_every": EVAL_EVERY,
        "eval_tokens": 4096,
        "checkpoint_every": CHECKPOINT_EVERY,
    },
    "measure": {"every": 25},
}
# Of a run on several processes.
_PARALLEL: dict[str, Any] = {"mode": "ddp", "timeout": 60}


class Folder:
    """A folder with texts/, data/ (prepared), recipe.toml; the run will be in run/.

    Everything is started in it, so that messages name paths relative to it.
    """

    def __init__(self, path: Path, processes: int, fields: Mapping[str, Any]) -> None:
        self.path, self.processes, self.fields = path, processes, fields
        self.run = path / "run"

    def start(self, *flags: str, inject: str = "", launcher: Sequence[str] = (),
              command: Sequence[str] = ("train", "recipe.toml", "--out", "run"),
              environment: Mapping[str, str] | None = None) -> Started:  # fmt: skip
        """Start groundup's `command` with `flags`, under torchrun (with the flags `launcher`) if
        there are to be several processes; with what `inject` names (faults/inject.py) done to it.
        """
        program = ["-m", "groundup"]
        if inject:
            program = [str(Path(__file__).with_name("inject.py")), inject]
        if self.processes > 1:
            torchrun = ["-m", "torch.distributed.run", "--standalone"]
            program = [*torchrun, f"--nproc-per-node={self.processes}", *launcher, *program]
        output = self.path / f"said-{len(list(self.path.glob('said-*'))) + 1}.txt"
        return Started(
            [sys.executable, *program, *command, *flags], self.path, output, environment or {}
        )

    def finish(self, *flags: str, **how: Any) -> Ended:
        """Start, and wait until it has ended."""
        return self.start(*flags, **how).wait()

    def lines(self) -> int:
        """How many updates are recorded."""
        path = self.run / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


class Place:
    """What the faults of one call of the program share: a scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self._made = 0
        self._texts = scratch / "texts"
        self._texts.mkdir(parents=True)
        draw = random.Random(0)
        for number in range(40):
            lines = (" ".join(draw.choices(_WORDS, k=8)) for _ in range(60))
            (self._texts / f"{number:02d}.txt").write_text("\n".join(lines), encoding="utf-8")

    def folder(self, processes: int = 1, *, prepared: bool = True, **fields: Any) -> Folder:
        """A new folder; `fields` of the recipe are named with __ for a dot. `prepared`: with the
        data of the same recipe."""
        self._made += 1
        folder = self._written(self.scratch / f"{self._made:03d}", processes, fields)
        if prepared:
            source = self.undisturbed(folder) / "data"
            shutil.copytree(source, folder.path / "data", ignore=shutil.ignore_patterns(".*"))
        return folder

    def undisturbed(self, folder: Folder) -> Path:
        """The same recipe's folder in which nothing happened; it is trained the first time."""
        text = (folder.path / "recipe.toml").read_bytes()
        name = hashlib.sha256(text).hexdigest()[:12]
        path = self.scratch / f"undisturbed-{folder.processes}-{name}"
        if not path.exists():
            ended = self._written(path, folder.processes, folder.fields).finish()
            if ended.code:
                raise RuntimeError(f"the undisturbed run failed ({ended.code}):\n{ended.said}")
        return path

    def without_paths(self, text: str) -> str:
        """What was said, without where this machine keeps things."""
        return text.replace(f"{self.scratch}/", "").replace(str(Path.home()), "~")

    def clear(self) -> None:
        """Remove the runs that were made."""
        for path in self.scratch.glob("[0-9]*"):
            shutil.rmtree(path, ignore_errors=True)

    def _written(self, path: Path, processes: int, fields: Mapping[str, Any]) -> Folder:
        recipe = {name: dict(table) for name, table in _RECIPE.items()}
        if processes > 1:
            recipe["parallel"] = dict(_PARALLEL)
        for name, value in fields.items():
            table, field = name.split("__")
            recipe.setdefault(table, {})[field] = value
        shutil.copytree(self._texts, path / recipe["data"]["source"])
        (path / "recipe.toml").write_text(tomli_w.dumps(recipe), encoding="utf-8")
        return Folder(path, processes, fields)

    def differences(self, folder: Folder) -> list[str]:
        """What a finished run has that is not as in the undisturbed one."""
        calm = self.undisturbed(folder) / "run"
        found = [name for name in EXACT if _content(folder.run / name) != _content(calm / name)]
        timing = (folder.run / "timing.jsonl").read_bytes().splitlines()
        if [json.loads(line)["step"] for line in timing] != list(range(len(timing))):
            found.append("the steps of timing.jsonl")
        if not (folder.run / "summary.json").exists():
            found.append("summary.json is not there")
        return found


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
