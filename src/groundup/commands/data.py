"""groundup data prepare | inspect"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from groundup._check import unknown
from groundup.commands._options import parse, recipe_named
from groundup.data import DataConfig, describe, prepare_all, show_progress
from groundup.data.mixture.preparation import prepare_all_shares
from groundup.data.preparation import Share

_USAGE = """groundup data prepare [RECIPE] [--source …]   token files from text
groundup data inspect PATH                    what a token file or a prepared folder holds"""


@dataclass(frozen=True)
class Prepare:
    """Token files from text. Stopped, it continues; what is there already is found.

    A source is
      python - the source code that ships with this interpreter
      a file or a folder - .txt .md .rst .py (one document each), .jsonl .json .ndjson (one a line),
          .parquet (one a row); text and JSONL also compressed: .gz .bz2 .xz .zst
      a pattern - data/**/*.jsonl.zst
      an address that fsspec knows - s3://… gs://… hf://… https://…, a file, a folder or a pattern
      a data set of the Hugging Face hub or of a folder - dataset:allenai/c4?config=en&split=train

    The same command on several machines that share the folder divides the work.
    """

    data: Annotated[DataConfig, tyro.conf.arg(name="")] = field(default_factory=DataConfig)
    workers: int | None = None
    """Processes; as many as there are cores unless given."""
    part: str | None = None
    """Encode only this share of the work, such as 3/8, and end. Without it, what is missing is
    encoded and all is joined."""


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
    options = parse(Prepare(config), "data prepare [RECIPE]", arguments)
    config = options.data
    if options.part is not None:
        return _prepare_share(config, Share.parse(options.part), options.workers)
    with show_progress() as progress:
        prepared = prepare_all(config, progress=progress, workers=options.workers)
    print("\n\n".join(describe(part.folder) for part in prepared.parts))
    return 0


def _prepare_share(config: DataConfig, share: Share, workers: int | None) -> int:
    with show_progress() as progress:
        done, total = prepare_all_shares(config, share, progress=progress, workers=workers)
    print(
        f"{done:,} of {total:,} parts are there; once all are, the same command without --part "
        "joins them"
    )
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
