"""How runs end, against a setting in which they differ: which runs belong on one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from groundup.report import settings
from groundup.report.runs import Run
from groundup.report.table import Study

_NAMES = {"name", "variant", "train.seed"}
# What is looked at and kept, not what is trained.
_WATCHED = re.compile(
    r"measure\..*|train\.(micro_batch|eval_every|eval_tokens|checkpoint_every|keep|compile|device)"
)
_METHOD = ("model.placement", "model.init", "residual.schedule", "optimizer.name")
"""Settings that make another method, never only a companion of the one on the axis."""

_ROSE = 1.02  # times the first loss, that of another batch

Value = Callable[[Run], float | None]


@dataclass(frozen=True)
class Course:
    """A line: for each value of the setting, the runs (they differ by their seed).

    Attributes:
        name: what tells it from the others.
        points: by rising value.
        along: other settings that change with the value.
    """

    name: str
    points: Mapping[float, tuple[Run, ...]]
    along: tuple[str, ...] = ()


def courses(group: Study, key: str, value: Value) -> list[Course]:
    """Lines over the setting `key`, which `value` reads; none if no line would have two points.

    Runs are on one line if their variant is the same, the setting's part of its name left out
    (a sweep calls its points "adamw.warmup-0.05"), and so is every other setting that takes
    several values at one value of `key`. A setting that only changes together with `key`, such as
    a T chosen for each depth, does not split a line. Where the names tell every run from every
    other, settings alone decide.
    """
    valued = [(run, x) for run in group.runs if (x := value(run)) is not None]
    for stem in (_stem, _no_stem):
        found = _courses(valued, key, stem)
        if any(len(course.points) > 1 for course in found):
            return found
    return []


def numeric(group: Study) -> list[str]:
    """Settings in which runs differ and that are numbers in all of those that have them."""
    taken: dict[str, set[str]] = {}
    bad = set()
    for run in group.runs:
        for key, shown, value in _flat(run):
            if isinstance(value, bool) or not isinstance(value, int | float):
                bad.add(key)
            taken.setdefault(key, set()).add(shown)
    return [key for key, values in taken.items() if len(values) > 1 and key not in bad]


def number(key: str) -> Value:
    """Reads a numeric setting."""

    def read(run: Run) -> float | None:
        value = run.setting(*key.split("."))
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if usable and math.isfinite(value) else None

    return read


def ended(run: Run) -> float | None:
    """Held-out loss at the end of a run: infinite if it diverged, None if it did not get there.

    It diverged if it stopped at a number that is not finite, or ended above its first loss.
    """
    final, losses = run.final_eval, run.series["loss"]
    lost = run.finished and run.summary.get("eval_loss", 0.0) is None
    rose = final is not None and len(losses) > 1 and final[1] > _ROSE * losses[0]
    if run.diverged or lost or rose:
        return math.inf
    if not run.finished and run.updates < run.planned:
        return None
    return None if final is None else final[1]


def _courses(
    valued: Sequence[tuple[Run, float]], key: str, stem: Callable[[Run, str], str]
) -> list[Course]:
    by_stem: dict[str, list[_Member]] = {}
    for run, x in valued:
        others = {k: shown for k, shown, _ in _flat(run) if k != key}
        by_stem.setdefault(stem(run, key), []).append(_Member(run, x, others))
    found = []
    for name, members in by_stem.items():
        own = _own(members)
        lines: dict[tuple[str, ...], list[_Member]] = {}
        for member in members:
            lines.setdefault(member.values(own), []).append(member)
        for values, line in lines.items():
            told = [name] * bool(name) + [_said(k, v) for k, v in zip(own, values, strict=True)]
            found.append(_course(", ".join(told), line))
    return found


@dataclass(frozen=True)
class _Member:
    """A run, its value of the setting on the axis, and its other settings as text."""

    run: Run
    x: float
    others: Mapping[str, str]

    def values(self, keys: Sequence[str]) -> tuple[str, ...]:
        return tuple(self.others.get(key, "–") for key in keys)


def _course(name: str, line: Sequence[_Member]) -> Course:
    points: dict[float, tuple[Run, ...]] = {}
    for member in sorted(line, key=lambda member: member.x):
        points[member.x] = (*points.get(member.x, ()), member.run)
    return Course(name, points, tuple(k for k in _keys(line) if _several(line, (k,))))


def _own(members: Sequence[_Member]) -> list[str]:
    """Settings that tell lines apart: the method, and what takes several values at one x unless
    others among these decide it."""
    at: dict[float, list[_Member]] = {}
    for member in members:
        at.setdefault(member.x, []).append(member)
    own = [
        k
        for k in _keys(members)
        if (k in _METHOD and _several(members, (k,)))
        or any(_several(here, (k,)) for here in at.values())
    ]
    for k in [k for k in reversed(own) if k not in _METHOD]:
        rest = [other for other in own if other != k]
        if all(_count(here, rest) == _count(here, own) for here in at.values()):
            own = rest
    return own


def _keys(members: Sequence[_Member]) -> list[str]:
    return list(dict.fromkeys(k for member in members for k in member.others))


def _several(members: Sequence[_Member], keys: Sequence[str]) -> bool:
    return _count(members, keys) > 1


def _count(members: Sequence[_Member], keys: Sequence[str]) -> int:
    return len({member.values(keys) for member in members})


def _flat(run: Run) -> list[tuple[str, str, Any]]:
    """Settings that decide what is trained: (key, as text, value)."""
    return [
        (key, json.dumps(value, default=str, ensure_ascii=False), value)
        for key, value in settings.flat(run.recipe)
        if key not in _NAMES and not _WATCHED.fullmatch(key)
    ]


def _stem(run: Run, key: str) -> str:
    """The variant's name without what a sweep added to it for this setting."""
    name = run.setting("variant")
    if not isinstance(name, str):
        return ""
    value = run.setting(*key.split("."))
    said = [str(value)]
    if isinstance(value, float):
        # The name has the value as it was given, the recipe as the field's type: 10 is 10.0 there.
        said += [f"{value:g}", f"{value:.0f}"] if value.is_integer() else [f"{value:g}"]
    pieces = (re.sub(r"[^\w.-]+", "-", f"{key.rpartition('.')[2]}-{text}") for text in said)
    piece = f"(?:{'|'.join(re.escape(piece) for piece in pieces)})"
    return re.sub(rf"(^|\.){piece}(?=\.|$)", "", name, count=1).removeprefix(".")


def _no_stem(run: Run, key: str) -> str:
    return ""


def _said(key: str, shown: str) -> str:
    """A setting in a legend."""
    text = shown.strip('"')
    if key == "residual.schedule":
        return "no residual warmup" if text == "none" else text
    return text if key in _METHOD else f"{key.rpartition('.')[2]} {text}"
