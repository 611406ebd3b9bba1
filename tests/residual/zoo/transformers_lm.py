"""Language models of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from tests.residual.zoo.specimen import Specimen, tokens

_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_COMMON = _SPECIAL | {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
}
_PLAIN = {k: v for k, v in _COMMON.items() if k not in ("intermediate_size", "num_key_value_heads")}
_GPT2 = _SPECIAL | {"vocab_size": 64, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32}


def from_config(config: str, model: str, **settings: Any) -> Callable[[], nn.Module]:
    """Makes a transformers model of random weights; the library is imported when it is called."""

    def build() -> nn.Module:
        import tests.torchvision_shim  # noqa: F401, I001
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**settings))

    return build


def _model(
    name: str,
    family: str,
    settings: dict[str, Any] | None = None,
    *,
    of: dict[str, Any] = _COMMON,
    stack: str = "model.layers",
    config: str = "",
    head: str = "",
    **more: Any,
) -> Specimen:
    return Specimen(
        name=name,
        library="transformers",
        build=from_config(
            config or f"{family}Config", head or f"{family}ForCausalLM", **of | (settings or {})
        ),
        inputs=lambda: {"input_ids": tokens(), "use_cache": False},
        stacks={stack: 3},
        **more,
    )


_HEAD_DIM = {"head_dim": 8}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}
_FIRST_DENSE = _EXPERTS | {"n_routed_experts": 4, "first_k_dense_replace": 1}
_LATENT = _FIRST_DENSE | {
    "n_shared_experts": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 2.0,
    "original_max_position_embeddings": 16,
}

_LIKE_LLAMA = [
    _model("Llama", "Llama"),
    _model("Mistral", "Mistral"),
    _model("Ministral 3", "Ministral3", {"rope_parameters": {"llama_4_scaling_beta": 0.1} | _YARN}),
    _model("Qwen2", "Qwen2"),
    _model("Qwen3", "Qwen3", _HEAD_DIM),
    _model("Gemma", "Gemma", _HEAD_DIM),
    _model("Phi-3", "Phi3"),
    _model("OLMo", "Olmo"),
    _model("GLM", "Glm", _HEAD_DIM),
    _model(
        "Granite",
        "Granite",
        {"residual_multiplier": 0.3},
        gains=lambda layer: [layer.residual_multiplier] * 2,
        remark="keeps its residual multiplier",
    ),
    _model("SmolLM3", "SmolLM3"),
    _model("StarCoder2", "Starcoder2"),
    _model("StableLM", "StableLm", {"use_parallel_residual": False}),
    _model("StableLM, parallel", "StableLm", {"use_parallel_residual": True}),
    _model("Cohere", "Cohere"),
    _model("Cohere2", "Cohere2"),
    _model("Nemotron", "Nemotron"),
    _model("Helium", "Helium", _HEAD_DIM),
    _model("Seed-OSS", "SeedOss", _HEAD_DIM),
    _model("ERNIE 4.5", "Ernie4_5", _HEAD_DIM),
    _model("nanochat (transformers)", "NanoChat"),
    _model("Phi", "Phi"),
]
_POST_NORM = [
    _model("Gemma 2", "Gemma2", _HEAD_DIM),
    _model("Gemma 3", "Gemma3", _HEAD_DIM, config="Gemma3TextConfig"),
    _model("OLMo 2", "Olmo2"),
    _model("OLMo 3", "Olmo3"),
    _model("GLM-4", "Glm4", _HEAD_DIM),
]
_MIXTURES = [
    _model("Mixtral", "Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    _model(
        "Qwen2 MoE",
        "Qwen2Moe",
        _EXPERTS
        | {"num_experts": 4, "shared_expert_intermediate_size": 12, "mlp_only_layers": [0]},
    ),
    _model(
        "Qwen3 MoE", "Qwen3Moe", _EXPERTS | _HEAD_DIM | {"num_experts": 4, "mlp_only_layers": [0]}
    ),
    _model("OLMoE", "Olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    _model("DeepSeek-V2", "DeepseekV2", _LATENT),
    _model("DeepSeek-V3", "DeepseekV3", _LATENT | {"n_group": 2, "topk_group": 1}),
    _model("GLM-4.5 MoE", "Glm4Moe", _FIRST_DENSE | _HEAD_DIM),
    _model(
        "gpt-oss",
        "GptOss",
        _HEAD_DIM | {"num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": _YARN},
    ),
]
_OLDER = [
    _model("GPT-2", "GPT2", of=_GPT2, stack="transformer.h", head="GPT2LMHeadModel"),
    _model("GPT-BigCode (StarCoder)", "GPTBigCode", of=_GPT2, stack="transformer.h"),
    _model("GPT-J", "GPTJ", {"rotary_dim": 4}, of=_GPT2, stack="transformer.h"),
    _model("GPT-NeoX (Pythia)", "GPTNeoX", stack="gpt_neox.layers"),
    _model(
        "GPT-NeoX, sequential", "GPTNeoX", {"use_parallel_residual": False}, stack="gpt_neox.layers"
    ),
    _model(
        "OPT",
        "OPT",
        {"ffn_dim": 24, "word_embed_proj_dim": 16},
        of=_PLAIN,
        stack="model.decoder.layers",
    ),
    _model(
        "OPT-350m (Post-LN)",
        "OPT",
        {"ffn_dim": 24, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        of=_PLAIN,
        stack="model.decoder.layers",
        norms=("self_attn_layer_norm", "final_layer_norm"),
    ),
    _model("Falcon", "Falcon", {"ffn_hidden_size": 24}, of=_PLAIN, stack="transformer.h"),
    _model(
        "Falcon, sequential",
        "Falcon",
        {"ffn_hidden_size": 24, "parallel_attn": False, "bias": True, "alibi": True},
        of=_PLAIN,
        stack="transformer.h",
    ),
    _model(
        "Falcon, new decoder",
        "Falcon",
        {"ffn_hidden_size": 24, "new_decoder_architecture": True, "num_kv_heads": 1},
        of=_PLAIN,
        stack="transformer.h",
    ),
    _model(
        "BLOOM",
        "Bloom",
        of=_SPECIAL | {"vocab_size": 64, "hidden_size": 16, "n_layer": 3, "n_head": 2},
        stack="transformer.h",
    ),
    _model(
        "MPT",
        "Mpt",
        of=_SPECIAL
        | {"vocab_size": 64, "d_model": 16, "n_layers": 3, "n_heads": 2, "max_seq_len": 32},
        stack="transformer.blocks",
    ),
]

SPECIMENS = [*_LIKE_LLAMA, *_POST_NORM, *_MIXTURES, *_OLDER]
