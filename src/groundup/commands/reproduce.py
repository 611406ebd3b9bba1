"""groundup reproduce NAME"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from groundup._check import unknown
from groundup.commands._options import parse
from groundup.experiment.studies import NAMES, Study, named
from groundup.experiment.studies.arms import Arm
from groundup.experiment.studies.running import train_all
from groundup.experiment.studies.trials import Trial, planned, wanted
from groundup.report.studies import check, gather, put, tally, verdicts
from groundup.report.studies.configured import refuse_another_text
from groundup.report.studies.figures import pictures
from groundup.report.studies.section import section
from groundup.train.folder import locked
from groundup.train.signals import Interrupted


@dataclass(frozen=True)
class Text:
    """What is trained on, instead of the study's own."""

    source: str | None = None
    """Named like the source of a recipe: a file, folder, pattern or address. Of the ResNet study
    cifar10:FOLDER."""

    validation: str | None = None
    """Held-out text, named like a source."""

    text_field: str | None = None
    """The field of a JSONL line, or the column of a table, that holds a document."""

    folder: str | None = None
    """Where prepared token files are kept."""


@dataclass(frozen=True)
class Reproduce:
    """Train the runs of a study, several at once, and write its section: table, figures, verdicts.

    Where rates are tuned, each arm has its own, chosen with a seed that is not reported. Started
    again, it goes on where it was stopped; what is there is told as far as it goes, also when it is
    stopped.
    """

    scale: Literal["cpu", "gpu", "paper"] = "cpu"
    """cpu: sized for two hours of two cores; gpu: for half an hour of one H200; paper: what was
    published, in days (see it with --list and groundup plan first)."""

    data: Text = field(default_factory=Text)

    out: Path | None = None
    """Where the runs go; runs/studies/NAME-SCALE unless given."""

    page: Path | None = None
    """The Markdown page that gets the section; OUT/results.md unless given. Findings (JSON) and
    figures lie in results/ beside it."""

    seeds: int | None = None
    """How many seeds are reported; the study's own number unless given."""

    arms: tuple[str, ...] = ()
    """Train only these arms now, such as those of one claim; what is there of others is told all
    the same."""

    jobs: int | None = None
    """Runs at once; on a CPU as many as there are cores, else one, unless given."""

    list: bool = False
    """Only say what would be trained, as far as it is known."""

    read: bool = False
    """Train nothing: only write the section of what is there."""


def main(arguments: list[str]) -> int:
    study, rest = _named(arguments)
    options = parse(Reproduce(), f"reproduce {study.name if study else '|'.join(NAMES)}", rest)
    if study is None:  # --help ends before
        raise ValueError(f"say which study first: {', '.join(NAMES)}")
    study = _as_asked(study, options)
    setting, arms = study.setting(options.scale), _only(study.arms(options.scale), options.arms)
    out = options.out or Path("runs/studies") / f"{study.name}-{options.scale}"

    def runs() -> list[Trial]:
        return wanted(arms, setting, out)

    def total() -> int:
        return planned(arms, setting, out)

    if options.list:
        _list(runs(), total())
        return 0
    page = options.page or out / "results.md"
    if options.read and not any(trial.folder.is_dir() for trial in runs()):
        raise ValueError(f"out={str(out)!r} is not valid: no run of the study is there to be read")
    check(page, gather(study, options.scale, out))
    failed: list[Trial] = []
    if not options.read:
        refuse_another_text(wanted(study.arms(options.scale), setting, out))  # --arms or not
        jobs = options.jobs or _jobs(options.scale)
        with locked(out):
            ended = sum(trial.outcome() is not None for trial in runs())
            _say(f"{out}: {ended} of {total()} runs have ended; {jobs} at once")
            try:
                failed = train_all(runs, jobs, _say, total)
            except Interrupted:
                _tell(study, options, out, page)
                raise
    _tell(study, options, out, page)
    if failed:
        print(f"groundup: failed, tried again by the same command: {len(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _named(arguments: list[str]) -> tuple[Study | None, list[str]]:
    if arguments and not arguments[0].startswith("-"):
        return named(arguments[0]), arguments[1:]
    return None, arguments


def _as_asked(study: Study, options: Reproduce) -> Study:
    """The study with the text and the number of seeds that the options say."""
    setting = study.setting(options.scale)
    text = {key: value for key, value in asdict(options.data).items() if value is not None}
    if text:
        setting = replace(setting, change=_merged(setting.change, {"data": text}))
    if options.seeds is not None:
        if options.seeds < 1:
            raise ValueError(f"seeds={options.seeds} is not valid: it must be at least 1")
        setting = replace(setting, seeds=options.seeds)
    if options.jobs is not None and options.jobs < 1:
        raise ValueError(f"jobs={options.jobs} is not valid: it must be at least 1")
    return replace(study, settings={**study.settings, options.scale: setting})


def _only(arms: Mapping[str, Arm], names: Sequence[str]) -> Mapping[str, Arm]:
    for name in names:
        if name not in arms:
            raise unknown("arms", name, arms)
    return {name: arm for name, arm in arms.items() if not names or name in names}


def _merged(tables: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    return {**tables, **{key: {**tables.get(key, {}), **own} for key, own in change.items()}}


def _jobs(scale: str) -> int:
    return len(os.sched_getaffinity(0)) if scale == "cpu" else 1


def _say(line: str) -> None:
    print(line, flush=True)


def _list(runs: Sequence[Trial], total: int) -> None:
    for trial in runs:
        outcome = trial.outcome()
        print(trial.folder, "" if outcome is None else outcome.said)
    if more := total - len(runs):
        print(f"and {more} more, at the best of each arm's rates")


def _tell(study: Study, options: Reproduce, out: Path, page: Path) -> None:
    """Write the section, and print it. One of other runs is not replaced by one of none."""
    folder = options.data.folder
    gathered = gather(study, options.scale, out, Path(folder) if folder else None)
    # The page is written again from findings alone, which do not hold what the options changed.
    found = replace(gathered, study=named(study.name))
    if not found.about.ended:
        print("no run has ended yet")
        return
    put(page, found)
    print(f"\n{section(found, pictures(found))}")
    print(f"{tally(verdicts(found)) or 'no claim to judge'}: {page}")
