"""The command line: `groundup COMMAND …`. Each command loads only what it needs."""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import io
import os
import select
import sys
from collections.abc import Sequence

from groundup import __version__
from groundup._check import unknown
from groundup.train.heap import keep_freed_memory

# Command → what it does, in a line; each is a module of groundup.commands.
COMMANDS = {
    "compare": "train with and without residual warmup, side by side, and report",
    "train": "train one run; goes on by itself where it was stopped",
    "sweep": "a grid of runs: variants and fields' values, each with each",
    "reproduce": "a study of what has been published: its runs, table, figures and verdicts",
    "plan": "memory, FLOPs, hours and disk of a run on so many GPUs, before it",
    "schedule": "what the rate, the decay and α will do, before a run",
    "data": "prepare token files from text, or inspect them",
    "eval": "perplexity and benchmarks of a trained run, with the published numbers",
    "generate": "let a trained run go on from a prompt",
    "export": "write a trained run for Hugging Face transformers",
    "report": "one self-contained page from run folders",
}
_TRAINING = ("compare", "train", "sweep")
_LONGEST = 2000  # characters of a message
_NEEDED = ("tokenizers", "tyro", "rich", "tomli_w", "matplotlib")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 training stopped, 2 bad input,
    130 and 143 after SIGINT and SIGTERM (a checkpoint was written), 141 if nobody reads on."""
    if argv is None:
        faulthandler.enable()  # a mapped file that is cut ends the process: say at least where
        if sys.argv[1:2] and sys.argv[1] in _TRAINING:
            keep_freed_memory()
    _print_anything()
    code = 0
    try:
        try:
            code = _main(list(sys.argv[1:] if argv is None else argv))
        finally:
            print(end="", flush=True)  # the interpreter would, at its end, and tell if that fails
    except BrokenPipeError as error:
        code = 141 if _silenced() else _fail(str(error))
    except OSError as error:  # nothing more can be printed: a full disk
        _nowhere(1)
        code = code or _fail(str(error))
    if argv is None and (start := sys.modules.get("groundup.train.parallel.start")):
        start.leave(code)
    return code


def _main(arguments: list[str]) -> int:
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


def _print_anything() -> None:
    """What a terminal or a log cannot show, α under an ASCII locale, is escaped: no run ends for
    its printing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(name: str, arguments: list[str]) -> int:
    from groundup.train.errors import FailedElsewhere, ProcessLost, TrainingStopped
    from groundup.train.signals import Interrupted

    command = importlib.import_module(f"groundup.commands.{name}")
    try:
        return command.main(arguments)
    except Interrupted as stopped:
        said = f"{stopped}; the same command goes on from there" if _speaks() else ""
        return _fail(said, stopped.code)
    except KeyboardInterrupt:  # before or after the loop, where there is nothing to save
        return _fail("stopped", 130)
    except ProcessLost as gone:
        return _fail(str(gone), 1)
    except TrainingStopped as stopped:
        return _fail(str(stopped) if _speaks() else "", 1)
    except FailedElsewhere:
        return 2
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        return _fail(str(error))
    except RuntimeError as error:  # before or after the loop
        from groundup.train.world import lost, why_lost  # with torch, which not each command needs

        if not lost(error):
            raise
        return _fail(
            f"another process of the run is gone: {why_lost(error)}. The same command goes on", 1
        )


def _speaks() -> bool:
    """Whether this process tells what all of a run know."""
    start = sys.modules.get("groundup.train.parallel.start")
    return start is None or start.speaks()


def _silenced() -> bool:
    """Whether nobody reads what is printed, as after `| head`; what is left then goes nowhere."""
    broken = []
    for descriptor in (1, 2):
        poll = select.poll()
        poll.register(descriptor, 0)  # only what is told unasked: that the other end is closed
        if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
            broken.append(descriptor)
    for descriptor in broken:
        _nowhere(descriptor)
    return bool(broken)


def _nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _fail(message: str, code: int = 2) -> int:
    """In one line, and no more of it than can be read: a message may quote what was given."""
    if message:
        line = " ".join(message.splitlines())
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"
        print(f"groundup: {line}", file=sys.stderr)
    return code


def _usage() -> str:
    lines = [f"groundup {__version__}: warmup for Transformer training", "", "commands:"]
    lines += [f"  {name:<10} {help}" for name, help in COMMANDS.items()]
    return "\n".join([*lines, "", "`groundup COMMAND --help` tells more."])
