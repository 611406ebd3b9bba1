"""What configurations of transformers call the sizes of a model, read without transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SIZES = {
    "width": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads"),
    "kv_heads": ("num_key_value_heads",),
    "feed_forward": ("intermediate_size", "n_inner", "ffn_dim"),
    "vocab_size": ("vocab_size",),
    "tied": ("tie_word_embeddings",),
}
"""Field of `ModelConfig` → the keys that say the same; not every configuration has one of them."""

_LONGEST = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")


def contradiction(hf_config: Mapping[str, Any], sizes: Mapping[str, Any]) -> str | None:
    """The first key of `hf_config` that says another size than `sizes` does, as "field=value would
    be ignored: …"; None if there is none."""
    for field, value in sizes.items():
        for key in SIZES[field]:
            said = hf_config.get(key)
            if said is not None and value is not None and said != value:
                return f"{field}={value!r} would be ignored: hf_config.{key}={said!r} decides it"
    return None


def longest(hf_config: Mapping[str, Any]) -> tuple[str, int] | None:
    """The key that says how many tokens the model takes at most, and its value."""
    return next(_numbers(hf_config, _LONGEST), None)


def _numbers(hf_config: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    for key in keys:
        if type(value := hf_config.get(key)) is int:
            yield key, value
