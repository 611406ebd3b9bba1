"""Checkpoints of Hugging Face whose weights our own decoder starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from groundup.model.config import ModelConfig
from groundup.model.hf_checkpoint import configuration_from, from_hugging_face
from groundup.model.initialization import write
from groundup.model.transformer import Transformer
from groundup.residual.names import stock_name

# Of a ModelConfig, what a checkpoint does not decide.
_OURS = ("hf", "hf_config", "weights", "z_loss", "drop_path", "init", "init_std", "embedding_std")


def decoder_of(weights: str) -> dict[str, Any]:
    """The fields of `ModelConfig` that a checkpoint decides; those that are None are left out.

    Args:
        weights: a folder with config.json and safetensors, or a name on the Hub.

    Raises:
        ValueError: if there is none, or it is of no family that our decoder is equal to.
    """
    try:
        return _decided(configuration_from(_folder(weights, ["config.json"])))
    except ValueError as error:
        raise ValueError(
            f"{error}. Models of transformers start from weights with hf = {weights!r} beside them"
        ) from None


@torch.no_grad()
def read(model: Transformer, weights: str) -> None:
    """Writes the weights of a checkpoint into a decoder, in place.

    Raises:
        ValueError: if there is none, or its sizes are not the decoder's.
    """
    config, state = from_hugging_face(_folder(weights, ["config.json", "*.safetensors*"]))
    _refuse_another(model.config, config, weights)
    for name, parameter in model.named_parameters():
        write(parameter, state[stock_name(name)])


def check(config: ModelConfig) -> None:
    """Holds a decoder against the config.json of the weights it names; a name on the Hub is left
    for when they are read.

    Raises:
        ValueError: if there is no such folder, or its model is another.
    """
    weights = str(config.weights)
    if (folder := local_folder(weights)) is None:
        return
    _refuse_another(config, configuration_from(folder), weights)


def local_folder(weights: str) -> Path | None:
    """The folder of a checkpoint; None of a name on the Hub.

    Raises:
        ValueError: if it is neither.
    """
    path = Path(weights).expanduser()
    if path.is_dir():
        return path
    if "/" not in weights or path.is_absolute():
        raise ValueError(
            f"weights={weights!r} is not valid: there is no such folder; give one with a Hugging "
            "Face checkpoint, or a name on the Hub (org/name)"
        )
    return None


def _refuse_another(own: ModelConfig, other: ModelConfig, weights: str) -> None:
    theirs, ours = _decided(other), _decided(own)
    if own.vocab_size is None:  # that of the tokenizer, which is not known yet
        theirs.pop("vocab_size", None)
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            raise ValueError(
                f"model.{name}={ours.get(name)!r} is not valid: weights={weights!r} has "
                f"{theirs.get(name)!r}"
            )


def _decided(config: ModelConfig) -> dict[str, Any]:
    """Other ways to say the same are one: `kv_heads` left out, or as many as heads."""
    same = dataclasses.replace(
        config,
        kv_heads=None if config.kv_heads == config.heads else config.kv_heads,
        feed_forward=config.feed_forward_width,
    )
    values = {f.name: getattr(same, f.name) for f in dataclasses.fields(same)}
    return {k: v for k, v in values.items() if k not in _OURS and v is not None}


def _folder(weights: str, patterns: list[str]) -> Path:
    """The checkpoint's folder here, fetched from the Hub where it is a name."""
    if (path := local_folder(weights)) is not None:
        return path
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(weights, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"weights={weights!r} is not valid: there is no such folder, and on the Hub: "
            f"{(str(error).strip().splitlines() or ['nothing'])[0]}"
        ) from None
