"""Timing that resolves fractions of a percent on a machine that is not quiet.

The things to compare ("arms") take turns, one call each, in a random order and then in that order
reversed: that is a round. What changes slowly (clock rates, other programs) meets all of them
alike, and what changes evenly cancels. Each round gives one comparison; the mean of the middle half
of them is reported, with a 95% bootstrap interval over the rounds.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from groundup.train.setup import hardware

Arms = Mapping[str, Callable[[], object]]
Round = dict[str, tuple[float, ...]]
"""Arm → its seconds per call in this round, one number for each of the clock's `names`."""


class HostClock:
    """Processor time of this process, which time taken by others does not enter, and wall time."""

    names = ("cpu", "wall")

    def begin(self) -> None:
        """Called before each round."""

    def stamp(self) -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def between(self, a: Any, b: Any) -> tuple[float, ...]:
        return tuple(after - before for before, after in zip(a, b, strict=True))


class CudaClock:
    """Time on the GPU, by events in the stream: nobody waits inside a round.

    Args:
        lead: seconds that the GPU is kept busy before a round, so that the host is ahead of it and
            what is timed is the GPU alone. For arms that are so short that launching them counts.
    """

    names = ("gpu",)

    def __init__(self, lead: float = 0.0) -> None:
        self.lead = lead

    def begin(self) -> None:
        if self.lead:
            torch.cuda._sleep(int(self.lead * 2e9))  # in cycles of a clock near 2 GHz

    def stamp(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, a: torch.cuda.Event, b: torch.cuda.Event) -> tuple[float, ...]:
        b.synchronize()
        return (a.elapsed_time(b) / 1e3,)


def clock_of(device: torch.device, lead: float = 0.0) -> HostClock | CudaClock:
    return CudaClock(lead) if device.type == "cuda" else HostClock()


def rounds(arms: Arms, clock: HostClock | CudaClock, seed: int = 0) -> Iterator[Round]:
    """Rounds without end. Each is read after the next was started, so that a GPU never idles."""
    draw = random.Random(seed)
    started: tuple[list[str], list[Any]] | None = None
    while True:
        order = draw.sample(list(arms), len(arms))
        order += order[::-1]
        clock.begin()
        stamps = [clock.stamp()]
        for name in order:
            arms[name]()
            stamps.append(clock.stamp())
        if started is not None:
            yield _read(clock, *started)
        started = order, stamps


def _read(clock: HostClock | CudaClock, order: list[str], stamps: list[Any]) -> Round:
    found: dict[str, np.ndarray] = {}
    for name, before, after in zip(order, stamps, stamps[1:], strict=False):
        found[name] = found.get(name, 0.0) + np.array(clock.between(before, after)) / 2
    return {name: tuple(times.tolist()) for name, times in found.items()}


def collect(
    arms: Arms,
    clock: HostClock | CudaClock,
    *,
    seconds: float,
    enough: Callable[[Sequence[Round]], bool],
    least: int = 3,
    seed: int = 0,
) -> list[Round]:
    """Rounds until there are `enough` (asked now and then), or `seconds` are over."""
    found: list[Round] = []
    began, ask = time.perf_counter(), max(least, 8)
    for one in rounds(arms, clock, seed):
        found.append(one)
        if len(found) >= least and time.perf_counter() - began > seconds:
            break
        if len(found) >= ask:
            if enough(found):
                break
            gc.collect()
            ask = int(len(found) * 1.2) + 1
    if isinstance(clock, CudaClock):
        torch.cuda.synchronize()
    return found


# ---------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Estimate:
    """The mean of the middle half of some numbers and its 95% interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}

    def percent(self) -> str:
        """The estimate of a ratio as a difference from 1."""
        value, low, high = (100 * (x - 1) for x in (self.value, self.low, self.high))
        return f"{value:+.2f}% ({low:+.2f} to {high:+.2f})"


def estimate(numbers: Sequence[float], resamples: int = 1000) -> Estimate:
    values = np.asarray(numbers, dtype=np.float64)
    draw = np.random.default_rng(0)
    picks = draw.integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(_middle_half(values[picks]), [0.025, 0.975])
    return Estimate(float(_middle_half(values)), float(low), float(high))


def _middle_half(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)


def ratio(found: Sequence[Round], arm: str, base: str, clock: int = 0) -> Estimate:
    """Time of `arm` over time of `base`, round by round."""
    return estimate([one[arm][clock] / one[base][clock] for one in found])


def difference(found: Sequence[Round], arm: str, base: str, clock: int = 0) -> Estimate:
    """Seconds of `arm` less seconds of `base`, round by round."""
    return estimate([one[arm][clock] - one[base][clock] for one in found])


def seconds_of(found: Sequence[Round], arm: str, clock: int = 0) -> float:
    return float(np.median([one[arm][clock] for one in found]))


# ---------------------------------------------------------------------- the process


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Python's garbage collection, which would fall on one of the arms."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def pin(threads: int) -> list[int]:
    """Keep this process on as many cores as it has threads; before the first tensor."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("--pin is not valid on this system: it cannot bind processes to cores")
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
    return cores


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep what is freed, rather than hand large blocks back every time.

    Else every step takes its activations from the kernel anew, page by page: thousands of faults,
    some 8% of the time of a small step and nearly all of its scatter. Returns whether it worked.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        mmap_threshold, trim_threshold = -3, -1
        done = libc.mallopt(mmap_threshold, 1 << 30), libc.mallopt(trim_threshold, (1 << 31) - 1)
    except (OSError, AttributeError):
        return False
    return done == (1, 1)


def circumstances(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on besides the setting."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    with contextlib.suppress(ImportError):
        from importlib.metadata import version

        versions["transformers"] = version("transformers")
    if device.type == "cuda":
        versions["cuda"] = str(torch.version.cuda)
    return {
        "hardware": hardware(device),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load_average_at_end": load,
    }
