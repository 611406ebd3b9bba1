"""What `groundup eval` has found, as a table: a row for each number, a column for each model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundup._check import is_number
from groundup._json import parse
from groundup.report.published.benchmarks import AVERAGE, Column, average
from groundup.report.words import number

__all__ = ["FOLDER", "Entry", "Result", "Table", "called", "newest", "read", "shown", "table"]

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
_NAMED = ("wikitext", "lambada")  # kinds that published numbers are of, whatever the file


@dataclass(frozen=True)
class Entry:
    """The results of one model, by name, and the published numbers that belong beside them."""

    heading: str
    results: Mapping[str, Result]
    published: Sequence[Column] = ()


@dataclass(frozen=True)
class Table:
    """What is shown, in words: the headings of the columns; each row's name, metric and cells."""

    headings: list[str]
    rows: list[tuple[str, str, list[str]]]


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
    """A row per number, a column per model; then the published models that share a row with them,
    and the average of the paper's ten tasks where all are there."""
    known = dict.fromkeys(row for entry in entries for row in shown(entry.results))
    keys = {row: _key(_first(entries, row[0]), *row) for row in known}
    beside = {c.heading: c.values for entry in entries for c in entry.published}
    beside = {h: values for h, values in beside.items() if values.keys() & set(keys.values())}
    rows = []
    for name, metric in known:
        cells = [entry.results.get(name, {}).get(metric) for entry in entries]
        cells += [values.get(keys[name, metric]) for values in beside.values()]
        digits = _SHOWN[_first(entries, name)["what"]][metric]
        label = _WORDS.get(metric, metric.replace("_", " "))
        said = called(name, _first(entries, name))
        rows.append((said, label, [number(cell, digits) for cell in cells]))
    averages = [average(_values(entry.results)) for entry in entries]
    if any(found is not None for found in averages):
        averages += [values.get(AVERAGE) for values in beside.values()]
        rows.append(("average", "of the ten", [number(found, 4) for found in averages]))
    return Table([entry.heading for entry in entries] + list(beside), rows)


def shown(results: Mapping[str, Result]) -> Iterator[tuple[str, str]]:
    """Name and metric of each number that is worth a row."""
    for name, result in results.items():
        for metric in _SHOWN[result["what"]]:
            if is_number(result.get(metric)):
                yield name, metric


def called(name: str, result: Result) -> str:
    """The name, and how little was read if not all was."""
    limit = result.get("limit")
    return name if limit is None else f"{name} (first {limit})"


def _values(results: Mapping[str, Result]) -> dict[str, float]:
    """By NAME/METRIC, as published numbers are called."""
    return {f"{name}/{metric}": results[name][metric] for name, metric in shown(results)}


def _key(result: Result, name: str, metric: str) -> str:
    """What published numbers call it. None are of WikiText as a stream."""
    what = result["what"]
    return f"{what if what in _NAMED and not result.get('stream') else name}/{metric}"


def _first(entries: Sequence[Entry], name: str) -> Result:
    return next(entry.results[name] for entry in entries if name in entry.results)
