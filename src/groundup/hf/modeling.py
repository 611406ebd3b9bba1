"""The decoder in transformers: Llama's, except for where its layers normalize.

Attention, feed-forward, rotary positions, caches, masks, checkpointing and the loss are the stock
ones: a Llama's, and with `qk_norm` Qwen3's or OLMo 2's attention. Residual warmup is not in it: an
export folds α into the weights.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaForCausalLM,
    LlamaMLP,
    LlamaModel,
    LlamaPreTrainedModel,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)
from transformers.models.olmo2.modeling_olmo2 import Olmo2Attention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from groundup.hf.configuration import GroundupConfig
from groundup.hf.placement import PLACEMENTS

# GroundupConfig.qk_norm → the stock attention that normalizes so.
_ATTENTION: dict[bool | str, type[nn.Module]] = {
    False: LlamaAttention,
    True: Qwen3Attention,
    "width": Olmo2Attention,
}


class GroundupDecoderLayer(GradientCheckpointingLayer):
    """An attention and a feed-forward branch, each in its placement.

    The norms are called as in Gemma 2 and OLMo 2: those before a branch `input_layernorm` and
    `pre_feedforward_layernorm`, those after it, or after the addition, `post_attention_layernorm`
    and `post_feedforward_layernorm`. A placement has those that it needs.
    """

    def __init__(self, config: GroundupConfig, layer_idx: int) -> None:
        super().__init__()
        placement = PLACEMENTS[config.placement]
        self.add = placement.add
        self.k = (2 * config.num_hidden_layers) ** 0.25
        self.self_attn = _ATTENTION[config.qk_norm](config, layer_idx)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = _norm(config, placement.before)
        self.post_attention_layernorm = _norm(config, placement.after)
        self.pre_feedforward_layernorm = _norm(config, placement.before)
        self.post_feedforward_layernorm = _norm(config, placement.after)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """[B, T, width] → [B, T, width]; `kwargs` are what a Llama's layer hands its attention."""

        def attend(x: Tensor) -> Tensor:
            return self.self_attn(hidden_states=x, **kwargs)[0]

        x = self.add(
            hidden_states, attend, self.input_layernorm, self.post_attention_layernorm, self.k
        )
        return self.add(
            x, self.mlp, self.pre_feedforward_layernorm, self.post_feedforward_layernorm, self.k
        )


def _norm(config: GroundupConfig, there: bool) -> nn.Module:
    return LlamaRMSNorm(config.hidden_size, config.rms_norm_eps) if there else nn.Identity()


class GroundupPreTrainedModel(LlamaPreTrainedModel):
    """What the classes have in common."""

    config_class = GroundupConfig
    _no_split_modules = ["GroundupDecoderLayer"]  # noqa: RUF012
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": GroundupDecoderLayer,
        "attentions": list(_ATTENTION.values()),
    }


class GroundupModel(GroundupPreTrainedModel, LlamaModel):
    """Tokens → the stream after the last layer and the final norm; called as `LlamaModel`."""

    def __init__(self, config: GroundupConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)  # LlamaModel's would build a Llama's layers
        self.padding_idx = config.pad_token_id
        self.vocab_size = config.vocab_size
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, self.padding_idx)
        self.layers = nn.ModuleList(
            GroundupDecoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.norm = LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()

    @property
    def residual_branches(self) -> list[str]:
        """Names of the modules that end the residual branches, for `groundup.attach`."""
        if PLACEMENTS[self.config.placement].ends_in_norm:
            return ["layers.{l}.post_attention_layernorm", "layers.{l}.post_feedforward_layernorm"]
        return ["layers.{l}.self_attn.o_proj", "layers.{l}.mlp.down_proj"]


class GroundupForCausalLM(GroundupPreTrainedModel, LlamaForCausalLM):
    """`GroundupModel` with a head; called as `LlamaForCausalLM`."""

    def __init__(self, config: GroundupConfig) -> None:
        LlamaPreTrainedModel.__init__(self, config)
        self.model = GroundupModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()
