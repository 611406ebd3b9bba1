"""The command line: `groundup COMMAND …`. Each command loads only what it needs."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence

from groundup import __version__
from groundup._check import unknown

# Command → what it does, in a line; each is a module of groundup.commands.
COMMANDS = {
    "compare": "train with and without residual warmup, side by side, and report",
    "train": "train one run; goes on by itself where it was stopped",
    "sweep": "a grid of runs: variants and fields' values, each with each",
    "schedule": "what the rate, the decay and α will do, before a run",
    "data": "prepare token files from text, or inspect them",
    "report": "one self-contained page from run folders",
}
_NEEDED = ("tokenizers", "tyro", "rich", "tomli_w", "matplotlib")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 training stopped, 2 bad input,
    130 and 143 after SIGINT and SIGTERM (a checkpoint was written)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        print(f"groundup {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        return _fail(str(unknown("command", name, COMMANDS)))
    if missing := [package for package in _NEEDED if not importlib.util.find_spec(package)]:
        return _fail(f"{', '.join(missing)} not found: pip install 'groundup[train]'")
    return _run(name, rest)


def _run(name: str, arguments: list[str]) -> int:
    from groundup.train.signals import Interrupted
    from groundup.train.trainer import TrainingStopped

    command = importlib.import_module(f"groundup.commands.{name}")
    try:
        return command.main(arguments)
    except Interrupted as stopped:
        return _fail(f"{stopped}; the same command goes on from there", stopped.code)
    except KeyboardInterrupt:  # before or after the loop, where there is nothing to save
        return _fail("stopped", 130)
    except TrainingStopped as stopped:
        return _fail(str(stopped), 1)
    except (ValueError, OSError) as error:
        return _fail(str(error))


def _fail(message: str, code: int = 2) -> int:
    print(f"groundup: {message}", file=sys.stderr)
    return code


def _usage() -> str:
    lines = [f"groundup {__version__}: warmup for Transformer training", "", "commands:"]
    lines += [f"  {name:<10} {help}" for name, help in COMMANDS.items()]
    return "\n".join([*lines, "", "`groundup COMMAND --help` tells more."])
