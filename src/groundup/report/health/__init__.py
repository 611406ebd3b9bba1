"""The health summary: what a page says in words about its runs, each sentence with its numbers.

Rules, bounds and their sources are listed in docs/health.md.
"""

from __future__ import annotations

import numpy as np

from groundup.report.health import layers, stability, vitals, when
from groundup.report.table import Study
from groundup.report.words import listing

__all__ = ["Section", "summary"]

Section = tuple[str, list[str]]
"""A heading and its sentences, plain text."""

_NEEDED = {
    "depth": ("skip_loss/layers", "what each layer is worth"),
    "stream": ("stream_norm/layers", "what each layer adds to the stream"),
    "attention": ("attention_uniform/layers", "whether attention collapses"),
    "gradients": ("grad_norm/layers", "whether gradients reach all layers"),
    "updates": ("relative_update", "whether updates have a healthy size"),
    "rank": ("stable_rank", "whether weights lose rank"),
}


_OFTEN = 100


def summary(group: Study) -> list[Section]:
    """Whether residual warmup helped, when and in which layers, and whether training was sound.

    Computed from what the runs recorded and measured; what was not measured is left out, and the
    last section says what to measure to see it. No section is empty; without runs there is none.
    """
    sections = [
        ("When residual warmup helped", when.sentences(group)),
        ("In which layers", layers.sentences(group)),
        ("Was it stable?", stability.sentences(group)),
        ("Is it healthy?", vitals.sentences(group)),
        ("Not measured", _missing(group)),
    ]
    return [(heading, told) for heading, told in sections if told]


def _missing(group: Study) -> list[str]:
    """Which measurements would tell more, as they stand in a recipe."""
    absent = {word: told for word, (name, told) in _NEEDED.items() if not _has(group, name)}
    if not any(run.sketches for run in group.runs):
        absent["similarity"] = "which layers settle first"
    if not absent or not group.runs:
        return []
    words = ", ".join(f'"{word}"' for word in absent)
    unmeasured = all(run.setting("measure", "every") == 0 for run in group.runs)
    setting = f"every = {_OFTEN}" if unmeasured else f"what = [{words}]"
    return [f"[measure] {setting} in the recipe shows {listing(list(absent.values()))}."]


def _has(group: Study, name: str) -> bool:
    found = (run.measured.get(name) for run in group.runs)
    return any(m is not None and bool(np.isfinite(m.values).any()) for m in found)
