"""Which runs were evaluated on the same text: only their losses can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from groundup.report.runs import Run

__all__ = ["alike", "note"]

_TRAIN = "train"  # a tokenizer that is trained on the source


def alike(runs: Sequence[Run]) -> bool:
    """Whether the runs were evaluated on the same text in the same tokens, as far as their recipes
    say; a run without [data] is taken to be like the others."""
    return not _differing(runs)


def note(runs: Sequence[Run]) -> str:
    """A sentence that says which runs cannot be compared; "" if all can."""
    keys = _differing(runs)
    if not keys:
        return ""
    return (
        f"Runs that differ in {', '.join(keys)} were evaluated on different text: their losses "
        "cannot be compared."
    )


def _differing(runs: Sequence[Run]) -> list[str]:
    known = [_text(run) for run in runs if isinstance(run.setting("data"), dict)]
    keys = dict.fromkeys(key for text in known for key in text)
    return [key for key in keys if len({repr(text.get(key)) for text in known}) > 1]


def _text(run: Run) -> dict[str, Any]:
    """The settings that decide on the held-out tokens of a run."""
    validation = run.setting("data", "validation")
    tokenizer = run.setting("data", "tokenizer")
    # A held-out file and a tokenizer of its own do not depend on the source.
    names = ["data.validation"]
    names += [] if validation else ["data.source", "data.validation_fraction"]
    # The loss of a mixture is weighted by its course, too.
    names += ["data.mixture", "data.text_field", "data.tokenizer"]
    names += ["data.source", "data.vocab_size"] if tokenizer in (None, _TRAIN) else []
    names += ["data.length", "train.eval_tokens"]
    return {name: run.setting(*name.split(".")) for name in names}
