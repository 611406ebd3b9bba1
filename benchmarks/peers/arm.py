"""The process of one arm: ``python -m peers.arm TASK``, told over its standard input when to go on.

It says one JSON object a line on what was its standard output; what the program prints goes to its
standard error, which is a file.
"""

from __future__ import annotations

import time

_BEGAN = time.perf_counter(), time.process_time()

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from typing import Any, TextIO  # noqa: E402

from peers import NotHere, Task, flops_per_token, module_of  # noqa: E402


class Turns:
    """Called after each update; lets as many pass as the parent has asked for, and waits."""

    def __init__(self, task: Task, told: TextIO) -> None:
        self._task, self._told = task, told
        self._left, self._settling = 1, 0
        self._since = _BEGAN
        self._profiler: Any = None
        self._first = True

    def __call__(self, loss: Any) -> None:
        self._left -= 1
        if self._left == self._settling_ends:
            self._start()
        if self._left:
            return
        self._synchronize()
        wall, cpu = time.perf_counter(), time.process_time()
        said: dict[str, Any] = {"wall": wall - self._since[0], "cpu": cpu - self._since[1]}
        if self._first:
            said |= {"loss": float(loss), "flops_per_token": flops_per_token(self._task)}
            self._first = False
        if self._profiler is not None:
            from peers.profile import parts

            self._profiler.stop()
            said["parts"] = parts(self._profiler, self._task)
            self._profiler = None
        self.say(said | {"memory": self._memory()})
        self._wait()

    _settling_ends = -1

    def say(self, what: dict[str, Any]) -> None:
        print(json.dumps(what), file=self._told, flush=True)

    def _wait(self) -> None:
        if self._on_gpu:
            import torch

            torch.cuda.empty_cache()  # for the others: only one of them works at a time
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # nothing of a run's end is wanted
        told = json.loads(line)
        if told.get("profile"):
            from torch.profiler import ProfilerActivity, profile

            kinds = [ProfilerActivity.CPU]
            self._profiler = profile(
                activities=[*kinds, ProfilerActivity.CUDA] if self._on_gpu else kinds,
                record_shapes=True,
            )
        self._left = told["updates"] + told["settle"]
        self._settling_ends = told["updates"] if told["settle"] else -1
        if not told["settle"]:
            self._start()

    def _start(self) -> None:
        self._synchronize()
        if self._profiler is not None:
            self._profiler.start()
        self._since = time.perf_counter(), time.process_time()

    @property
    def _on_gpu(self) -> bool:
        return self._task.device == "cuda"

    def _synchronize(self) -> None:
        if self._on_gpu:
            import torch

            torch.cuda.synchronize()

    def _memory(self) -> int:
        """Bytes at the peak: allocated on the GPU, or resident in this process, libraries and all.

        (Not ru_maxrss, which a process inherits from the one that started it.)
        """
        if self._on_gpu:
            import torch

            return torch.cuda.max_memory_allocated()
        with open("/proc/self/status", encoding="ascii") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))


def main() -> None:
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    task = Task.load(sys.argv[1])
    turns = Turns(task, told)
    if task.path is not None:
        sys.path.insert(0, task.path)
    try:
        module_of(task.arm).train(task, turns)
    except (NotHere, ImportError) as error:
        turns.say({"not_here": f"{error}"})
    else:
        turns.say({"not_here": "its program ended by itself"})


if __name__ == "__main__":
    main()
