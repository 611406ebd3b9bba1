"""Which runs a study wants, as a function of what has been trained."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from groundup._atomic import atomic_write
from groundup._json import parse
from groundup.experiment.studies.arms import Arm
from groundup.experiment.studies.study import TUNING_SEED, Setting

_DIVERGED = "diverged"  # in the summary of a program that writes one also then


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the value that is compared, lower is better, or why there is none."""

    value: float | None
    why: str = ""

    @property
    def rank(self) -> float:
        """For choosing the best: a run that diverged is the worst."""
        return math.inf if self.value is None or math.isnan(self.value) else self.value

    @property
    def said(self) -> str:
        """In a few words."""
        return self.why if self.value is None else f"{self.value:.4f}"


@dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        name, arm: the arm.
        peak: the peak rate it is trained with.
        seed: its seed, and whether the run is one that only chooses the rate.
        folder: where it is trained, OUT/ARM.peak-RATE/seed-N; its configuration, what it printed
            and why it stopped, if it did, lie beside it.
    """

    name: str
    arm: Arm = field(compare=False)
    peak: float
    seed: int
    tuning: bool
    folder: Path

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self.folder.with_suffix(self.arm.suffix)

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.folder.with_suffix(".log")

    @property
    def _stopped(self) -> Path:
        return self.folder.with_suffix(".stopped.json")

    def write(self) -> None:
        """Write its configuration."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        text = self.arm.configuration(self.folder.parent.name, self.peak, self.seed)
        atomic_write(self.file, text.encode())

    def stop(self, why: str) -> None:
        """Note that training cannot go on: that is a result, and is not tried again."""
        atomic_write(self._stopped, (json.dumps({"why": why}) + "\n").encode())

    def outcome(self) -> Outcome | None:
        """How it ended; None if it has not.

        Raises:
            ValueError: if the file that says it is damaged.
        """
        if self._stopped.is_file():
            return Outcome(None, str(parse(self._stopped.read_bytes())["why"]))
        summary = self.folder / "summary.json"
        if not summary.is_file():
            return None
        try:
            found = dict(parse(summary.read_bytes()))
            if found.get("status") == _DIVERGED:  # its value is that of when it was still sound
                return Outcome(None, _DIVERGED)
            value = found.get(self.arm.value)
            return Outcome(None if value is None else float(value), str(found.get("status", "")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{summary} is damaged ({error}): remove it, and the run goes on"
            ) from None


def peaks(arm: Arm, setting: Setting) -> list[float]:
    """The peak rates that are tried, rounded so that a folder can be called by each."""
    return list(dict.fromkeys(float(f"{arm.peak * m:.3g}") for m in setting.multiples))


def chosen(arm: Mapping[float, Outcome | None]) -> float | None:
    """The peak rate of the least loss; None while a run that is to choose it has not ended, or if
    none came to its end."""
    ended = {peak: outcome for peak, outcome in arm.items() if outcome is not None}
    if len(ended) < len(arm):
        return None
    best = min(ended, key=lambda peak: ended[peak].rank)
    return best if math.isfinite(ended[best].rank) else None


def tuning(name: str, arm: Arm, setting: Setting, out: Path) -> list[Trial]:
    """The runs that choose an arm's peak rate; none where there is no choice."""
    rates = peaks(arm, setting)
    return [_trial(name, arm, p, TUNING_SEED, True, out) for p in rates] if len(rates) > 1 else []


def rate(name: str, arm: Arm, setting: Setting, out: Path) -> float | None:
    """The peak rate of an arm's reported runs: its only one, or the one that was `chosen`."""
    tried = _tried(name, arm, setting, out)
    return chosen(tried) if tried else peaks(arm, setting)[0]


def reported(name: str, arm: Arm, peak: float, setting: Setting, out: Path) -> list[Trial]:
    """An arm's runs at the rate that was chosen, one for each seed."""
    seeds = range(TUNING_SEED + 1, TUNING_SEED + 1 + setting.seeds)
    return [_trial(name, arm, peak, seed, False, out) for seed in seeds]


def wanted(arms: Mapping[str, Arm], setting: Setting, out: Path) -> list[Trial]:
    """All runs that can be told so far, ended or not, in the order in which they are to be trained:
    what chooses the rates first, then seed by seed, so that a study that is stopped has as many
    seeds of one arm as of another."""
    first = [trial for name, arm in arms.items() for trial in tuning(name, arm, setting, out)]
    return [*first, *sorted(_reported(arms, setting, out), key=lambda trial: trial.seed)]


def planned(arms: Mapping[str, Arm], setting: Setting, out: Path) -> int:
    """How many runs there will be: an arm of which no rate came to its end has no reported ones."""
    tried = [_tried(name, arm, setting, out) for name, arm in arms.items()]
    hopeless = [bool(t) and None not in t.values() and chosen(t) is None for t in tried]
    return sum(map(len, tried)) + setting.seeds * hopeless.count(False)


def _reported(arms: Mapping[str, Arm], setting: Setting, out: Path) -> Iterator[Trial]:
    for name, arm in arms.items():
        if (peak := rate(name, arm, setting, out)) is not None:
            yield from reported(name, arm, peak, setting, out)


def _tried(name: str, arm: Arm, setting: Setting, out: Path) -> dict[float, Outcome | None]:
    return {trial.peak: trial.outcome() for trial in tuning(name, arm, setting, out)}


def _trial(name: str, arm: Arm, peak: float, seed: int, is_tuning: bool, out: Path) -> Trial:
    folder = out / f"{name}.peak-{peak:g}" / f"seed-{seed}"
    return Trial(name, arm, peak, seed, is_tuning, folder)
