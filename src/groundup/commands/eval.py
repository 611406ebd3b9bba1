"""groundup eval RUN…"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from groundup._check import count
from groundup.commands._evaluated import Evaluated, print_evaluations, show_counts
from groundup.commands._options import parse
from groundup.evaluate import results
from groundup.evaluate.kinds import HeldOut, Kind, Lambada, Plain, Tasks, WikiText
from groundup.evaluate.perplexity import check_stride
from groundup.evaluate.subject import Subject, check_step, find_subjects, open_subject
from groundup.evaluate.texts import Texts
from groundup.train.parallel import start
from groundup.train.parallel.config import ParallelConfig
from groundup.train.summary import versions
from groundup.train.world import World


@dataclass(frozen=True)
class Eval:
    """What trained runs are worth: perplexity of any text, of WikiText and of LAMBADA, and the
    benchmarks of LM Evaluation Harness. With nothing asked for: the loss of a run's own held-out
    text. Results are added to RUN/evaluations/step-XXXXXXXX.json.

    Several processes share the work: torchrun --nproc-per-node N -m groundup eval RUN….
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders, folders that hold some, or models in Hugging Face's format."""

    step: int | None = None
    """Completed updates of the checkpoint; the newest unless given."""

    text: tuple[str, ...] = ()
    """Sources, spelled as data.source of a recipe: perplexity of their documents."""

    text_field: str = "text"
    """The field of a JSONL line, or the column of a table, that holds the document."""

    wikitext: tuple[str, ...] = ()
    """Files of WikiText: perplexity of their pages, detokenized, by the words of the file."""

    wikitext_stream: bool = False
    """Each file of WikiText as one document."""

    lambada: tuple[str, ...] = ()
    """Files of LAMBADA, a passage a line: perplexity and accuracy of the last word."""

    tasks: str = ""
    """Tasks of LM Evaluation Harness, with commas between: piqa,hellaswag,arc_easy."""

    task_files: Path | None = None
    """A folder with the tasks' documents, instead of the hub."""

    shots: int | None = None
    """Examples before each question; as the task says unless given."""

    limit: int | None = None
    """Documents, pages, passages or questions to read of each, at most."""

    batch: int = 16
    """Sequences at once."""

    length: int | None = None
    """Tokens that the model reads at once; as in training unless given."""

    stride: int | None = None
    """Tokens that each window of a longer document scores; those before them are its context.
    Unless given, as many as the model reads: disjoint windows."""

    precision: Literal["float32", "bf16"] | None = None
    """float32 on a CPU, and on a GPU that of training, unless given."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    out: Path | None = None
    """Write all results to this JSON file instead of the runs' folders."""


def main(arguments: list[str]) -> int:
    options = parse(Eval(), "eval RUN…", arguments)
    _refuse(options)
    folders = dict.fromkeys(run for place in options.runs for run in find_subjects(place))
    for folder in folders:
        check_step(folder, options.step)
    kinds = _asked(options)
    for kind in kinds:
        kind.check()
    world = start.join(ParallelConfig(), start.pick_device(options.device))
    evaluated: list[Evaluated] = []
    for folder in folders:
        evaluated.append(_evaluate(folder, kinds, options, evaluated, world))
    if world.main:
        print_evaluations(Console(), evaluated)
        print(", ".join(str(one.path) for one in evaluated[: 1 if options.out else None]))
    return 0


def _evaluate(
    folder: Path, kinds: list[Kind], options: Eval, before: list[Evaluated], world: World
) -> Evaluated:
    """All that was asked for, of one model; each result is written as soon as it is there."""
    subject = world.together(lambda: open_subject(folder, options.step, options.device))
    path = options.out or results.path_of(folder, subject.step)
    if options.out is None:
        results.read(path)  # what is damaged is refused before hours are spent
    scorer = subject.scorer(options.length, options.batch, options.precision, world)
    check_stride(options.stride, scorer.length)
    if world.main:
        _say_if_longer(scorer.length, subject, before)
    settings = {
        "length": scorer.length,
        "precision": scorer.precision,
        "device": scorer.device.type,
    }
    head = {"step": subject.step, "tokens": subject.tokens, "versions": versions()}
    made = Evaluated(path, folder, head, subject.recipe, {})
    with show_counts(world.main) as counts:
        for kind in kinds:
            place = "/".join(folder.parts[-2:])
            with counts(f"{place}: {kind.name}", kind.unit) as advance:
                found = kind.results(subject, scorer, advance)
            found = {n: {"name": n, **result, **settings} for n, result in found.items()}
            for name, result in found.items():
                made.results[results.distinct(name, result, made.results)] = result
            if options.out is None:
                world.on_main(partial(results.add, path, head, found))
            else:
                whole = {"runs": [one.whole() for one in (*before, made)]}
                world.on_main(partial(results.write, path, whole))
    return made


def _say_if_longer(length: int, subject: Subject, before: list[Evaluated]) -> None:
    """A note on standard error, once for each length of training."""
    told = [one.recipe.data.length for one in before if one.recipe is not None]
    if subject.recipe is not None and length > subject.length and subject.length not in told:
        print(
            f"note: --length {length} is more than {subject.folder} was trained at "
            f"({subject.length} tokens)",
            file=sys.stderr,
        )


def _refuse(options: Eval) -> None:
    """ValueError for what is not valid, or would be ignored."""
    if not options.runs:
        raise ValueError("say which runs: one run folder or more")
    count("batch", options.batch)
    for name in ("length", "stride", "limit"):
        if (value := getattr(options, name)) is not None:
            count(name, value)
    if options.step is not None:
        count("step", options.step, least=0)
    if options.shots is not None:
        count("shots", options.shots, least=0)
    perplexities = options.text or options.wikitext
    needs = {
        "text_field": (options.text or options.lambada, "--text"),
        "wikitext_stream": (options.wikitext, "--wikitext"),
        "task_files": (options.tasks, "--tasks"),
        "shots": (options.tasks, "--tasks"),
        "stride": (perplexities, "--text or --wikitext"),
        "limit": (perplexities or options.lambada or options.tasks, "something to evaluate on"),
    }
    for name, (used, by) in needs.items():
        if getattr(options, name) != getattr(Eval, name) and not used:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} would be ignored: it needs {by}")


def _asked(options: Eval) -> list[Kind]:
    """What is to be evaluated, found but not read.

    Raises:
        ValueError: naming the option, if it is not there.
    """
    field, limit, stride = options.text_field, options.limit, options.stride
    found: list[Kind] = [
        *(Plain(Texts.find(s, "text", field, limit), stride) for s in options.text),
        *(
            WikiText(Texts.find(s, "wikitext", limit=limit), stride, options.wikitext_stream)
            for s in options.wikitext
        ),
        *(Lambada(Texts.find(s, "lambada", field, limit)) for s in options.lambada),
    ]
    if options.tasks:
        names = tuple(name.strip() for name in options.tasks.split(","))
        found.append(Tasks(names, options.task_files, options.shots, limit))
    return found or [HeldOut()]
