"""From a study's run folders to its findings."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.experiment.studies import Study
from groundup.experiment.studies.shown import Layers, Lines
from groundup.experiment.studies.trials import Outcome, Trial, planned, rate, reported, tuning
from groundup.report import lines
from groundup.report import measured as recorded
from groundup.report.runs import Run, read_run
from groundup.report.studies import configured
from groundup.report.studies.findings import (
    About,
    ArmFindings,
    Findings,
    Measured,
    RunFindings,
    Tried,
)
from groundup.report.table import spike_score, tokens_per_second, wall_seconds

_POINTS = 100
_ALL_POINTS = 6000  # of the training losses of all runs, for a file that can be committed
_ROWS = 12  # of what is measured by layer
_FOLDER = re.compile(r"(?:[A-Za-z]:)?(?:[\w.~-]*[/\\])+(?=[\w.~-])")


def gather(study: Study, scale: str, out: Path, data: Path | None = None) -> Findings:
    """What the run folders of a study hold so far.

    Args:
        study: the study.
        scale: its scale.
        out: the folder that holds ARM.peak-RATE/seed-N/.
        data: the folder of prepared text, for the number of its tokens; that of the recipes unless
            given. It need not be there.

    Raises:
        ValueError: if a run cannot be compared with the others, naming its folder and the field:
            another recipe than the study's, or another text than the other runs'.
    """
    setting = study.setting(scale)
    arms = study.arms(scale)
    tried = {name: tuning(name, arm, setting, out) for name, arm in arms.items()}
    outcomes = {name: [(t, t.outcome()) for t in trials] for name, trials in tried.items()}
    rates = {name: rate(name, arm, setting, out) for name, arm in arms.items()}
    runs = {
        name: reported(name, arm, peak, setting, out) if (peak := rates[name]) is not None else []
        for name, arm in arms.items()
    }
    trials = [trial for name in arms for trial in (*tried[name], *runs[name])]
    common = configured.common([trial for trial in trials if trial.folder.is_dir()], data)
    points = _points(len(arms) * setting.seeds)
    found = tuple(
        ArmFindings(
            name=name,
            tuned=tuple(_tried(*pair) for pair in outcomes[name]),
            peak=rates[name],
            runs=tuple(_run(study, trial, points) for trial in runs[name]),
        )
        for name in arms
    )
    about = _about(trials, planned(arms, setting, out), common)
    known = Findings(study, scale, found, about)
    # As they will be read: what is said of them must not depend on digits that are not kept.
    return Findings.from_json(known.to_json(), study)


def _tried(trial: Trial, outcome: Outcome | None) -> Tried:
    if outcome is None:
        return Tried(trial.peak, None, False)
    value = outcome.value if math.isfinite(outcome.rank) else None
    return Tried(trial.peak, value, True, "" if value is not None else _said(outcome.why))


def _run(study: Study, trial: Trial, points: int) -> RunFindings:
    outcome = trial.outcome()
    if outcome is None:
        value, status, why = None, "not ended", ""
    elif math.isfinite(outcome.rank):
        value, status, why = outcome.value, "finished", ""
    else:
        value, status, why = None, "diverged", _said(outcome.why)
    if not (trial.folder / "metrics.jsonl").is_file():
        return RunFindings(trial.seed, value, status, why)
    try:
        run = read_run(trial.folder)
    except ValueError:
        if outcome is not None:
            raise
        return RunFindings(trial.seed, value, status, why)  # it has hardly begun
    numbers = ((column.key, run.summary.get(column.key)) for column in study.columns)
    return RunFindings(
        seed=trial.seed,
        value=value,
        status=status,
        why=why,
        updates=run.updates,
        evaluations=run.evals,
        losses=_binned(run.series["loss"], points),
        spikes=dict(_spikes(run)),
        numbers={key: float(value) for key, value in numbers if value is not None},
        tokens_per_second=_speed(run),
        wall_seconds=wall_seconds(run),
        measured=dict(_measured(study, trial.name, run)),
    )


def _speed(run: Run) -> float | None:
    """Tokens per second of all updates together: a median would not see that layers waited."""
    tokens, seconds = run.summary.get("tokens"), float(np.nansum(run.seconds))
    return tokens / seconds if tokens and seconds else tokens_per_second(run)


def _spikes(run: Run) -> Iterable[tuple[str, tuple[float, int, int]]]:
    for name in ("loss", "grad_norm"):
        if (score := spike_score([run], name)) is not None:
            yield name, (score.percent, score.scored, score.windows[0])


def _measured(study: Study, arm: str, run: Run) -> Iterable[tuple[str, Measured]]:
    """What the study's figures show of it, at some steps: more of them early, where warmup acts."""
    figures = [figure for figure in study.figures if not isinstance(figure, Lines)]
    for name in sorted({figure.measured for figure in figures if arm in figure.arms} - _OWN):
        kind, _, key = name.partition("/")
        found = _SOURCES[kind](run, key) if kind in _SOURCES else run.measured.get(name)
        if found is None:
            continue
        at = _spaced(len(found.steps), _POINTS if found.values.ndim == 1 else _ROWS)
        shares = [f.at for f in figures if isinstance(f, Layers) and f.measured == name]
        at = sorted({*at, *(_until(found.steps, share * run.updates) for share in shares)})
        yield name, Measured(tuple(found.steps[at].tolist()), tuple(found.values[at].tolist()))


def _of_metrics(run: Run, key: str) -> recorded.Measured | None:
    """A number of every line of metrics.jsonl, where it is one."""
    steps, columns = lines.columns(run.folder / "metrics.jsonl", [key], [])
    known = np.isfinite(columns[key])
    return recorded.Measured(steps[known], columns[key][known]) if known.any() else None


_OWN = {"loss", "evaluation"}
"""What is kept of every run."""

_SOURCES: dict[str, Callable[[Run, str], recorded.Measured | None]] = {
    "similarity": lambda run, branch: run.similarity.get(branch),
    "metrics": _of_metrics,
}
"""By the first part of a name: what is not in measurements.jsonl."""


def _until(steps: NDArray[np.int64], last: float) -> int:
    """Where the last step is that is no later than this; the first if none is."""
    return max(0, int(np.searchsorted(steps, last, side="right")) - 1)


def _spaced(count: int, points: int) -> list[int]:
    """At most `points` of `count` positions, the first and the last among them: half of them evenly
    spaced, half of them by ratio."""
    if count <= points:
        return list(range(count))
    half = points // 2
    even = np.linspace(0, count - 1, half)
    ratio = np.geomspace(1, count, half) - 1
    return sorted({round(position) for position in (*even.tolist(), *ratio.tolist())})


def _points(runs: int) -> int:
    return max(20, min(_POINTS, _ALL_POINTS // max(1, runs)))


def _binned(values: NDArray[np.float64], points: int) -> tuple[float | None, ...]:
    """Means of the finite values of equal parts; none if no value is."""
    if not np.isfinite(values).any():
        return ()
    parts = np.array_split(values, min(points, len(values)))
    known = [part[np.isfinite(part)] for part in parts]
    return tuple(float(part.mean()) if len(part) else None for part in known)


def _about(trials: Sequence[Trial], planned: int, common: configured.Common) -> About:
    ended = [trial for trial in trials if trial.outcome() is not None]
    summaries = [s for trial in ended if (s := configured.summary(trial.folder))]
    return About(
        text=common.text,
        settings=common.settings,
        parameters=tuple(sorted({s["parameters"] for s in summaries if "parameters" in s})),
        hardware=_each(s.get("hardware") for s in summaries),
        versions=_each(_versions(s) for s in summaries),
        ended=len(ended),
        planned=planned,
        wall_seconds=math.fsum(s.get("wall_seconds") or 0.0 for s in summaries),
    )


def _versions(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in summary.get("versions", {}).items())


def _each(words: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({word for word in words if word}))


def _said(why: str) -> str:
    """What stopped a run, without the folders of the machine."""
    return _FOLDER.sub("", why)
