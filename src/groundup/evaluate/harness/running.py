"""Evaluating tasks: names in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from groundup import _check
from groundup.data import Tokenizer
from groundup.evaluate.harness.files import Files
from groundup.evaluate.harness.tasks import Loaded, load, quiet
from groundup.evaluate.scoring import Request, Score, Scorer

if TYPE_CHECKING:
    from groundup.evaluate.harness.model import Encodings, Scores

_SEED = 1234  # of the examples in prompts; lm-eval's own
_SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match")
"""Metrics that are the share of rows for which something holds."""


@dataclass(frozen=True)
class Prepared:
    """Tasks, loaded and ready to be evaluated any number of times.

    Attributes:
        loaded: the tasks.
        encodings: ids of the texts that have been asked for.
        limit: the first so many rows of each task only.
    """

    loaded: Sequence[Loaded]
    encodings: Encodings
    limit: int | None = None

    def evaluate(
        self, scorer: Scores, advance: Callable[[int], None] = lambda done: None
    ) -> dict[str, dict[str, Any]]:
        """What `evaluate` below gives, with this scorer's model."""
        from lm_eval import evaluator

        from groundup.evaluate.harness.model import HarnessModel

        tasks = {name: task for one in self.loaded for name, task in one.tasks.items()}
        for task in tasks.values():
            task.set_fewshot_seed(seed=_SEED)
        with quiet() as heard, _templates_compiled_once():
            # Not simple_evaluate: it seeds the random generators of the whole process, and gives
            # nothing to all ranks but one.
            found = evaluator.evaluate(
                lm=HarnessModel(scorer, self.encodings, heard(advance)),
                task_dict=tasks,
                limit=self.limit,
                bootstrap_iters=0,
                log_samples=False,
            )
        results: dict[str, dict[str, Any]] = {}
        for one in self.loaded:
            parts = {name: _task(found, name) for name in one.tasks}
            if one.is_group:
                results[one.name] = {**_group(list(parts.values())), **one.notes}
                results.update(parts)
            else:
                results[one.name] = {**parts[one.name], **one.notes}
        return results

    def rehearse(self) -> None:
        """Everything but the model: what is wrong with prompts or metrics shows, and the ids of all
        texts are known afterwards.

        Raises:
            ValueError: for what cannot be encoded.
        """
        self.evaluate(_Silent())


@contextmanager
def _templates_compiled_once() -> Iterator[None]:
    """lm-eval compiles the templates of a prompt anew for every row: most of its own time."""
    from lm_eval import utils

    compiled = utils.env.from_string
    utils.env.from_string = lru_cache(maxsize=None)(compiled)
    try:
        yield
    finally:
        utils.env.from_string = compiled


@dataclass(frozen=True)
class _Silent:
    """Scores everything 0."""

    length: int = 1 << 30

    def score(
        self, requests: Sequence[Request], advance: Callable[[int], None] = lambda done: None
    ) -> list[Score]:
        return [Score(0.0, False)] * len(requests)


def prepare(
    tokenizer: Tokenizer,
    tasks: Sequence[str],
    files: Files | None = None,
    shots: int | None = None,
    limit: int | None = None,
    beginning: int | None = None,
) -> Prepared:
    """Load tasks, to be evaluated any number of times; see `evaluate`."""
    if shots is not None:
        _check.count("shots", shots, least=0)
    if limit is not None:
        _check.count("limit", limit)
    loaded = load(tasks, files)
    for one in loaded:
        for name, task in one.tasks.items():
            _set_shots(name, task, shots)
    from groundup.evaluate.harness.model import Encodings

    first = tokenizer.eos_id if beginning is None else beginning
    return Prepared(loaded, Encodings(tokenizer, first), limit)


def evaluate(
    scorer: Scorer,
    tokenizer: Tokenizer,
    tasks: Sequence[str],
    files: Files | None = None,
    shots: int | None = None,
    limit: int | None = None,
    advance: Callable[[int], None] = lambda done: None,
    beginning: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate a model on tasks of the LM Evaluation Harness.

    Args:
        scorer: of the model.
        tokenizer: of the model.
        tasks: lm-eval's names: "piqa", "mmlu", …; groups and tags as well.
        files: a folder with the rows of the tasks, in files named after them, or the file of each;
            the network is not used then. None: lm-eval gets its data sets from the Hugging Face
            Hub or its cache.
        shots: examples in each prompt; None: as the task has it, mostly 0.
        limit: only the first so many rows of each task.
        advance: hears how many sequences are done.
        beginning: the id before the first token of a text; None: EOS, as in training here.

    Returns:
        Per task, and per group before its tasks: lm-eval's metrics ("acc", "acc_norm",
        "perplexity", …; accuracies from 0 to 1) and, of accuracies, the standard error of their
        mean as lm-eval has it ("acc_stderr": √(p(1 − p)/(n − 1))); "n", the rows; "shots";
        "version", of lm-eval's task, and "lm_eval", its own; "what" = "task"; "limit" if rows were
        left out; with files "file" and, where rows had the converted form, "form". A group's
        accuracy is that of all rows; "tasks" is their number and, of mmlu from a file, "absent"
        that of the subjects without a row.

    Raises:
        ImportError: without lm-eval.
        ValueError: for unknown tasks, tasks that need generation, and files or rows that are wrong;
            before the model is asked anything.
    """
    prepared = prepare(tokenizer, tasks, files, shots, limit, beginning)
    return prepared.evaluate(scorer, advance)


def _set_shots(name: str, task: Any, shots: int | None) -> None:
    own = task.get_config("num_fewshot")
    # Some tasks cannot have examples: as lm-eval does, their own 0 is left alone.
    chosen = (own or 0) if shots is None or own == 0 else shots
    task.set_config(key="num_fewshot", value=chosen)
    if not chosen or task.get_config("fewshot_split") != task.get_config("test_split"):
        return
    with quiet():
        rows = len(task.eval_docs)
    if chosen >= rows:
        raise ValueError(
            f"shots={chosen} is not valid: of task {name!r} there are {rows} rows, one of which is "
            "asked and the others are examples"
        )


def _task(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    n = int(found["n-samples"][name]["effective"])
    metrics: dict[str, Any] = {}
    for key, value in found["results"][name].items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        # The filter of the answers; "none" wherever text is scored and not written.
        shown = metric if chosen == "none" else f"{metric}_{chosen}"
        metrics[shown] = float(value)
        if metric in _SHARES and n > 1:
            metrics[f"{shown}_stderr"] = math.sqrt(value * (1 - value) / (n - 1))
    return {
        **metrics,
        "n": n,
        "shots": int(found["n-shot"][name]),
        # Without one of its own a task of a YAML file is of version "Yaml".
        "version": None if (version := found["versions"][name]) == "Yaml" else version,
        "what": "task",
        "lm_eval": metadata.version("lm_eval"),
        **({"limit": n} if n < found["n-samples"][name]["original"] else {}),
    }


def _group(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tasks as one: accuracies over the rows of all."""
    n = sum(part["n"] for part in parts)
    metrics: dict[str, Any] = {}
    for metric in _SHARES:
        if all(metric in part for part in parts):
            metrics[metric] = sum(part[metric] * part["n"] for part in parts) / n
            if n > len(parts):
                # Of the rows' variance within their tasks, as lm-eval has it.
                within = sum(part["n"] * part[metric] * (1 - part[metric]) for part in parts)
                metrics[f"{metric}_stderr"] = math.sqrt(within / (n - len(parts)) / n)
    same = {key: parts[0][key] for key in ("shots", "version", "lm_eval") if _one(parts, key)}
    limits = [part["limit"] for part in parts if "limit" in part]
    left_out = {"limit": max(limits)} if limits else {}
    return {**metrics, "n": n, **same, "what": "task", "tasks": len(parts), **left_out}


def _one(parts: Sequence[Mapping[str, Any]], key: str) -> bool:
    return len({part[key] for part in parts}) == 1
