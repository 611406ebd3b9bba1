"""What the runs of a study gave, as numbers: what is committed, and all that its section knows.

A file of findings holds no path and no name of a machine, and numbers of six digits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from groundup._json import parse
from groundup.experiment.studies import Study, named

__all__ = ["About", "ArmFindings", "Findings", "Measured", "RunFindings", "Tried"]

_FORMAT = 1
_DIGITS = 6
_FLAT_LIST = re.compile(r"\[\s+([^\[\]{}\"]*?)\s+\]")
_BREAK = re.compile(r"\n\s*")


@dataclass(frozen=True)
class Tried:
    """A peak rate that was tried: its value, None if it diverged or has not been trained; `ended`
    tells these apart, and `why` says what there is to say."""

    peak: float
    value: float | None
    ended: bool
    why: str = ""


@dataclass(frozen=True)
class Measured:
    """What was measured over a run, at some of the updates: `values` has a number for each of
    `steps`, or a list with one for each layer; None where there is none."""

    steps: tuple[int, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class RunFindings:
    """One reported run.

    Attributes:
        seed: its seed.
        value: what is compared, lower is better; None if there is none.
        status: "finished", "diverged" or "not ended".
        why: what stopped it, if anything did.
        updates: that it made.
        evaluations: (completed updates, value).
        losses: training loss, means over equal parts of the updates.
        spikes: "loss" and "grad_norm" → (percent, points scored, window).
        numbers: of the summary, by key: what the study has columns for.
        tokens_per_second, wall_seconds: as its summary says.
        measured: what the study's figures show, by name.
    """

    seed: int
    value: float | None
    status: str
    why: str = ""
    updates: int = 0
    evaluations: tuple[tuple[int, float], ...] = ()
    losses: tuple[float | None, ...] = ()
    spikes: Mapping[str, tuple[float, int, int]] = field(default_factory=dict, hash=False)
    numbers: Mapping[str, float] = field(default_factory=dict, hash=False)
    tokens_per_second: float | None = None
    wall_seconds: float | None = None
    measured: Mapping[str, Measured] = field(default_factory=dict, hash=False)

    @property
    def ended(self) -> bool:
        """Whether there will be no more of it."""
        return self.status != "not ended"


@dataclass(frozen=True)
class ArmFindings:
    """An arm's runs.

    Attributes:
        name: of the arm.
        tuned: the peak rates that were tried, rising; none where there was no choice.
        peak: the rate that was chosen; None while it is not known, or if no rate came to an end.
        runs: those reported, as many as are planned once the rate is known.
    """

    name: str
    tuned: tuple[Tried, ...]
    peak: float | None
    runs: tuple[RunFindings, ...]

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or highest of those tried: a better one may lie
        beyond."""
        rates = [one.peak for one in self.tuned]
        return len(rates) > 1 and self.peak in (min(rates), max(rates))

    @property
    def values(self) -> dict[int, float]:
        """What is compared, by seed, where there is something."""
        return {run.seed: run.value for run in self.runs if run.value is not None}

    @property
    def diverged(self) -> tuple[int, ...]:
        """The seeds of the runs that came to nothing."""
        return tuple(run.seed for run in self.runs if run.ended and run.value is None)

    @property
    def hopeless(self) -> bool:
        """Whether all that was tried came to nothing: every rate, or every reported run."""
        if self.peak is None:
            return bool(self.tuned) and all(t.ended and t.value is None for t in self.tuned)
        return bool(self.runs) and len(self.diverged) == len(self.runs)


@dataclass(frozen=True)
class About:
    """What was trained on what.

    Attributes:
        text: "source", "validation" (names without a path), and as far as known "tokens" and
            "documents" of both, "tokenizer" (of its file, the beginning of its SHA-256) and "data"
            (the name of the prepared folder).
        settings: dotted name → the values that it takes over the arms.
        parameters: of the models, rising.
        hardware, versions: of all runs, each once.
        ended, planned: runs, those included that choose the rates.
        wall_seconds: of all runs that have ended, added up.
    """

    text: Mapping[str, Any] = field(default_factory=dict, hash=False)
    settings: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, hash=False)
    parameters: tuple[int, ...] = ()
    hardware: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    ended: int = 0
    planned: int = 0
    wall_seconds: float = 0.0


@dataclass(frozen=True)
class Findings:
    """What is known of a study at a scale; its arms in the study's order."""

    study: Study
    scale: str
    arms: tuple[ArmFindings, ...]
    about: About

    @property
    def name(self) -> str:
        """What its files are called: "placement-cpu"."""
        return f"{self.study.name}-{self.scale}"

    def arm(self, name: str) -> ArmFindings | None:
        """The arm of a name; None where there is none at this scale."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def to_json(self) -> str:
        """The findings as JSON text, in numbers of six digits."""
        content = {
            "format": _FORMAT,
            "study": self.study.name,
            "scale": self.scale,
            "about": asdict(self.about),
            "arms": [asdict(arm) for arm in self.arms],
        }
        text = json.dumps(_plain(content), indent=1, sort_keys=True, ensure_ascii=False)
        # A line for each list of numbers.
        return _FLAT_LIST.sub(lambda found: f"[{_BREAK.sub(' ', found[1])}]", text) + "\n"

    @classmethod
    def from_json(cls, text: str, study: Study | None = None) -> Findings:
        """The findings that `to_json` wrote.

        Args:
            text: the JSON.
            study: the one that they are of; found by its name unless given.

        Raises:
            ValueError: if they are damaged, of another study or of one that is not known.
        """
        content = parse(text)
        try:
            if content["format"] != _FORMAT:
                raise ValueError(f"format={content['format']!r} is not {_FORMAT}")
            if study is not None and study.name != content["study"]:
                raise ValueError(f"they are of the study {content['study']!r}")
            about = {key: _tuples(value) for key, value in content["about"].items()}
            return cls(
                study=study or named(content["study"]),
                scale=content["scale"],
                arms=tuple(map(_arm, content["arms"])),
                about=About(**about),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no findings of a study ({error!r:.200})") from error


def _arm(content: Mapping[str, Any]) -> ArmFindings:
    return ArmFindings(
        name=content["name"],
        tuned=tuple(Tried(**one) for one in content["tuned"]),
        peak=content["peak"],
        runs=tuple(map(_run, content["runs"])),
    )


def _run(content: Mapping[str, Any]) -> RunFindings:
    measured = {name: Measured(**_tuples(one)) for name, one in content["measured"].items()}
    return RunFindings(**{k: _tuples(v) for k, v in content.items()} | {"measured": measured})


def _tuples(value: Any) -> Any:
    """Lists as tuples, also in a mapping."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {key: _tuples(one) for key, one in value.items()}
    return value


def _plain(value: Any) -> Any:
    """With numbers of six digits, and None for those that are not finite."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value
