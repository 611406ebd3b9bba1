"""What can be asked of a model: each kind of evaluation, ready to be made of any subject."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from groundup.evaluate.held_out import held_out_loss, held_out_texts, recorded
from groundup.evaluate.lambada import last_words
from groundup.evaluate.perplexity import encoded, perplexity
from groundup.evaluate.results import Result
from groundup.evaluate.scoring import Scorer
from groundup.evaluate.subject import Subject
from groundup.evaluate.texts import Texts
from groundup.evaluate.wikitext import pages_encoded, stream_encoded, unknown_words

__all__ = ["HeldOut", "Kind", "Lambada", "Plain", "Tasks", "WikiText"]

Advance = Callable[[int], None]


class Kind(Protocol):
    """One evaluation. `name`: what to call it; `unit`: what `advance` counts."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def check(self) -> None:
        """Raises:
        ValueError: for what can be refused before there is a model.
        """

    def results(self, subject: Subject, scorer: Scorer, advance: Advance) -> dict[str, Result]:
        """By name. Raises: ValueError if it cannot be made of this subject."""


@dataclass(frozen=True)
class _OfTexts:
    texts: Texts

    unit = "tokens"

    @property
    def name(self) -> str:
        return self.texts.name

    def _result(self, what: str, numbers: dict[str, Any], **settings: Any) -> dict[str, Result]:
        source = {"what": what, "source": self.texts.source, "limit": self.texts.limit}
        return {self.name: {**source, **settings, **numbers}}


@dataclass(frozen=True)
class Plain(_OfTexts):
    """Perplexity of the documents of any source."""

    stride: int | None = None

    def check(self) -> None:
        self.texts.check()

    def results(self, subject: Subject, scorer: Scorer, advance: Advance) -> dict[str, Result]:
        documents = encoded(self.texts.documents(), subject.tokenizer)
        found = perplexity(scorer, documents, subject.beginning, self.stride, advance)
        return self._result("text", found.numbers(), stride=self.stride)


@dataclass(frozen=True)
class WikiText(_OfTexts):
    """Perplexity of WikiText's pages, or of its files as one document each."""

    stride: int | None = None
    stream: bool = False

    def check(self) -> None:
        if self.stream and self.texts.limit is not None:
            raise ValueError(
                f"limit={self.texts.limit} would be ignored: a stream of WikiText has no pages"
            )
        if not any(content.strip() for content in self.texts.whole()):
            raise ValueError(f"{self.texts.source!r} holds no text")

    def results(self, subject: Subject, scorer: Scorer, advance: Advance) -> dict[str, Result]:
        files, tokenizer = self.texts.whole(), subject.tokenizer
        documents = (
            stream_encoded(files, tokenizer)
            if self.stream
            else pages_encoded(files, tokenizer, self.texts.limit)
        )
        found = perplexity(scorer, documents, subject.beginning, self.stride, advance)
        # Published numbers are of files that have none.
        numbers = {**found.numbers(), "unk": sum(map(unknown_words, self.texts.whole()))}
        return self._result("wikitext", numbers, stride=self.stride, stream=self.stream)


@dataclass(frozen=True)
class Lambada(_OfTexts):
    """The last words of LAMBADA's passages."""

    unit = "passages"

    def check(self) -> None:
        if next(self.texts.lines(), None) is None:
            raise ValueError(f"{self.texts.source!r} holds no passage")

    def results(self, subject: Subject, scorer: Scorer, advance: Advance) -> dict[str, Result]:
        passages = list(self.texts.lines())
        found = last_words(scorer, passages, subject.tokenizer, subject.beginning, advance)
        return self._result("lambada", found.numbers())


@dataclass(frozen=True)
class HeldOut:
    """The loss of a run's own held-out text, as its training computes it."""

    name = "held-out"
    unit = "tokens"

    def check(self) -> None:
        """There is nothing to refuse."""

    def results(self, subject: Subject, scorer: Scorer, advance: Advance) -> dict[str, Result]:
        recipe = subject.recipe
        if recipe is None or subject.step is None:
            raise ValueError(
                f"{subject.folder} is no run and has no held-out text: say --text, --wikitext, "
                "--lambada or --tasks"
            )
        texts = held_out_texts(recipe)
        first = recipe.train.eval_tokens
        found = held_out_loss(scorer, texts, scorer.length, first, advance)
        said = recorded(subject.folder, subject.step)
        numbers = {**found.numbers(), "recorded_loss": said}
        return {self.name: {"what": "held-out", "source": recipe.data.source, **numbers}}


@dataclass(frozen=True)
class Tasks:
    """Benchmarks, by LM Evaluation Harness."""

    tasks: tuple[str, ...]
    files: Path | None = None
    shots: int | None = None
    limit: int | None = None

    unit = "sequences"

    @property
    def name(self) -> str:
        return ", ".join(self.tasks)

    def check(self) -> None:
        """Raises:
        ValueError: for a task that is unknown, or without its file; without lm-eval.
        """
        from groundup.evaluate import harness

        try:
            harness.check(self.tasks, self.files)
        except ImportError as error:
            raise ValueError(f"tasks={self.name!r}: {error}") from error

    def results(self, subject: Subject, scorer: Scorer, advance: Advance) -> dict[str, Result]:
        from groundup.evaluate import harness

        return harness.evaluate(
            scorer,
            subject.tokenizer,
            self.tasks,
            self.files,
            self.shots,
            self.limit,
            advance,
            subject.beginning,
        )
