"""Encoding shards over processes.

The processes are plain subprocesses, not a `multiprocessing` pool: they do not import the caller's
main module (no `if __name__ == "__main__"` needed, no torch loaded in each), work in notebooks,
and inherit the lock's descriptor, so that the lock is held until the last of them has ended even
if the parent is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import groundup.data
from groundup.data.corpus.cutting import Shard
from groundup.data.errors import DataError
from groundup.data.parts import Part, encode_part
from groundup.data.tokenizer import load

__all__ = ["Job", "encode_parts"]


@dataclass(frozen=True)
class Job:
    """A shard to encode into part `index`; see `encode_part`."""

    index: int
    shard: Shard
    threshold: int


def encode_parts(
    jobs: list[Job], folder: Path, tokenizer: Path, workers: int, lock: int
) -> Iterator[Part]:
    """Encode the jobs with `workers` processes; yield each part when it is on disk.

    Errors: the first that a job meets, after which no new job starts.
    """
    if min(workers, len(jobs)) <= 1 or not sys.executable:
        loaded = load(tokenizer)
        for job in jobs:
            yield encode_part(folder, job.index, job.shard, job.threshold, loaded)
        return
    crew = _Crew(jobs, folder, tokenizer, min(workers, len(jobs)), lock)
    try:
        yield from crew.results()
    finally:
        crew.stop()


class _Crew:
    def __init__(
        self, jobs: list[Job], folder: Path, tokenizer: Path, workers: int, lock: int
    ) -> None:
        self._setup = {"tokenizer": str(tokenizer.absolute()), "folder": str(folder.absolute())}
        self._lock = lock
        self._jobs = deque(jobs)
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
        self._jobs.clear()
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
            pass_fds=(self._lock,),
        )

    def _drive(self, child: subprocess.Popen[str]) -> None:
        """Feed one child until there are no more jobs. Runs in a thread of its own."""
        job: Job | None = None
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            _send(child, self._setup)
            while True:
                try:
                    job = self._jobs.popleft()
                except IndexError:
                    break
                _send(
                    child,
                    {
                        "index": job.index,
                        "shard": job.shard.to_json(),
                        "threshold": job.threshold,
                    },
                )
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
