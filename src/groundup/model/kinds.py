"""The kinds of models that a run can train, each made, started and filled in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from groundup.model import hugging_face, weights
from groundup.model.config import ModelConfig
from groundup.model.hugging_face import HuggingFace
from groundup.model.initialization import initialize
from groundup.model.transformer import Transformer

LanguageModel = Transformer | HuggingFace
"""tokens [B, T] → logits [B, T, V]; with targets → `Losses`."""


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        make: the model of a configuration; nothing is allocated under `torch.device("meta")`.
        initialize: writes the initial weights of a seed, and all buffers, in place.
        check: ValueError for a configuration that cannot be built; nothing is allocated.
        check_weights: ValueError where the checkpoint that a configuration names is not here, or
            its own configuration is another's. Nothing is fetched, and no weights are read.
        complete: writes what no checkpoint of a run holds (buffers), in place.
        read: writes the weights of a Hugging Face checkpoint, by its folder or name, in place.
    """

    make: Callable[[ModelConfig], LanguageModel]
    initialize: Callable[[Any, int], None]
    check: Callable[[ModelConfig], None]
    check_weights: Callable[[ModelConfig], None]
    complete: Callable[[Any], None]
    read: Callable[[Any, str], None]


def _nothing(_: Any) -> None:
    """Our own decoder has no buffers, and its configuration has checked itself."""


OURS = Kind(
    make=Transformer,
    initialize=initialize,
    check=_nothing,
    check_weights=weights.check,
    complete=_nothing,
    read=weights.read,
)
HUGGING_FACE = Kind(
    make=HuggingFace,
    initialize=HuggingFace.initialize,
    check=hugging_face.check,
    check_weights=hugging_face.check_weights,
    complete=HuggingFace.complete,
    read=HuggingFace.read,
)


def kind_of(config: ModelConfig) -> Kind:
    """The kind of a resolved configuration.

    Raises:
        ValueError: if it is not resolved.
    """
    if config.hf is not None:
        raise ValueError(
            f"model.hf={config.hf!r} is not resolved: a recipe's file and flags are; in Python say "
            "ModelConfig(**groundup.model.resolved({'hf': …}))"
        )
    return HUGGING_FACE if config.hf_config else OURS
