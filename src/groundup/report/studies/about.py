"""The words on what a study trained: model, text, updates, seeds, hardware, commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from groundup.report.studies.findings import About, ArmFindings, Findings
from groundup.report.table import Spread
from groundup.report.words import count, duration, listing

__all__ = ["paragraphs"]

_BUILT_IN = "python"
_MANY = 1_000_000
_TRAINED = "train.steps"
"""What the runs of `groundup train` have."""


def paragraphs(found: Findings) -> list[str]:
    """What was run, how far it is, and how to run it."""
    about = found.about
    trained = [_model(about), _training(about), _text(about), _seeds(found), _machine(about)]
    said = [" ".join(filter(None, trained))]
    if about.ended < about.planned:
        said.append(_missing(found))
    return [*filter(None, said), _commands(found)]


def _model(about: About) -> str:
    settings = about.settings
    if "model.layers" not in settings:
        return ""
    layers, width = (_values(settings[f"model.{name}"]) for name in ("layers", "width"))
    sizes = [count(size) for size in _ends(about.parameters)]
    parameters = f", {' to '.join(sizes)} parameters" if sizes else ""
    return f"Model: {layers} layers × {width}{parameters}{_initial(about)}."


def _initial(about: About) -> str:
    known = {k: about.settings.get(f"model.{k}_std") for k in ("init", "embedding")}
    if known["init"] is None:
        return ""
    own = f", of embeddings {_values(e)}" if (e := known["embedding"]) else ""
    return f"; initial standard deviation {_values(known['init'])}{own}"


def _training(about: About) -> str:
    settings = about.settings
    if _TRAINED not in settings:
        plain = {k: v for k, v in settings.items() if k not in ("variant", "name")}
        return f"Settings: {'; '.join(f'{k} {_values(v)}' for k, v in plain.items())}." * bool(
            plain
        )
    steps, batch = (_values(settings[name]) for name in (_TRAINED, "train.batch"))
    length, precision = (_values(settings[k]) for k in ("data.length", "train.precision"))
    return f"Training: {steps} updates of {batch} × {length} tokens, in {precision}."


def _text(about: About) -> str:
    text = about.text
    if not text:
        return ""
    source = text.get("source", "")
    named = "the built-in corpus, Python's own source" if source == _BUILT_IN else f"`{source}`"
    size = _size(about, "train")
    validation = text.get("validation")
    held = f"held out: `{validation}`" if validation else "a part of it held out"
    held_size = _size(about, "validation")
    vocabulary = about.settings.get("data.vocab_size")
    tokens = f"; a vocabulary of {_values(vocabulary)}" if vocabulary else ""
    evaluated = about.settings.get("train.eval_tokens")
    of = f", evaluated on {_values(evaluated)} tokens of it" if evaluated else ""
    if _TRAINED not in about.settings:
        return f"Data: {named}."
    prepared = f"; prepared as `{text['data']}`" if "data" in text else ""
    return f"Text: {named}{size}; {held}{held_size}{of}{tokens}{prepared}."


def _size(about: About, split: str) -> str:
    tokens = about.text.get("tokens", {}).get(split)
    documents = about.text.get("documents", {}).get(split)
    if tokens is None or documents is None:
        return ""
    return f" ({_amount(tokens)} tokens in {count(documents)} documents)"


def _seeds(found: Findings) -> str:
    setting = found.study.setting(found.scale)
    planned = _seeds_planned(found)
    seeds = "one seed" if planned == 1 else f"{planned} seeds"
    tried = max((len(arm.tuned) for arm in found.arms), default=0)
    if not tried:
        factor = setting.multiples[0] if len(setting.multiples) == 1 else 1
        times = "" if factor == 1 else f"{factor:g} times "
        return f"Reported: {seeds} an arm, at {times}the rates of the recipe."
    return (
        f"Each arm was trained at {tried} peak rates with a seed that is not reported, and with "
        f"{seeds} at the best of them."
    )


def _seeds_planned(found: Findings) -> int:
    """Of an arm; what was asked for may differ from what the study is made for."""
    known = max((len(arm.runs) for arm in found.arms), default=0)
    return known or found.study.setting(found.scale).seeds


def _machine(about: About) -> str:
    if not about.ended:
        return ""
    hardware = listing(about.hardware) or "hardware that was not recorded"
    versions = f"; {'; '.join(about.versions)}" if about.versions else ""
    time = duration(Spread(about.wall_seconds, None, 1))
    runs = "1 run" if about.ended == 1 else f"{about.ended} runs"
    return f"On {hardware}{versions}: {runs}, {time} added up."


def _missing(found: Findings) -> str:
    about = found.about
    waiting = [arm for arm in found.arms if not _ended(arm)]
    arms = f"; arms without a reported run: {listing(_quoted(waiting))}" if waiting else ""
    return f"**Not complete**: {about.ended} of {about.planned} runs have ended{arms}."


def _ended(arm: ArmFindings) -> bool:
    return arm.hopeless or any(run.ended for run in arm.runs)


def _quoted(arms: Sequence[ArmFindings]) -> list[str]:
    return [f"`{arm.name}`" for arm in arms]


def _commands(found: Findings) -> str:
    seeds = _seeds_planned(found)
    told = "" if seeds == found.study.setting(found.scale).seeds else f" --seeds {seeds}"
    built_in = f"groundup reproduce {found.study.name} --scale {found.scale}{told}"
    own = f"{built_in} --data.source TEXT --data.validation HELD_OUT"
    commands = {own: "on this text", built_in: "on that of the recipe"}
    if found.about.text.get("source", _BUILT_IN) == _BUILT_IN:
        commands = {built_in: "on the built-in corpus", own: "on text of one's own"}
    if _TRAINED not in found.about.settings:
        commands = {built_in: "on the data of its own"}
    width = max(map(len, commands)) + 2
    lines = [f"{command:{width}}# {what}" for command, what in commands.items()]
    return "\n".join(["```", *lines, "```"])


def _amount(tokens: int) -> str:
    return f"{tokens / _MANY:.3g}M" if tokens >= _MANY else count(tokens)


def _ends(sizes: Sequence[int]) -> list[int]:
    return [sizes[0]] if len(sizes) == 1 else [sizes[0], sizes[-1]] if sizes else []


def _values(values: Sequence[Any]) -> str:
    return listing([count(v) if isinstance(v, int) else str(v) for v in values])
