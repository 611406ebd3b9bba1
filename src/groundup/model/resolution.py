"""A [model] table that names a configuration of transformers, or weights to start from, worked out.

Afterwards the table holds all that decides the model: neither the folder nor the Hub is needed
again to know what a run was, and transformers only to build it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup._check import unknown
from groundup._json import parse
from groundup.model.library import quiet, transformers
from groundup.model.size_names import SIZES

Table = Mapping[str, Any]

_NEEDED = ("width", "layers", "heads")
# Those of the tokenizer count.
_TOKENS = frozenset({"bos_token_id", "eos_token_id"})
# Neither the model's sizes nor its arithmetic; weights and compute have the recipe's precision.
_DROPPED = _TOKENS | {
    "transformers_version",
    "architectures",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "auto_map",
}
# Old ways to say rope_parameters.
_ROPE = ("rope_theta", "rope_scaling")
_KEPT_WITH_HF = ("z_loss",)
_KEPT_WITH_HF_CONFIG = ("z_loss", "weights")


def resolved(table: Table) -> dict[str, Any]:
    """[model] without `hf`: `hf_config` is the whole configuration, and the sizes are filled in;
    with `weights` alone, the fields of our own decoder are those of the checkpoint. A table that
    says it all already, or has none of this, is returned as it is.

    Raises:
        ValueError: naming the key: for a configuration that cannot be found or is not valid, what
            would be ignored, or where transformers is missing.
    """
    hf, changes = table.get("hf"), table.get("hf_config", {})
    if not isinstance(changes, Mapping):
        raise ValueError(f"hf_config={changes!r} is not valid: it must be a table")
    if hf is None and not changes:
        return _from_weights(table) if table.get("weights") is not None else dict(table)
    if hf is None and "model_type" not in changes:
        raise ValueError(
            f"hf_config={dict(changes)!r} is not valid: it changes what hf says, so say hf; or say "
            "model_type in it"
        )
    said = [name for name in SIZES if name in table]
    if hf is None and said and set(_NEEDED) <= set(said):
        return dict(table)
    if said:
        source = f"hf={hf!r}" if hf is not None else "hf_config"
        raise ValueError(
            f"{said[0]}={table[said[0]]!r} would be ignored: {source} decides it; to change it say "
            f"hf_config = {{{SIZES[said[0]][0]} = …}}"
        )
    config = _configuration(hf, changes)
    own = {key: value for key, value in table.items() if key not in ("hf", "hf_config")}
    return own | _sizes(config) | {"hf_config": as_table(config)}


def ready_for(old: Table, change: Table) -> dict[str, Any]:
    """What of a resolved table a change of it leaves, before the two are merged.

    Another model, or the weights of one for our decoder, leave nothing of the old one but the
    z-loss. A change of `hf_config` takes away
    what followed from what it changes (sizes of heads, kinds of layers): all that transformers
    would fill in by itself.
    """
    if change.get("hf") is not None:
        return _only(old, _KEPT_WITH_HF)
    if not old.get("hf_config"):
        other = change.get("hf_config") or change.get("weights") is not None
        return _only(old, _KEPT_WITH_HF) if other else dict(old)
    if not change.get("hf_config"):
        return dict(old)
    return _only(old, _KEPT_WITH_HF_CONFIG) | {"hf_config": _essential(old["hf_config"])}


def build(table: Table) -> Any:
    """The configuration of transformers that a table describes.

    Raises:
        ValueError: if transformers does not know the model, or refuses a value.
    """
    kind = str(table.get("model_type"))
    if kind not in _causal():
        near = difflib.get_close_matches(kind, _causal(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ValueError(
            f"hf_config.model_type={kind!r} is unknown: {hint}valid are the model types of "
            f"transformers {transformers().__version__} that have a causal language model"
        )
    try:
        with quiet():
            return transformers().AutoConfig.for_model(**table)
    except Exception as error:  # a configuration checks itself, and raises as it likes
        raise ValueError(f"hf_config is not valid for {kind}: {_last_line(error)}") from error


def as_table(config: Any) -> dict[str, Any]:
    """The whole of a configuration, in what TOML can hold: `build` gives an equal one back.

    Raises:
        ValueError: if it cannot be said without null.
    """
    try:
        table = _without_nulls(_plain(config))
    except TypeError as error:  # a date of TOML
        raise ValueError(f"hf_config is not valid: {error}") from None
    again = _plain(build(table))
    for key, value in _plain(config).items():
        if again.get(key) != value:
            raise ValueError(
                f"hf_config.{key}={value!r} is not valid here: a recipe cannot say it, and "
                f"transformers takes {again.get(key)!r} where it is not said"
            )
    return table


# ---------------------------------------------------------------------- where it comes from


def _configuration(hf: Any, changes: Table) -> Any:
    found = {} if hf is None else _named(hf)
    if "quantization_config" in found:
        raise ValueError(f"hf={hf!r} is not valid: its weights are quantized")
    kind = found.get("model_type", changes.get("model_type"))
    if changes.get("model_type", kind) != kind:
        raise ValueError(
            f"hf_config.model_type={changes['model_type']!r} is not valid: hf={hf!r} is a {kind}"
        )
    if kind in _causal():
        changes = _stock_keys(str(kind), changes)
    table = _merged({k: v for k, v in found.items() if k not in _DROPPED}, changes)
    return build(table | {"model_type": kind})


def _named(hf: Any) -> dict[str, Any]:
    """What a folder or file, a model type, or a name on the Hub says."""
    if not isinstance(hf, str):
        raise ValueError(f"hf={hf!r} is not valid: it must be a string")
    path = Path(hf)
    if path.is_dir():
        path = path / "config.json"
        if not path.is_file():
            raise ValueError(f"hf={hf!r} is not valid: the folder has no config.json")
    if path.is_file():
        try:
            found = parse(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"hf={hf!r} is not valid: {path} is no JSON: {error}") from None
        if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
            raise ValueError(f"hf={hf!r} is not valid: {path} says no model_type")
        return found
    if hf in _causal():
        return {"model_type": hf}
    if "/" in hf and not path.is_absolute():
        try:
            return dict(transformers().PretrainedConfig.get_config_dict(hf)[0])
        except (OSError, ValueError) as error:
            raise ValueError(
                f"hf={hf!r} is not valid: there is no such folder, and on the Hub: "
                f"{_first_line(error)}"
            ) from None
    near = [] if "/" in hf else difflib.get_close_matches(hf, _causal(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ValueError(
        f"hf={hf!r} is unknown: {hint}valid are a folder with a config.json, such a file, a model "
        "type of transformers (gpt2, llama, qwen3, …), or a name on the Hub (org/name)"
    )


def _causal() -> list[str]:
    """The model types that have a causal language model."""
    transformers()
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        import groundup.hf  # noqa: F401  (what it registers is found below)
    except ImportError:
        return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    return sorted([*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "groundup"])


def _stock_keys(kind: str, changes: Table) -> dict[str, Any]:
    """The changes under the keys that the configuration itself has (`hidden_size` of a GPT-2 is its
    `n_embd`). It takes any key; one that it does not have would be ignored."""
    names: Mapping[str, str] = transformers().CONFIG_MAPPING[kind].attribute_map
    for key in changes:
        if key in _TOKENS:
            raise ValueError(f"hf_config.{key} would be ignored: the tokenizer of the data has it")
        if (stock := names.get(key)) is not None and stock in changes:
            raise ValueError(f"hf_config: {key} and {stock} are one: say {stock}")
    found = {names.get(key, key): value for key, value in changes.items()}
    try:
        known = {*build({"model_type": kind}).to_dict(), "model_type"}
    except ValueError:  # one that says too little by itself
        return found
    known |= set(_ROPE) if "rope_parameters" in known else set()
    for key in found:
        if key not in known:
            base = transformers().PretrainedConfig().to_dict().keys()
            raise unknown("hf_config key", key, sorted((known | names.keys()) - base))
    return found


# ---------------------------------------------------------------------- what it says


def _sizes(config: Any) -> dict[str, Any]:
    text = config.get_text_config(decoder=True)
    found = {"vocab_size": text.vocab_size, "tied": bool(config.tie_word_embeddings)}
    for field, key in (
        ("width", "hidden_size"),
        ("layers", "num_hidden_layers"),
        ("heads", "num_attention_heads"),
    ):
        value = getattr(text, key, None)
        if type(value) is not int:
            raise ValueError(
                f"hf_config.{key}={value!r} is not valid: {config.model_type} has no one number "
                "for it, which is not supported"
            )
        found[field] = value
    inner = (getattr(text, key, None) for key in SIZES["feed_forward"])
    found["feed_forward"] = next((n for n in inner if type(n) is int), 4 * found["width"])
    kv_heads = getattr(text, "num_key_value_heads", None)
    return found | ({"kv_heads": kv_heads} if type(kv_heads) is int else {})


def _essential(table: Table) -> dict[str, Any]:
    """The keys without which the configuration would be another."""
    whole, found = _plain(build(table)), dict(table)
    for key in table:
        if key == "model_type":
            continue
        fewer = {name: value for name, value in found.items() if name != key}
        try:
            if _plain(build(fewer)) == whole:
                found = fewer
        except ValueError:
            continue
    return found


def _plain(config: Any) -> dict[str, Any]:
    said = {k: v for k, v in config.to_diff_dict().items() if k not in _DROPPED}
    return dict(json.loads(json.dumps(said | {"model_type": config.model_type})))


def _without_nulls(table: Table) -> dict[str, Any]:
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def _merged(table: Table, changes: Table) -> dict[str, Any]:
    found = dict(table)
    for key, value in changes.items():
        old = found.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        found[key] = _merged(old, value) if both and old is not None else value
    return found


def _only(table: Table, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: table[key] for key in keys if key in table}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


# ---------------------------------------------------------------------- weights of our own decoder


def _from_weights(table: Table) -> dict[str, Any]:
    """The fields of the checkpoint's decoder; a table that says its sizes is checked when the
    weights are read."""
    if set(_NEEDED) <= table.keys():
        return dict(table)
    from groundup.model.weights import decoder_of

    theirs = decoder_of(str(table["weights"]))
    for key, value in table.items():
        if key in theirs and theirs[key] != value:
            raise ValueError(
                f"{key}={value!r} is not valid: weights={table['weights']!r} has {theirs[key]!r}"
            )
    return {**theirs, **table}
