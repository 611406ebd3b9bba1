"""Published numbers of the 1.3B models, to stand beside one's own: arXiv:2603.05369, Tables 3, 4.

The paper evaluates zero-shot with LM Evaluation Harness and does not say which of a task's two
accuracies it prints. Assumed here is the one normalized by the length of the answer (`acc_norm`)
wherever the harness has it, as its users mostly report: for PIQA, HellaSwag, ARC-e, ARC-c and
OpenBookQA; the other five tasks have `acc` alone. The published HellaSwag (47 to 56%) and
OpenBookQA (31 to 36%) leave little doubt, since at this size the plain ones are about ten points
lower; for PIQA, ARC-e and ARC-c the two are too close to tell. WikiText's perplexity is assumed to
be that of a word, and LAMBADA's numbers those of the harness's `lambada_openai`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.report.published.table import tables

if TYPE_CHECKING:
    from groundup.train.recipe import Recipe

__all__ = [
    "AVERAGE",
    "NOTE",
    "ROWS",
    "TABLE_3",
    "TABLE_4",
    "Column",
    "average",
    "columns",
    "counterpart",
]

TABLE_3: Mapping[str, str] = {
    "PIQA": "piqa/acc_norm",
    "SIQA": "social_iqa/acc",
    "HellaSwag": "hellaswag/acc_norm",
    "WinoGrande": "winogrande/acc",
    "ARC-e": "arc_easy/acc_norm",
    "ARC-c": "arc_challenge/acc_norm",
    "OBQA": "openbookqa/acc_norm",
    "RACE": "race/acc",
    "LAMBADA": "lambada_openai/acc",
    "MMLU": "mmlu/acc",
}
"""Its accuracies: column → TASK/METRIC."""

TABLE_4: Mapping[str, str] = {
    "WikiText": "wikitext/word_perplexity",
    "LAMBADA": "lambada_openai/perplexity",
}
"""Its perplexities: column → NAME/METRIC."""

ROWS: Mapping[str, int] = {
    "piqa": 1838,
    "social_iqa": 1954,
    "hellaswag": 10042,
    "winogrande": 1267,
    "arc_easy": 2376,
    "arc_challenge": 1172,
    "openbookqa": 500,
    "race": 1045,
    "lambada_openai": 5153,
    "mmlu": 14042,
    "wikitext": 62,
}
"""The rows that LM Evaluation Harness evaluates each task on."""

NOTE = "published: arXiv:2603.05369, Tables 3 and 4, 1.3B models, 50B tokens of C4"
"""What the columns are."""

AVERAGE = "average/acc"
"""The mean of the ten accuracies."""


@dataclass(frozen=True)
class Column:
    """Published numbers of one model.

    Attributes:
        heading: which one.
        values: by NAME/METRIC; accuracies from 0 to 1.
    """

    heading: str
    values: Mapping[str, float]


def columns(recipe: Recipe) -> list[Column]:
    """The 1.3B models of the recipe's placement of norms and initialization, without and with
    residual warmup; none if the paper has no such model."""
    # It needs torch, which who reads numbers only does not.
    from groundup.report.published.setting import method

    name = method(recipe.model)
    return [
        Column(f"{name}{' + ProRes' if prores == 'yes' else ''}, 1.3B, published", found)
        for prores in ("no", "yes")
        if name is not None and (found := _values(name, prores))
    ]


def counterpart(name: str, result: Mapping[str, Any]) -> str | None:
    """What published numbers call the text or task `name` that a result is of; None where they are
    not comparable: rows were left out or added, examples shown, WikiText read as a stream or
    with `<unk>` in the place of words."""
    fits = _COMPARABLE.get(result["what"])
    return fits(name, result) if fits is not None else None


def _task(name: str, result: Mapping[str, Any]) -> str | None:
    whole = name in ROWS and result.get("n") == ROWS[name] and "limit" not in result
    return name if whole and result.get("shots") == 0 else None


def _lambada(name: str, result: Mapping[str, Any]) -> str | None:
    return "lambada" if result.get("passages") == ROWS["lambada_openai"] else None


def _wikitext(name: str, result: Mapping[str, Any]) -> str | None:
    raw = result.get("unk") == 0 and not result.get("stream")
    return "wikitext" if raw and result.get("documents") == ROWS["wikitext"] else None


_COMPARABLE = {"task": _task, "lambada": _lambada, "wikitext": _wikitext}


def _values(name: str, prores: str) -> dict[str, float]:
    accuracies, perplexities = tables()["zero_shot_1p3b"], tables()["out_of_distribution"]
    found: dict[str, float] = {}
    for column, key in (*TABLE_3.items(), ("average", AVERAGE)):
        if (percent := accuracies.number(column, method=name, prores=prores)) is not None:
            found[key] = percent / 100
    for column, key in TABLE_4.items():
        if (value := perplexities.number(column, method=name, prores=prores)) is not None:
            found[key] = value
    # The same numbers may be computed from the plain file of LAMBADA's passages.
    plain = {
        key.replace("lambada_openai", "lambada"): value
        for key, value in found.items()
        if key.startswith("lambada_openai/")
    }
    return {**found, **plain}


def average(values: Mapping[str, float]) -> float | None:
    """The mean of one's own ten accuracies, by NAME/METRIC; None unless all are there."""
    if not all(key in values for key in TABLE_3.values()):
        return None
    return sum(values[key] for key in TABLE_3.values()) / len(TABLE_3)
