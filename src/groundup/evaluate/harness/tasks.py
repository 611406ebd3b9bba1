"""lm-eval's tasks, with its own data sets or with rows from files.

What is used of lm-eval here is the same from 0.4.11 to 0.4.13; older ones do not load with
transformers 5.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from groundup.data.errors import DataError
from groundup.evaluate.harness import files as task_files
from groundup.evaluate.harness.files import Files
from groundup.evaluate.harness.rows import Rows, adapt

# Where lm-eval keeps these tasks: looking through all of its folders takes many seconds.
_FOLDERS = {
    "arc_challenge": "arc",
    "arc_easy": "arc",
    "boolq": "super_glue/boolq",
    "commonsense_qa": "commonsense_qa",
    "copa": "super_glue/copa",
    "hellaswag": "hellaswag",
    "lambada_openai": "lambada",
    "mmlu": "mmlu/default",
    "openbookqa": "openbookqa",
    "piqa": "piqa",
    "race": "race",
    "sciq": "sciq",
    "social_iqa": "siqa",
    "wikitext": "wikitext",
    "winogrande": "winogrande",
}
_SPLIT = "test"  # what the rows of a file are called inside


@dataclass(frozen=True)
class Loaded:
    """One of the names that were asked for.

    Attributes:
        name: a task, or a group or tag of tasks.
        tasks: lm-eval's task objects by name; one of the name itself unless it is a group.
        notes: what a result should say of where its rows are from.
    """

    name: str
    tasks: dict[str, Any]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def is_group(self) -> bool:
        return list(self.tasks) != [self.name]


def check(names: Sequence[str], files: Files | None = None) -> None:
    """All that can be refused without the network: names, files and their rows.

    Raises:
        ImportError, ValueError: as `load` does.
    """
    if files is None:
        _manager(names)
    else:
        load(names, files)


def load(names: Sequence[str], files: Files | None = None) -> list[Loaded]:
    """The tasks of these names, their rows from `files` or, without those, as lm-eval gets them:
    from the network or its cache.

    Raises:
        ImportError: without lm-eval.
        ValueError: for names that lm-eval does not know, tasks that are there twice or need the
            model to write, and files or rows that are wrong.
    """
    manager = _manager(names)
    found = [
        _downloaded(manager, name) if files is None else _local(manager, name, files, names)
        for name in names
    ]
    seen: dict[str, str] = {}
    for loaded in found:
        for task in loaded.tasks:
            if task in seen:
                raise ValueError(f"tasks: {task} is in {seen[task]} and in {loaded.name}")
            seen[task] = loaded.name
        for task, held in loaded.tasks.items():
            if held.OUTPUT_TYPE == "generate_until":
                raise ValueError(
                    f"task {task!r} cannot be evaluated: it has the model write text, and only "
                    "tasks that score given text are supported"
                )
    return found


def _manager(names: Sequence[str]) -> Any:
    """lm-eval's index of its tasks, of a few folders only where those hold all names."""
    if not names:
        raise ValueError("tasks=() is not valid: there must be at least one")
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise ValueError(f"tasks={tuple(names)!r} is not valid: {', '.join(twice)} is there twice")
    try:
        import lm_eval.tasks
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError("evaluating tasks needs lm-eval: pip install 'groundup[eval]'") from error
    root = Path(lm_eval.tasks.__file__).parent
    paths = sorted({str(root / _FOLDERS[name]) for name in names if name in _FOLDERS})
    with quiet():
        manager = TaskManager(include_defaults=False, include_path=paths) if paths else None
        if manager is None or any(name not in manager.all_tasks for name in names):
            manager = TaskManager()
    for name in names:
        if name not in manager.all_tasks:
            raise _unknown(name, manager.all_tasks)
    return manager


def _unknown(name: str, valid: Sequence[str]) -> ValueError:
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return ValueError(
        f"tasks={name!r} is unknown: {hint}valid are all tasks of lm-eval, such as "
        + ", ".join(sorted(_FOLDERS))
    )


def _downloaded(manager: Any, name: str) -> Loaded:
    try:
        with quiet():
            held = manager.load_task_or_group([name])
    except Exception as error:  # datasets, huggingface_hub and the network have many
        lines = str(error).splitlines() or [type(error).__name__]
        raise DataError(
            f"the data of task {name!r} cannot be had: {lines[0]}; with files of your own "
            "(--task-files, in a recipe evaluate.task_files) no network is needed"
        ) from error
    return Loaded(name, dict(_leaves(held)))


def _leaves(held: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, inner in held.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner)
        else:
            yield str(name), inner


def _local(manager: Any, name: str, files: Files, names: Sequence[str]) -> Loaded:
    if name == "mmlu":
        return _mmlu(manager, files, names)
    if name not in manager.all_subtasks:
        raise ValueError(f"tasks={name!r} is a group: with files of your own name its tasks")
    config = _config(manager, name)
    split = "test" if config.get("test_split") else "validation"
    path = task_files.find(files, name, split, _others(names))
    rows = adapt(name, task_files.read(path))
    return Loaded(name, {name: _with_rows(manager, name, path, rows)}, _notes(path, rows))


def _mmlu(manager: Any, files: Files, names: Sequence[str]) -> Loaded:
    """The subjects of which there are rows."""
    path = task_files.find(files, "mmlu", "test", _others(names))
    found = task_files.read(path)
    rows = adapt("mmlu", found)
    valid = [name for name in manager.all_subtasks if name.startswith("mmlu_")]
    by_subject: dict[str, list[dict[str, Any]]] = {}
    for (where, _), row in zip(found, rows.values, strict=True):
        subject = "mmlu_" + row["subject"].strip().replace(" ", "_")
        if subject not in valid:
            raise DataError(
                f"{where}: field 'subject' is {row['subject']!r}: lm-eval has no {subject}"
            )
        by_subject.setdefault(subject, []).append(row)
    tasks = {
        subject: _with_rows(manager, subject, path, replace(rows, values=by_subject[subject]))
        for subject in sorted(by_subject)
    }
    return Loaded("mmlu", tasks, {**_notes(path, rows), "absent": len(valid) - len(tasks)})


def _notes(path: Path, rows: Rows) -> dict[str, Any]:
    return {"file": path.name, **({"form": "converted"} if rows.converted else {})}


def _others(names: Sequence[str]) -> list[str]:
    return [*_FOLDERS, *names]


def _config(manager: Any, name: str) -> Mapping[str, Any]:
    """What lm-eval's YAML file says of a task."""
    from lm_eval import utils

    entry = manager.task_index[name]
    known = getattr(entry, "cfg", None)
    if known is None:  # before 0.4.12
        known = utils.load_yaml_config(yaml_path=entry["yaml_path"], mode="simple")
    return dict(known)


def _with_rows(manager: Any, name: str, path: Path, rows: Rows) -> Any:
    """lm-eval's task, evaluated on these rows; the examples of a prompt are from them as well."""
    import datasets

    held = {_SPLIT: datasets.Dataset.from_list(rows.values)}
    changes: dict[str, Any] = {
        **rows.changes,
        "custom_dataset": _given(held),
        "dataset_path": None,
        "dataset_name": None,
        "dataset_kwargs": None,
        "training_split": None,
        "validation_split": None,
        "test_split": _SPLIT,
        # The same: only so lm-eval takes care that a row is no example for itself.
        "fewshot_split": _SPLIT,
    }
    try:
        with quiet():
            group = manager.load_task_or_group(
                [{"group": "local", "task": [{"task": name, **changes}]}]
            )
    except Exception as error:
        raise DataError(
            f"{path}: lm-eval's task {name!r} cannot read its rows: {type(error).__name__}: {error}"
        ) from error
    return dict(_leaves(group))[name]


def _given(held: dict[str, Any]) -> Callable[..., dict[str, Any]]:
    return lambda **settings: held


@contextlib.contextmanager
def quiet() -> Iterator[Callable[[Callable[[int], None]], Callable[[int], None]]]:
    """Without lm-eval's log, its progress bars and warnings; random numbers are left alone.

    Gives what makes a function that may write to stderr inside.
    """
    # lm-eval names tasks at random, from the generator that all share.
    state = random.getstate()
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    outside = sys.stderr

    def heard(advance: Callable[[int], None]) -> Callable[[int], None]:
        def call(done: int) -> None:
            with contextlib.redirect_stderr(outside):
                advance(done)

        return call

    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(action="ignore"),
        ):
            yield heard
    finally:
        random.setstate(state)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
