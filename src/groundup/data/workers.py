"""Encoding shards over processes.

The processes are plain subprocesses, not a `multiprocessing` pool: they do not import the caller's
main module (no `if __name__ == "__main__"` needed, no torch loaded in each), work in notebooks,
and inherit the descriptor of the run's claims, so that what they work on stays claimed until the
last of them has ended, even if the parent is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import groundup.data
from groundup.data.errors import DataError
from groundup.data.parts import Job, Part, encode_part
from groundup.data.tokenizer import Tokenizer

__all__ = ["encode_parts"]


def encode_parts(
    jobs: Iterator[Job], folder: Path, tokenizer: Tokenizer, workers: int, descriptor: int
) -> Iterator[Part]:
    """Encode the jobs with `workers` processes; yield each part when it is on disk.

    A job is taken from `jobs` when a process is there for it; the processes inherit `descriptor`.
    The folder beside `folder` holds the tokenizer's file. Errors: the first that a job meets, after
    which no new job starts.
    """
    if workers <= 1 or not sys.executable:
        for job in jobs:
            yield encode_part(folder, job, tokenizer)
        return
    crew = _Crew(jobs, folder, workers, descriptor)
    try:
        yield from crew.results()
    finally:
        crew.stop()


class _Crew:
    def __init__(self, jobs: Iterator[Job], folder: Path, workers: int, descriptor: int) -> None:
        tokenizer = folder.with_name("tokenizer.json")
        self._setup = {"tokenizer": str(tokenizer.absolute()), "folder": str(folder.absolute())}
        self._descriptor = descriptor
        self._jobs = jobs
        self._taking = threading.Lock()
        self._stopped = False
        self._answers: queue.SimpleQueue[Part | BaseException | None] = queue.SimpleQueue()
        self._children: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []
        try:
            for _ in range(workers):
                self._children.append(self._start())
        except BaseException:
            self.stop()
            raise
        for child in self._children:
            thread = threading.Thread(target=self._drive, args=(child,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def results(self) -> Iterator[Part]:
        running = len(self._threads)
        while running:
            answer = self._answers.get()
            if answer is None:
                running -= 1
            elif isinstance(answer, BaseException):
                raise answer
            else:
                yield answer

    def stop(self) -> None:
        self._stopped = True
        for child in self._children:
            if child.poll() is None:
                child.kill()
        for thread in self._threads:
            thread.join()
        for child in self._children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _next(self) -> Job | None:
        with self._taking:
            return None if self._stopped else next(self._jobs, None)

    def _start(self) -> subprocess.Popen[str]:
        package = Path(groundup.data.__file__).resolve().parents[2]
        paths = [str(package), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "TOKENIZERS_PARALLELISM": "false",  # one thread per process
        }
        # -P: never import from the current folder, which may be full of somebody's data.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "groundup.data.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=environment,
            pass_fds=(self._descriptor,),
        )

    def _drive(self, child: subprocess.Popen[str]) -> None:
        """Feed one child until there are no more jobs. Runs in a thread of its own."""
        job: Job | None = None
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            _send(child, self._setup)
            while (job := self._next()) is not None:
                _send(child, job.to_json())
                line = child.stdout.readline()
                if not line:
                    raise BrokenPipeError
                answer = json.loads(line)
                if "error" in answer:
                    raise _error(answer)
                self._answers.put(Part(**answer["part"]))
            child.stdin.close()
            child.wait()
        except BrokenPipeError:
            if not self._stopped:
                self._answers.put(_death(child, job))
        except BaseException as error:  # handed to the caller's thread
            self._answers.put(error)
        finally:
            self._answers.put(None)


def _send(child: subprocess.Popen[str], message: dict[str, Any]) -> None:
    assert child.stdin is not None
    child.stdin.write(json.dumps(message) + "\n")
    child.stdin.flush()


def _error(answer: dict[str, Any]) -> Exception:
    kinds: dict[str, type[Exception]] = {"data": DataError, "os": OSError}
    return kinds.get(answer["kind"], RuntimeError)(answer["error"])


def _death(child: subprocess.Popen[str], job: Job | None) -> RuntimeError:
    where = f" while encoding {job.shard.files[0].path}" if job is not None else ""
    return RuntimeError(
        f"an encoding process ended with status {child.wait()}{where} (-9: killed, often for want "
        "of memory); finished parts are kept: prepare again, with fewer workers if need be"
    )
