"""Evaluations every so many updates of a training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from groundup.data import Tokenizer
from groundup.evaluate.lambada import last_words
from groundup.evaluate.perplexity import Encoded, encoded, perplexity
from groundup.evaluate.scoring import Scorer
from groundup.evaluate.texts import Texts
from groundup.evaluate.wikitext import pages_encoded
from groundup.train.evaluating import EvaluateConfig
from groundup.train.world import ALONE, World

if TYPE_CHECKING:
    from groundup.evaluate.harness.running import Prepared

__all__ = ["During"]


@dataclass(frozen=True)
class During:
    """What is evaluated during a training, read and tokenized once.

    Attributes:
        length: tokens that the model reads at once.
        batch: sequences per forward, in each process.
    """

    length: int
    batch: int
    _parts: Sequence[Callable[[Scorer], dict[str, dict[str, Any]]]] = field(repr=False)

    @classmethod
    def make(
        cls, config: EvaluateConfig, tokenizer: Tokenizer, length: int, batch: int = 16
    ) -> During | None:
        """Read and tokenize all that `config` names; None if it asks for nothing.

        Raises:
            ValueError: for what cannot be found, read or evaluated, naming it; for tasks without
                lm-eval.
        """
        if not config.every:
            return None
        parts = [*_texts(config, tokenizer)]
        if config.tasks:
            from groundup.evaluate import harness

            files = None if config.task_files is None else Path(config.task_files)
            try:
                tasks = harness.prepare(tokenizer, config.tasks, files, config.shots, config.limit)
            except ImportError as error:
                raise ValueError(f"tasks={config.tasks!r}: {error}") from error
            tasks.rehearse()
            parts.append(partial(_asked_for, tasks, config.tasks))
        return cls(length, batch, parts)

    def evaluate(
        self,
        model: nn.Module,
        device: torch.device,
        precision: str,
        world: World = ALONE,
        heard: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Numbers by "eval/NAME/METRIC", the same on all processes, which all call this.

        The model is evaluated in evaluation mode and left in the mode that it was in. What is
        compiled of it runs uncompiled meanwhile: sequences of many lengths would have it compiled
        again and again, up to the point where PyTorch gives up compiling it also for training. No
        random number is drawn.
        """
        scorer = Scorer(model, device, self.length, self.batch, precision, world, heard)
        found: dict[str, dict[str, Any]] = {}
        with _evaluating(model):
            for part in self._parts:
                found.update(part(scorer))
        return {
            f"eval/{name}/{metric}": float(value)
            for name, metrics in found.items()
            for metric, value in metrics.items()
            if metric in _METRICS and value is not None
        }

    @staticmethod
    def said(numbers: Mapping[str, float]) -> str:
        """What `evaluate` found in words, of each text and task its first number of `_SAID`."""
        found: dict[str, str] = {}
        for metric in _SAID:
            for key, value in numbers.items():
                name, _, of = key.removeprefix("eval/").rpartition("/")
                if of == metric:
                    found.setdefault(name, f"{name} {value:.3f} {metric.replace('_', ' ')}")
        names = dict.fromkeys(k.removeprefix("eval/").rpartition("/")[0] for k in numbers)
        return ", ".join(found[name] for name in names if name in found)


def _asked_for(tasks: Prepared, names: Sequence[str], scorer: Scorer) -> dict[str, dict[str, Any]]:
    """Of a group its own numbers, and not those of its many tasks."""
    found = tasks.evaluate(scorer)
    return {name: found[name] for name in names}


# The best known first.
_SAID = ("bits_per_byte", "acc", "exact_match", "f1", "mcc", "perplexity", "word_perplexity")
# What is worth a curve; counts and settings stay the same.
_METRICS = (
    "acc",
    "acc_norm",
    "perplexity",
    "word_perplexity",
    "byte_perplexity",
    "bits_per_byte",
    "exact_match",
    "f1",
    "mcc",
)


def _texts(
    config: EvaluateConfig, tokenizer: Tokenizer
) -> Iterator[Callable[[Scorer], dict[str, dict[str, Any]]]]:
    eos, limit = tokenizer.eos_id, config.limit
    names: Counter[str] = Counter(config.tasks)

    def found(source: str, option: str) -> Texts:
        texts = Texts.find(source, option, limit=limit)
        names[texts.name] += 1
        if names[texts.name] > 1:
            raise ValueError(
                f"{option}={source!r} is not valid: something else is called {texts.name!r} as "
                "well, and their numbers would be told apart by that alone"
            )
        return texts

    for source in config.texts:
        texts = found(source, "texts")
        documents = list(encoded(texts.documents(), tokenizer))
        yield _perplexity(texts.name, source, documents, eos)
    for source in config.wikitext:
        texts = found(source, "wikitext")
        documents = list(pages_encoded(texts.whole(), tokenizer, limit))
        yield _perplexity(texts.name, source, documents, eos)
    for source in config.lambada:
        texts = found(source, "lambada")
        passages = list(texts.lines())
        if not passages:
            raise ValueError(f"{source!r} holds no passage")
        yield _last_words(texts.name, passages, tokenizer)


def _perplexity(
    name: str, source: str, documents: list[Encoded], eos: int
) -> Callable[[Scorer], dict[str, dict[str, Any]]]:
    if not any(len(document.tokens) for document in documents):
        raise ValueError(f"{source!r} holds no text")
    return lambda scorer: {name: perplexity(scorer, documents, eos).numbers()}


def _last_words(
    name: str, passages: list[str], tokenizer: Tokenizer
) -> Callable[[Scorer], dict[str, dict[str, Any]]]:
    return lambda scorer: {
        name: last_words(scorer, passages, tokenizer, tokenizer.eos_id).numbers()
    }


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, training in modes:
            module.training = training
