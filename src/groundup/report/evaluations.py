"""What `groundup eval` has found, as a table: a row for each number, a column for each model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup._check import is_number
from groundup._json import parse
from groundup.report.identity import Identity, identity, labels
from groundup.report.published.benchmarks import AVERAGE, NOTE, Column, average, counterpart
from groundup.report.words import number

__all__ = ["FOLDER", "Entry", "Result", "Table", "newest", "read", "table"]

FOLDER = "evaluations"
"""The folder in a run's folder that holds them."""
Result = dict[str, Any]
"""Numbers by metric, the settings that they depend on, and `what` was evaluated."""

# The numbers of each kind of evaluation that are shown, and their digits. All others stand in the
# JSON.
_SHOWN: dict[str, dict[str, int]] = {
    "text": {"perplexity": 2, "word_perplexity": 2, "bits_per_byte": 4},
    "wikitext": {"perplexity": 2, "word_perplexity": 2, "bits_per_byte": 4},
    "lambada": {"perplexity": 2, "acc": 4},
    "held-out": {"loss": 4, "perplexity": 2, "loss_of_beginning": 4, "recorded_loss": 4},
    "task": {
        "acc": 4,
        "acc_norm": 4,
        "exact_match": 4,
        "f1": 4,
        "perplexity": 2,
        "word_perplexity": 2,
        "bits_per_byte": 4,
    },
}
_WORDS = {
    "acc": "accuracy",
    "acc_norm": "accuracy, normalized",
    "loss_of_beginning": "loss, of what training evaluates",
    "recorded_loss": "loss, as training recorded it",
}
_LARGE = 1e6


@dataclass(frozen=True)
class Entry:
    """The results of one model, by name, and the published numbers that belong beside them."""

    heading: str
    results: Mapping[str, Result]
    published: Sequence[Column] = ()


@dataclass(frozen=True)
class Table:
    """What is shown, in words: the headings of the columns; each row's name, metric and cells; a
    note of what the published columns are, "" without any."""

    headings: list[str]
    rows: list[tuple[str, str, list[str]]]
    note: str = ""


def read(path: Path) -> dict[str, Any]:
    """What a file of results holds; nothing if there is none yet.

    Raises:
        ValueError: if it is damaged.
    """
    if not path.is_file():
        return {"results": {}}
    try:
        found = parse(path.read_bytes())
        for result in found["results"].values():
            if not isinstance(result, dict) or result["what"] not in _SHOWN:
                raise ValueError("a result is no JSON object, or does not say what it is of")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} does not hold results of evaluations ({error!s:.200}): move it away"
        ) from error
    return dict(found)


def newest(run: Path) -> dict[str, Any] | None:
    """The results of the run's last checkpoint that has any; None if none has, or they cannot be
    read."""
    for path in sorted((run / FOLDER).glob("step-*.json"), reverse=True):
        try:
            found = read(path)
        except ValueError:
            continue
        if found["results"]:
            return found
    return None


def table(entries: Sequence[Entry]) -> Table:
    """A row per evaluation and number, a column per model; then the published models that have a
    number comparable to one of these, and the average of the paper's ten tasks where all are there.
    Results stand in one row only if nothing that they depend on differs."""
    found = [_by_identity(entry.results) for entry in entries]
    names = list(dict.fromkeys(one.name for results in found for one in results))
    known = sorted(
        dict.fromkeys(one for results in found for one in results),
        key=lambda one: (names.index(one.name), one.setting("limit") is not None),
    )
    called = labels(known)
    numbers = [
        (one, metric, [_number(results.get(one, {}), metric) for results in found])
        for one in known
        for metric in _SHOWN[one.what]
    ]
    numbers = [row for row in numbers if any(value is not None for value in row[2])]
    published = {c.heading: c.values for entry in entries for c in entry.published}
    keys = {(one, metric): _keys(found, one, metric) for one, metric, _ in numbers}
    asked = set().union(*keys.values())
    beside = {heading: values for heading, values in published.items() if values.keys() & asked}
    rows = []
    for one, metric, values in numbers:
        digits = _SHOWN[one.what][metric]
        errors = [_number(results.get(one, {}), f"{metric}_stderr") for results in found]
        cells = [_cell(value, digits, error) for value, error in zip(values, errors, strict=True)]
        theirs = [_of(keys[one, metric], values) for values in beside.values()]
        cells += [_cell(value, digits) for value in theirs]
        rows.append((called[one], _WORDS.get(metric, metric.replace("_", " ")), cells))
    averages = [average(_comparable(results)) for results in found]
    if any(value is not None for value in averages):
        averages += [values.get(AVERAGE) for values in beside.values()]
        rows.append(("average", "of the ten", [_cell(value, 4) for value in averages]))
    headings = [entry.heading for entry in entries]
    return Table(headings + list(beside), rows, NOTE if beside else "")


def _by_identity(results: Mapping[str, Result]) -> dict[Identity, Result]:
    return {identity(key, result, results): result for key, result in results.items()}


def _number(result: Result, metric: str) -> float | None:
    value = result.get(metric)
    return value if is_number(value) else None


def _cell(value: float | None, digits: int, error: float | None = None) -> str:
    """A number, one too large to be read with its digits as 7.8e+08, and its standard error."""
    if value is not None and _LARGE <= abs(value) < math.inf:
        said = f"{value:.1e}"
    else:
        said = number(value, digits)
    return said if error is None or value is None else f"{said} ± {number(error, digits)}"


def _keys(found: Sequence[Mapping[Identity, Result]], one: Identity, metric: str) -> set[str]:
    """What published numbers call this one; nothing unless it is comparable for every model."""
    names = {counterpart(one.name, results[one]) for results in found if one in results}
    return {f"{name}/{metric}" for name in names} if None not in names else set()


def _of(keys: set[str], values: Mapping[str, float]) -> float | None:
    return next((values[key] for key in keys if key in values), None)


def _comparable(results: Mapping[Identity, Result]) -> dict[str, float]:
    """By NAME/METRIC, as published numbers are called; without what was evaluated in several ways,
    of which none is the one to average."""
    named = [(counterpart(one.name, result), one, result) for one, result in results.items()]
    times = Counter(name for name, _, _ in named)
    return {
        f"{name}/{metric}": value
        for name, one, result in named
        if name is not None and times[name] == 1
        for metric in _SHOWN[one.what]
        if (value := _number(result, metric)) is not None
    }
