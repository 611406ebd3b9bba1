"""groundup data prepare | inspect"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from groundup._check import unknown
from groundup.commands._options import parse, recipe_named
from groundup.data import DataConfig, describe, prepare, show_progress

_USAGE = """groundup data prepare [RECIPE] [--source …]   token files from text
groundup data inspect PATH                    what a token file or a prepared folder holds"""


@dataclass(frozen=True)
class Inspect:
    """What a token file or a prepared folder holds."""

    sample: int = 200
    """Tokens of the beginning to decode and show."""


def main(arguments: list[str]) -> int:
    action, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if action in ("-h", "--help"):
        print(_USAGE)
        return 0
    if action == "prepare":
        return _prepare(rest)
    if action == "inspect":
        return _inspect(rest)
    raise unknown("action", action, ["prepare", "inspect"])


def _prepare(arguments: list[str]) -> int:
    config = DataConfig()
    if arguments and not arguments[0].startswith("-"):
        named, arguments = recipe_named(arguments)
        config = named.recipe.data
    config = parse(config, "data prepare [RECIPE]", arguments)
    with show_progress() as progress:
        prepared = prepare(config, progress=progress)
    print(describe(prepared.folder))
    return 0


def _inspect(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print(_USAGE)
        return 0
    if not arguments or arguments[0].startswith("-"):
        raise ValueError("say what to inspect: a token file or a prepared folder")
    options = parse(Inspect(), "data inspect PATH", arguments[1:])
    print(describe(Path(arguments[0]), sample=options.sample))
    return 0
