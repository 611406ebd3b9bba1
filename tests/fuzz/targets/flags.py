"""Flags: junk after `groundup schedule`, and junk for the other commands, which refuse it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz import structure
from tests.fuzz.targets.command import run
from tests.fuzz.trial import Target, Trial

_JUNK = ("--", "-", "---", "--train", "--train.", "--.steps", "=", "--=1", "--steps", "\udcff", "",
         "--train.steps=", "--no-train.compile", "@x", "--help=", "*", "--model",
         "--name")  # fmt: skip
_COMMANDS = (
    ["train"], ["train", "{}"], ["compare", "{}"], ["sweep", "{}"], ["schedule", "{}"],
    ["schedule", "plot", "{}"], ["schedule", "table", "{}"], ["data", "{}"], ["data", "inspect"],
    ["data", "inspect", "{}"], ["report", "{}"], ["report", "--figure", "{}"], ["{}"],
    ["report", "--csv", "x", "{}"], ["schedule", "plot", "quickstart", "--out", "{}"],
    ["schedule", "table", "quickstart", "--every", "{}"],
    ["data", "inspect", ".", "--sample", "{}"],
)  # fmt: skip


def _make(folder: Path) -> None:
    return None


def _draw(world: None, draw: Random, folder: Path) -> Trial:
    if draw.random() < 0.7:
        words = ["schedule", "table", "quickstart"]
        for _ in range(draw.choice((1, 1, 2))):
            words += _flag(draw)
    else:
        junk = _word(draw)
        words = [junk if word == "{}" else word for word in draw.choice(_COMMANDS)]
        if "plot" in words and "--out" in words:
            words[-1] = str(folder / Path(junk.replace("/", "_").replace("\0", "")).name)
    return Trial(" ".join(words)[:200], lambda: _run(words), ("",))


def _flag(draw: Random) -> list[str]:
    if draw.random() < 0.2:
        return [draw.choice(_JUNK), _word(draw)]
    name = "--" + draw.choice(structure.FIELDS).replace("_", draw.choice("_-"))
    return draw.choice(([name, _word(draw)], [f"{name}={_word(draw)}"], [name]))


def _word(draw: Random) -> str:
    found = structure.value(draw, structure._TOML)
    return draw.choice((found, found.strip('"'), draw.choice(_JUNK)))


def _run(words: list[str]) -> str:
    code, _, said = run(words)
    if code:
        raise ValueError(said.splitlines()[0])
    return "other"


TARGET = Target("flags", _make, _draw, few=15)
