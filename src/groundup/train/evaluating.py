"""What a recipe says of evaluations while training."""

from __future__ import annotations

from dataclasses import dataclass, fields

from groundup._check import count


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluations on published benchmarks and other texts while training."""

    every: int = 0
    """Updates between them; the end is evaluated as well. 0: none."""

    tasks: tuple[str, ...] = ()
    """Tasks of LM Evaluation Harness."""

    task_files: str | None = None
    """A folder with the rows of the tasks; left out, they come from the Hugging Face Hub."""

    shots: int | None = None
    """Examples in each prompt; left out, as each task has it."""

    texts: tuple[str, ...] = ()
    """Texts whose perplexity is wanted; what `data.source` takes."""

    wikitext: tuple[str, ...] = ()
    """Files of WikiText."""

    lambada: tuple[str, ...] = ()
    """Files of LAMBADA, a passage in each line."""

    limit: int | None = None
    """Rows of each task, documents, pages and passages that are read; left out, all."""

    def __post_init__(self) -> None:
        count("every", self.every, least=0)
        if self.limit is not None:
            count("limit", self.limit)
        if self.shots is not None:
            count("shots", self.shots, least=0)
        sets = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        if not self.every and sets:
            raise ValueError(
                f"{sets[0]} would be ignored: every=0 evaluates never; say after how many updates"
            )
        if self.every and not (self.tasks or self.texts or self.wikitext or self.lambada):
            raise ValueError(
                f"every={self.every} is not valid: there is nothing to evaluate; name tasks, "
                "texts, wikitext or lambada"
            )
        for name in ("task_files", "shots"):
            if getattr(self, name) is not None and not self.tasks:
                raise ValueError(f"{name} would be ignored: there are no tasks")
