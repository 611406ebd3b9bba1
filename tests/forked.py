"""Processes that start at once: forked from one that has imported what they would import first.

A start of `python -m groundup` computes for seconds before it does anything, and the tests need
dozens. What is forked is a process of its own all the same: it is killed and signalled, and it ends
with a code, as any other. The one it comes from is clean: it has imported, and nothing more.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "pytest",
        "hypothesis",
        "torch._dynamo",
        "torch.distributed.fsdp",
        "torch.distributed.tensor.parallel",
        "torch.optim.swa_utils",
        "groundup.cli",
        "groundup.commands.train",
        "groundup.commands.eval",
    ]
)


class Forked:
    """`work(*arguments)` in a process of its own, with one thread to compute on.

    Args:
        work: a function of a module; what it returns is the exit code.
        log: the file that takes what it prints.
        environment: variables that it has besides those of this process.
    """

    def __init__(
        self,
        work: Callable[..., int | None],
        *arguments: Any,
        log: Path,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.log = log
        self._process = _SERVER.Process(
            target=_begin, args=(work, arguments, str(log), environment or {})
        )
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that killed it; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        pid = self._process.pid
        assert pid is not None
        os.kill(pid, number)

    def wait(self, timeout: float | None = None) -> int | None:
        """As `poll`, when it has ended, or after `timeout` seconds."""
        self._process.join(timeout)
        return self.poll()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def groundup(*arguments: Any, log: Path, **environment: str) -> Forked:
    """The command of that name."""
    return Forked(_groundup, [str(a) for a in arguments], log=log, environment=environment)


def side_by_side(arguments: Sequence[Any], logs: Sequence[Path]) -> list[Forked]:
    """The command as many times as there are `logs`, with what torchrun tells its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(len(logs))}
    return [
        groundup(*arguments, log=log, **told, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank, log in enumerate(logs)
    ]


def finished(*arguments: Any, log: Path) -> str:
    """What the command of that name prints; it must succeed."""
    code = groundup(*arguments, log=log).wait()
    said = log.read_text()
    assert code == 0, said
    return said


def _groundup(arguments: list[str]) -> int:
    from groundup.cli import main

    sys.argv[1:] = arguments
    return main()


def _begin(
    work: Callable[..., int | None],
    arguments: tuple[Any, ...],
    log: str,
    environment: dict[str, str],
) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.update(environment)
    # The path is that of the process that asks, in which tests.torchvision_shim may be at work.
    sys.path[:] = [place for place in sys.path if Path(place) != Path(sys.prefix) / "vision"]
    torch.set_num_threads(1)
    sys.exit(work(*arguments))
