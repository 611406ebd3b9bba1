"""Which class of transformers a decoder is: one record per class, and how its weights are called.

| placement  | qk_norm | class                  | forward of a branch |
| ---------- | ------- | ---------------------- | ------------------- |
| pre, lns   | false   | `LlamaForCausalLM`     | x + F(N(x))         |
| pre, lns   | true    | `Qwen3ForCausalLM`     | x + F(N(x))         |
| sandwich   | false   | `Glm4ForCausalLM`      | x + N₂(F(N₁(x)))    |
| output     | true    | `Exaone4ForCausalLM`   | x + N(F(x))         |
| output     | "width" | `Olmo2ForCausalLM`     | x + N(F(x))         |
| all others |         | `GroundupForCausalLM`  | any, of groundup.hf |

A record holds what must be the same on both sides; what is not the same there (biases, sliding
windows, scaled rotary positions) has one value with which the class is exactly our decoder: it is
written, and asked for when a checkpoint is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from groundup.model.config import ModelConfig
from groundup.model.library import transformers

State = dict[str, Tensor]

_ENDS = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
_BRANCHES = {
    "attention.branch.query": "self_attn.q_proj",
    "attention.branch.key": "self_attn.k_proj",
    "attention.branch.value": "self_attn.v_proj",
    "attention.branch.output": "self_attn.o_proj",
    "attention.branch.query_norm": "self_attn.q_norm",
    "attention.branch.key_norm": "self_attn.k_norm",
    "feed_forward.branch.gate": "mlp.gate_proj",
    "feed_forward.branch.up": "mlp.up_proj",
    "feed_forward.branch.down": "mlp.down_proj",
}


@dataclass(frozen=True)
class Family:
    """A class of transformers and the decoders that it is equal to.

    Attributes:
        model_type: its name in a config.json.
        architecture: the class.
        configuration: the class of its configuration.
        placement: of the decoder that a checkpoint becomes.
        qk_norm: likewise.
        norms: a norm of a layer, as the decoder calls it → as the class does.
        fixed: fields of the configuration that must have these values.
    """

    model_type: str
    architecture: str
    configuration: str
    placement: str
    qk_norm: bool | str
    norms: Mapping[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stock(self) -> bool:
        """Whether transformers has the class itself."""
        return True

    def classes(self) -> tuple[Any, Any]:
        """The class and that of its configuration. Raises: ValueError without transformers."""
        library = transformers()
        return getattr(library, self.architecture), getattr(library, self.configuration)

    def settings(self, config: ModelConfig) -> dict[str, Any]:
        """The fields of the configuration that make the class this decoder."""
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.width,
            "intermediate_size": config.feed_forward_width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.key_value_heads,
            "head_dim": config.head_dim,
            "rms_norm_eps": config.norm_eps,
            "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
            "tie_word_embeddings": config.tied,
            "initializer_range": min(config.init_std, 1.0),  # more is refused; nothing here uses it
            **self.fixed,
        }

    def shape(self, values: Any) -> tuple[str, bool | str]:
        """Placement and qk_norm of the decoder with this configuration."""
        return self.placement, self.qk_norm

    def names(self, config: ModelConfig, ours: Iterable[str]) -> dict[str, str]:
        """Each of our parameters' names → what the class calls it."""
        table = _BRANCHES | dict(self.norms)
        return {name: _renamed(name, table) for name in ours}

    def forth(self, state: State, config: ModelConfig) -> State:
        """Weights under the class's names, as the class holds them."""
        return state

    def back(self, state: State, config: ModelConfig) -> State:
        """The reverse of `forth`. Raises: KeyError for a weight that is not there."""
        return state


def _renamed(name: str, table: Mapping[str, str]) -> str:
    module, _, parameter = name.rpartition(".")
    if module in _ENDS:
        return f"{_ENDS[module]}.{parameter}"
    layers, number, inside = module.split(".", 2)
    return f"model.{layers}.{number}.{table[inside]}.{parameter}"


class _Glm4(Family):
    """Rotary pairs stand side by side, and gate and up are one matrix."""

    def settings(self, config: ModelConfig) -> dict[str, Any]:
        values = super().settings(config)
        values["rope_parameters"]["partial_rotary_factor"] = 1.0
        return values

    def forth(self, state: State, config: ModelConfig) -> State:
        found = dict(state)
        for layer in _layers(config):
            for name in ("q_proj", "k_proj"):
                key = f"{layer}.self_attn.{name}.weight"
                # Element i of a head is paired with i + D/2 here, and 2i with 2i + 1 there.
                found[key] = _regrouped(state[key], config.head_dim, (2, -1))
            gate, up = (found.pop(f"{layer}.mlp.{name}_proj.weight") for name in ("gate", "up"))
            found[f"{layer}.mlp.gate_up_proj.weight"] = torch.cat((gate, up))
        return found

    def back(self, state: State, config: ModelConfig) -> State:
        found = dict(state)
        for layer in _layers(config):
            for name in ("q_proj", "k_proj"):
                key = f"{layer}.self_attn.{name}.weight"
                found[key] = _regrouped(state[key], config.head_dim, (-1, 2))
            both = found.pop(f"{layer}.mlp.gate_up_proj.weight")
            for name, half in zip(("gate", "up"), both.chunk(2), strict=True):
                found[f"{layer}.mlp.{name}_proj.weight"] = half
        return found


def _layers(config: ModelConfig) -> list[str]:
    return [f"model.layers.{number}" for number in range(config.layers)]


def _regrouped(weight: Tensor, head_dim: int, halves: tuple[int, int]) -> Tensor:
    """The rows of each head, read as a matrix of this shape, in the order of its columns."""
    rows = weight.unflatten(0, (-1, head_dim)).unflatten(1, halves)
    return rows.transpose(1, 2).flatten(0, 2)


class _Exaone4(Family):
    """Only without sliding windows are all layers given rotary positions."""

    def settings(self, config: ModelConfig) -> dict[str, Any]:
        return super().settings(config) | {"layer_types": ["full_attention"] * config.layers}


_BEFORE = {"attention": "input_layernorm", "feed_forward": "pre_feedforward_layernorm"}
_AFTER = {"attention": "post_attention_layernorm", "feed_forward": "post_feedforward_layernorm"}
# Where the norms of a placement stand, in the names of the groundup class.
_GROUNDUP_NORMS = {
    "pre": {"norm": _BEFORE},
    "post": {"norm": _AFTER},
    "deepnorm": {"norm": _AFTER},
    "sandwich": {"norm": _BEFORE, "post_norm": _AFTER},
    "output": {"post_norm": _AFTER},
}


class _Groundup(Family):
    """groundup.hf: every placement."""

    @property
    def stock(self) -> bool:
        return False

    def classes(self) -> tuple[Any, Any]:
        transformers()
        import groundup.hf

        return groundup.hf.GroundupForCausalLM, groundup.hf.GroundupConfig

    def settings(self, config: ModelConfig) -> dict[str, Any]:
        ours = {"placement": _stock_placement(config), "qk_norm": config.qk_norm}
        return super().settings(config) | ours

    def shape(self, values: Any) -> tuple[str, bool | str]:
        return values.placement, values.qk_norm

    def names(self, config: ModelConfig, ours: Iterable[str]) -> dict[str, str]:
        norms = {
            f"{branch}.{norm}": theirs
            for norm, places in _GROUNDUP_NORMS[_stock_placement(config)].items()
            for branch, theirs in places.items()
        }
        return {name: _renamed(name, _BRANCHES | norms) for name in ours}


def _stock_placement(config: ModelConfig) -> str:
    """LNS becomes Pre-LN when its factors are multiplied in."""
    return "pre" if config.placement == "lns" else config.placement


_PLAIN = {"hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0}
_LLAMA_NORMS = {
    "attention.norm": "input_layernorm",
    "feed_forward.norm": "post_attention_layernorm",
}
_OLMO2_NORMS = {
    "attention.post_norm": "post_attention_layernorm",
    "feed_forward.post_norm": "post_feedforward_layernorm",
}
_GLM4_NORMS = {
    **_LLAMA_NORMS,
    "attention.post_norm": "post_self_attn_layernorm",
    "feed_forward.post_norm": "post_mlp_layernorm",
}

LLAMA = Family(
    "llama", "LlamaForCausalLM", "LlamaConfig", "pre", False, _LLAMA_NORMS,
    {**_PLAIN, "mlp_bias": False},
)  # fmt: skip
QWEN3 = Family(
    "qwen3", "Qwen3ForCausalLM", "Qwen3Config", "pre", True, _LLAMA_NORMS,
    {**_PLAIN, "use_sliding_window": False},
)  # fmt: skip
OLMO2 = Family(
    "olmo2", "Olmo2ForCausalLM", "Olmo2Config", "output", "width", _OLMO2_NORMS, _PLAIN
)  # fmt: skip
EXAONE4 = _Exaone4(
    "exaone4", "Exaone4ForCausalLM", "Exaone4Config", "output", True, _OLMO2_NORMS,
    {"hidden_act": "silu", "attention_dropout": 0.0, "sliding_window": None},
)  # fmt: skip
GLM4 = _Glm4(
    "glm4", "Glm4ForCausalLM", "Glm4Config", "sandwich", False, _GLM4_NORMS, _PLAIN
)  # fmt: skip
GROUNDUP = _Groundup(
    "groundup", "GroundupForCausalLM", "GroundupConfig", "", False, {},
    {**_PLAIN, "mlp_bias": False},
)  # fmt: skip

FAMILIES = {one.model_type: one for one in (LLAMA, QWEN3, OLMO2, EXAONE4, GLM4, GROUNDUP)}
"""`model_type` of a config.json → its family."""

_STOCK: dict[tuple[str, bool | str], Family] = {
    (one.placement, one.qk_norm): one for one in FAMILIES.values() if one.stock
}


def family_of(config: ModelConfig) -> Family:
    """The class that a decoder is written as: a stock one wherever one is exactly equal."""
    return _STOCK.get((_stock_placement(config), config.qk_norm), GROUNDUP)
