"""What the runs of a study were told, held against what the study tells them now."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from groundup._json import parse
from groundup.experiment.studies.trials import Trial
from groundup.train import toml
from groundup.train.folder import HARMLESS

__all__ = ["Common", "common", "refuse_another_text", "summary"]

Flat = dict[str, Any]

_LEARNT = ("tokenizer", "data")
"""What a run's folder tells of its text, beside what the run was told."""
_TEXT = ("source", "validation", "validation_fraction", "text_field", "mixture")
_DATA_SET = "dataset:"
_SHORT = 12  # digits of a SHA-256
# In what a run and the study's recipe may differ: the text, which all runs share, names, what only
# looks, and what is another machine's.
_FREE = {"name", "variant", "data", "model.vocab_size", "train.device", "train.micro_batch"}
_FREE |= {f"data.{name}" for name in _TEXT} | HARMLESS
_ONLY_LOOKS = ("measure.", "log.", "evaluate.", "parallel.")

# What a section says of the model and the training.
_SHOWN = (
    *(f"model.{name}" for name in ("layers", "width", "heads", "init_std", "embedding_std")),
    *(f"data.{name}" for name in ("vocab_size", "length")),
    *(f"train.{name}" for name in ("steps", "batch", "precision", "compile", "eval_tokens")),
    "optimizer.name",
)

_OWN = ("seed", "data", "rate")
"""What each run has of its own, or what is said elsewhere."""


@dataclass(frozen=True)
class Common:
    """What a study's runs share.

    Attributes:
        text: see `findings.About.text`.
        settings: name → the values that it takes.
    """

    text: Mapping[str, Any]
    settings: Mapping[str, tuple[Any, ...]]


def common(trials: Sequence[Trial], data: Path | None) -> Common:
    """What the runs share that have been begun.

    Raises:
        ValueError: if one of them cannot be compared with the study or with the others.
    """
    told = [(trial, configuration) for trial in trials if (configuration := _told(trial))]
    text: Flat = {}
    for trial, configuration in told:
        _hold_against(trial.folder, configuration, _asked(trial))
        text = _joined(trial.folder, _text(trial.folder, configuration), text)
    settings: dict[str, list[Any]] = {}
    for _, configuration in told:
        shown = {k: configuration[k] for k in _SHOWN if k in configuration}
        # A program of its own has few settings: all are shown.
        for name, value in (shown or configuration).items():
            values = settings.setdefault(name, [])
            if value not in values and name not in _OWN:
                values.append(value)
    folder = data or Path(str(told[0][1].get("data.folder", "data"))) if told else Path()
    return Common(
        text=_named(text) | _counted(text, folder),
        settings={name: tuple(sorted(v, key=_order)) for name, v in settings.items() if v},
    )


def refuse_another_text(trials: Sequence[Trial]) -> None:
    """Runs that are begun must have been told the text that the study tells now: what is missing
    would be trained on another one, and could not be compared.

    Raises:
        ValueError: if one of them was told another.
    """
    for trial in trials:
        told = _told(trial) if trial.folder.is_dir() else None
        there = {} if told is None else _source(told)
        asked = _source(_asked(trial))
        for name in there:
            if there[name] != asked.get(name):
                raise ValueError(
                    f"{_place(trial.folder)} was told to train on another text: {name}="
                    f"{there[name]!r} there, {asked.get(name)!r} now. Give the same --data, or "
                    "another --out"
                )


def summary(folder: Path) -> dict[str, Any] | None:
    """summary.json of a run; None if it has none."""
    path = folder / "summary.json"
    return parse(path.read_bytes()) if path.is_file() else None


def _told(trial: Trial) -> Flat | None:
    """What a run was told: its resolved recipe, or the file that it was started with."""
    recipe = trial.folder / "recipe.toml"
    path = recipe if recipe.is_file() else trial.file
    if not path.is_file():
        return None
    try:
        return _READERS[trial.arm.suffix](path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{_place(trial.folder)} cannot be compared: {error}") from error


def _asked(trial: Trial) -> Flat:
    """What the study tells it now."""
    text = trial.arm.configuration(trial.folder.parent.name, trial.peak, trial.seed)
    return _READERS[trial.arm.suffix](text)


def _recipe(text: str) -> Flat:
    """With the fields that came later at what they are unless given."""
    return toml.flat(toml.plain(toml.build(tomllib.loads(text))))


def _json(text: str) -> Flat:
    return toml.flat(json.loads(text))


_READERS: dict[str, Callable[[str], Flat]] = {".toml": _recipe, ".json": _json}


def _hold_against(folder: Path, told: Flat, asked: Flat) -> None:
    for name in sorted(told.keys() | asked.keys()):
        if name in _FREE or name.startswith(_ONLY_LOOKS):
            continue
        if told.get(name) != asked.get(name):
            raise ValueError(
                f"{_place(folder)} cannot be compared: {name}={told.get(name)!r} there, "
                f"{asked.get(name)!r} in the study. Train it again in another folder"
            )


def _text(folder: Path, told: Flat) -> Flat:
    """What decides on the text of a run, and what its folder knows of it."""
    found = {name: value for name, value in _source(told).items() if value}
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    if tokenizer.is_file():
        found["tokenizer"] = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    states = sorted(folder.glob("checkpoints/step-*/state.json"))
    if states:
        found["data"] = parse(states[-1].read_bytes()).get("data")
    return found


def _source(told: Flat) -> Flat:
    """What decides on the text."""
    found = {name: told.get(f"data.{name}") for name in _TEXT}
    return found | ({"source": told["data"]} if "data" in told else {})


def _joined(folder: Path, text: Flat, before: Flat) -> Flat:
    """What the runs know of their text; one that has just begun does not know all."""
    for name in (*_TEXT, *_LEARNT) if before else ():
        one, other = text.get(name), before.get(name)
        if one != other and not (name in _LEARNT and None in (one, other)):
            raise ValueError(
                f"{_place(folder)} cannot be compared: it was trained on another text, "
                f"{name}={one!r} instead of {other!r}"
            )
    return before | text


def _named(text: Flat) -> Flat:
    """Without a machine's paths, and with as much of a hash as tells one from another."""
    named: Flat = {k: _public(text[k]) for k in ("source", "validation", "data") if k in text}
    if "tokenizer" in text:
        named["tokenizer"] = text["tokenizer"][:_SHORT]
    if "mixture" in text:
        named["source"] = "a mixture"
    return named


def _public(source: str) -> str:
    """As it was given where that is the name of a data set or leads down from where one stood."""
    path = PurePath(source)
    leads_elsewhere = path.is_absolute() or ".." in path.parts or source.startswith("~")
    if source.startswith(_DATA_SET) or not (leads_elsewhere or "://" in source):
        return source
    return path.name


def _counted(text: Flat, folder: Path) -> Flat:
    """The documents and tokens of the prepared text, where it still lies there."""
    reports = _reports(folder)
    if text.get("data") in reports:
        found = [reports[text["data"]]]
    else:  # of several with this tokenizer one could not say which
        own = text.get("tokenizer")
        found = [one for one in reports.values() if own and one.get("tokenizer") == own]
    report = found[0] if len(found) == 1 else {}
    return {name: report[name] for name in ("documents", "tokens") if name in report}


def _reports(folder: Path) -> dict[str, Flat]:
    """What is told of each prepared text, by the name of its folder."""
    reports = {}
    for path in sorted(folder.glob("*/prepared.json")):
        with suppress(ValueError):
            reports[path.parent.name] = parse(path.read_bytes())
    return reports


def _place(folder: Path) -> str:
    return "/".join(folder.parts[-2:])


def _order(value: Any) -> tuple[bool, Any]:
    is_text = not isinstance(value, int | float)
    return is_text, str(value) if is_text else value
