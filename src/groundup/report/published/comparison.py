"""Which published number belongs to a run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from groundup.report.runs import Run


@dataclass(frozen=True)
class Published:
    """What was published for the setting of a run.

    Attributes:
        perplexity: on held-out C4; infinite where training diverged (over 1000).
        without: the same without residual warmup; None if the run has none itself.
        source: the paper and its table.
        what: the setting, in words.
        exact: whether all that decides the number and is stated agrees.
        differs: what does not, in words: empty if `exact`. Model, placement of norms,
            initialization, residual warmup and data always agree.
    """

    perplexity: float
    without: float | None
    source: str
    what: str
    exact: bool
    differs: list[str]


def beside(run: Run) -> Published | None:
    """The published counterpart of a run; None if its model, placement of norms, initialization,
    residual warmup, data or tokenizer is in no table.

    Data are known by their path alone: C4 by a "c4" in it.
    """
    if not _is_c4(run.setting("data", "source")):
        return None
    validation = run.setting("data", "validation")
    if validation is not None and not _is_c4(validation):
        return None
    # Perplexity is a token's, and tokens of a tokenizer of one's own are other tokens.
    if run.setting("data", "tokenizer") in (None, "train"):
        return None
    # Only now: it needs torch.
    from groundup.report.published import setting
    from groundup.train.toml import build

    try:
        recipe = build(run.recipe)
    except ValueError:  # a recipe of another version
        return None
    entry = setting.entry(recipe)
    if entry is None:
        return None
    differs = setting.differences(recipe, entry)
    if run.updates < recipe.train.steps:
        differs.append(f"it stands at update {run.updates:,} of {recipe.train.steps:,}")
    return Published(
        perplexity=entry.perplexity,
        without=entry.without,
        source=entry.source,
        what=entry.what,
        exact=not differs,
        differs=differs,
    )


def _is_c4(path: object) -> bool:
    return (
        isinstance(path, str)
        and re.search(r"(?<![a-z0-9])c4(?![a-z0-9])", path.lower()) is not None
    )
