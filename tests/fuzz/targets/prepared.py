"""Prepared data: a finished folder, and one whose preparing was stopped, prepared again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from groundup.data import DataConfig, prepare
from tests.fuzz.damage import damage
from tests.fuzz.structure import damage_json
from tests.fuzz.trial import Target, Trial, Wrong

RESULTS = ("train.gtok", "validation.gtok", "tokenizer.json")


class _Stopped(Exception):
    pass


@dataclass(frozen=True)
class World:
    config: DataConfig
    states: dict[str, Path]
    whole: dict[str, bytes]
    report: dict


def _make(folder: Path) -> World:
    source = folder / "source"
    source.mkdir()
    draw = Random(0)
    for number in range(12):
        words = " ".join(draw.choices(("if", "else", "for", "x", "y", "=", "é"), k=300))
        (source / f"{number}.txt").write_text(words)
    lines = (json.dumps({"text": f"document {n} " * 5}) + "\n" for n in range(40))
    (source / "a.jsonl").write_text("".join(lines))
    for path in source.iterdir():
        os.utime(path, (1e9, 1e9))  # of fresh files nothing is remembered
    states = {name: folder / name for name in ("finished", "stopped")}
    config = DataConfig(str(source), validation_fraction=0.3, vocab_size=300)
    found = prepare(replace(config, folder=str(states["finished"])), workers=1)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "join":
            raise _Stopped

    with contextlib.suppress(_Stopped):
        prepare(replace(config, folder=str(states["stopped"])), workers=1, progress=stop)
    assert list(states["stopped"].glob("*/parts-*/*.json"))
    return World(config, states, {name: (found.folder / name).read_bytes() for name in RESULTS},
                 found.report)  # fmt: skip


def _draw(world: World, draw: Random, folder: Path) -> Trial:
    state = draw.choice(list(world.states))
    there = folder / "data"
    # What this process holds itself it does not leave behind.
    shutil.copytree(world.states[state], there, ignore=shutil.ignore_patterns(".claims"))
    files = sorted(path for path in there.rglob("*") if path.is_file() and path.stat().st_size)
    path = draw.choice(files)
    content = path.read_bytes()
    if path.suffix == ".json" and draw.random() < 0.6:
        content = damage_json(content.decode(), draw).encode("utf-8", "surrogatepass")
    else:
        content = damage(content, draw, [other.read_bytes() for other in files])
    path.write_bytes(content)
    about = f"{state}: {path.name}"
    return Trial(about, lambda: _prepare(world, there), (str(there),))


def _prepare(world: World, there: Path) -> str:
    found = prepare(replace(world.config, folder=str(there)), workers=1)
    for name, content in world.whole.items():
        if (found.folder / name).read_bytes() != content:
            raise Wrong(f"another {name} than from a whole folder")
    if found.report != world.report:
        raise Wrong("another report than of a whole folder")
    return "whole"


TARGET = Target("prepared data", _make, _draw, few=30)
