"""Sizes by name: the table of arXiv:2603.05369, and one for a laptop."""

from __future__ import annotations

import dataclasses
from typing import Any

from groundup._check import unknown
from groundup.model.config import ModelConfig

_LLAMA_2_VOCABULARY = 32000


def _published(width: int, feed_forward: int, layers: int, heads: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=_LLAMA_2_VOCABULARY,
        width=width,
        feed_forward=feed_forward,
        layers=layers,
        heads=heads,
    )


PRESETS: dict[str, ModelConfig] = {
    "tiny": ModelConfig(width=64, layers=12, heads=4),
    "71M": _published(width=512, feed_forward=1368, layers=12, heads=8),
    "130M": _published(width=768, feed_forward=2048, layers=12, heads=12),
    "350M": _published(width=1024, feed_forward=2736, layers=24, heads=16),
    "1.3B": _published(width=2048, feed_forward=5632, layers=24, heads=32),
    "3B": _published(width=2560, feed_forward=6848, layers=32, heads=32),
    "7B": _published(width=4096, feed_forward=11008, layers=32, heads=32),
}
"""Name → sizes. The depth study is "71M" with layers 12, 24, 48, 72, 96, 120; "tiny" takes its
vocabulary from the tokenizer."""


def preset(name: str, **overrides: Any) -> ModelConfig:
    """The preset `name` with some fields replaced: ``preset("71M", layers=120)``.

    A new width without a new `feed_forward` takes the default of 8/3 of the width, not the
    preset's, which belongs to the preset's width.

    Raises:
        ValueError: the name or a field is unknown, or a value is out of range.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    fields = [field.name for field in dataclasses.fields(ModelConfig)]
    for field in overrides:
        if field not in fields:
            raise unknown("field", field, fields)
    if "width" in overrides:
        overrides = {"feed_forward": None, **overrides}
    return dataclasses.replace(PRESETS[name], **overrides)
