"""The way back: a Hugging Face checkpoint as a decoder. Nothing in it is executed or unpickled."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup._check import unknown
from groundup._json import parse
from groundup.model.config import ModelConfig
from groundup.model.families import FAMILIES, Family, State
from groundup.model.library import transformers
from groundup.model.transformer import Transformer

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def from_hugging_face(source: str | Path | Any) -> tuple[ModelConfig, State]:
    """The decoder that is equal to a model of transformers, and its weights.

    Known are the classes of `groundup.model.families`: Llama, Qwen 3, OLMo 2, EXAONE 4, GLM 4 and
    groundup's own. What a checkpoint does not say (how it was initialized, its z-loss) has its
    default.

    Args:
        source: a folder with config.json and safetensors, in one file or several; or a
            `transformers.PreTrainedModel`.

    Returns:
        The configuration, and a state dict for ``Transformer(config).load_state_dict``: float32 on
        the CPU (of a model: on its device, shared with it where it is float32 there).

    Raises:
        ValueError: naming the file, and the field or weight, if the folder holds no such
            checkpoint, or the model computes something that a decoder does not (biases, scaled
            rotary positions, sliding windows, another size of heads, …); if transformers is not
            installed.
    """
    transformers()
    if isinstance(source, str | Path):
        folder = Path(source).expanduser()
        with _about(folder / _CONFIG):
            values = _configuration(folder / _CONFIG)
            family, config = _decoder(values)
        with _about(folder):
            return config, _state(_weights(folder), family, config)
    with _about(type(source).__name__):
        family, config = _decoder(source.config.to_dict())
        return config, _state(source.state_dict(), family, config)


def configuration_from(folder: Path) -> ModelConfig:
    """The decoder that a folder's config.json describes; its weights are not read.

    Raises:
        ValueError: as `from_hugging_face`.
    """
    transformers()
    with _about(folder / _CONFIG):
        return _decoder(_configuration(folder / _CONFIG))[1]


@contextlib.contextmanager
def _about(what: object) -> Any:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


# ---------------------------------------------------------------------- the configuration


def _configuration(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ValueError("there is no such file: give a folder with a Hugging Face checkpoint")
    values = parse(path.read_bytes())
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    return values


def _decoder(values: Mapping[str, Any]) -> tuple[Family, ModelConfig]:
    """What a config.json describes."""
    name = values.get("model_type")
    if name not in FAMILIES:
        raise unknown("model_type", name, FAMILIES)
    family = FAMILIES[name]
    if values.get("quantization_config") is not None:
        raise ValueError("quantization_config: quantized weights cannot be read")
    _, configuration = family.classes()
    try:
        # Fills in what is left out and knows the names of older versions.
        filled = configuration.from_dict(dict(values))
        config, rope = _sizes(family, filled)
    except ValueError:
        raise
    except Exception as error:  # of many kinds, by version
        said = " ".join(str(error).split())
        raise ValueError(f"it is no {configuration.__name__}: {said:.300}") from error
    _require(family, config, filled, rope)
    return family, config


def _sizes(family: Family, filled: Any) -> tuple[ModelConfig, dict[str, Any]]:
    """The decoder, and what is said of its rotary positions besides their base."""
    placement, qk_norm = family.shape(filled)
    heads, groups = filled.num_attention_heads, filled.num_key_value_heads
    rope = dict(filled.rope_parameters)
    config = ModelConfig(
        vocab_size=filled.vocab_size,
        width=filled.hidden_size,
        layers=filled.num_hidden_layers,
        heads=heads,
        kv_heads=None if groups == heads else groups,
        feed_forward=filled.intermediate_size,
        rope_theta=float(rope.pop("rope_theta")),
        norm_eps=float(filled.rms_norm_eps),
        tied=bool(filled.tie_word_embeddings),
        placement=placement,  # type: ignore[arg-type]
        qk_norm=qk_norm,  # type: ignore[arg-type]
    )
    return config, rope


def _require(family: Family, config: ModelConfig, filled: Any, rope: Mapping[str, Any]) -> None:
    """ValueError for what a decoder does not compute."""
    found = {name: getattr(filled, name, None) for name in family.fixed}
    wanted = dict(family.fixed)
    head_dim = getattr(filled, "head_dim", None)
    found["head_dim"], wanted["head_dim"] = head_dim or config.head_dim, config.head_dim
    kinds = getattr(filled, "layer_types", None) or ["full_attention"]
    found["layer_types"], wanted["layer_types"] = sorted(set(kinds)), ["full_attention"]
    for name, value in {"rope_type": "default", "partial_rotary_factor": 1.0}.items():
        key = f"rope_parameters.{name}"
        found[key], wanted[key] = rope.get(name, value), value
    for name, value in wanted.items():
        if found[name] != value:
            raise ValueError(
                f"{name}={found[name]!r} is not valid: the decoder of groundup computes the same "
                f"only with {value!r}"
            )


# ---------------------------------------------------------------------- the weights


def _weights(folder: Path) -> State:
    """All tensors of a folder, on the CPU.

    Raises:
        ValueError: if there are none, or a file is damaged or not there.
    """
    import safetensors
    from safetensors.torch import load_file

    if (folder / _WEIGHTS).is_file():
        names = [_WEIGHTS]
    elif (folder / _INDEX).is_file():
        index = parse((folder / _INDEX).read_bytes())
        places = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(places, dict) or not all(isinstance(n, str) for n in places.values()):
            raise ValueError(f"{_INDEX} has no weight_map of file names")
        names = sorted(set(places.values()))
    else:
        raise ValueError(
            f"there is no {_WEIGHTS} and no {_INDEX}: weights are read from safetensors only, "
            "since other formats may execute code"
        )
    found: State = {}
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{_INDEX} names the file {name!r}, which is not in the folder")
        if not (folder / name).is_file():
            raise ValueError(f"{_INDEX} names the file {name}, which is not there")
        try:
            found |= load_file(folder / name)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{name} is damaged: {error}") from None
    return found


def _state(theirs: Mapping[str, Tensor], family: Family, config: ModelConfig) -> State:
    """Their weights under our names, float32.

    Raises:
        ValueError: naming the weights, if some are missing, too many, quantized or of another
            shape.
    """
    given = {
        name: value
        for name, value in theirs.items()
        if not name.endswith("rotary_emb.inv_freq")  # older checkpoints kept it
    }
    if config.tied and (head := given.pop("lm_head.weight", None)) is not None:
        embedding = given.get("model.embed_tokens.weight")
        if embedding is None or not torch.equal(head, embedding):
            raise ValueError("tie_word_embeddings is true, but lm_head.weight is another matrix")
    for name, value in given.items():
        if value.dtype not in _DTYPES:
            raise ValueError(
                f"{name} has the dtype {value.dtype}: quantized weights cannot be read"
            )
    with torch.device("meta"):
        expected = Transformer(config).state_dict()
    names = family.names(config, expected)
    shapes = family.forth({names[name]: value for name, value in expected.items()}, config)
    if missing := sorted(shapes.keys() - given.keys()):
        raise ValueError(f"the weights {_listed(missing)} are not there")
    if more := sorted(given.keys() - shapes.keys()):
        raise ValueError(f"the weights {_listed(more)} have no place in a decoder of groundup")
    for name, value in shapes.items():
        if given[name].shape != value.shape:
            raise ValueError(
                f"{name} has the shape {list(given[name].shape)}, and by {_CONFIG} it would be "
                f"{list(value.shape)}"
            )
    back = family.back(given, config)
    return {name: back[names[name]].to(torch.float32) for name in expected}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
