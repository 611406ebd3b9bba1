"""What a decoder is, as transformers writes it into a config.json."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import LlamaConfig

from groundup._check import count, positive, unknown, within
from groundup.hf.placement import PLACEMENTS


class GroundupConfig(LlamaConfig):
    """A Llama's configuration and the two things in which these decoders differ from it.

    Args:
        placement: where a layer normalizes: "pre", "post", "sandwich", "deepnorm" or "output".
        qk_norm: RMSNorm of queries and keys before the rotation: over each head (true, as Qwen3),
            over all heads together ("width", as OLMo 2), or none (false).

    The others are `LlamaConfig`'s, and so is what `others` may hold.

    Raises:
        ValueError: a field is out of range or does not fit another; the message names it.
    """

    model_type = "groundup"
    # Llama's plan would normalize parts of queries and keys as if they were the whole.
    base_model_tp_plan: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        vocab_size: int = 32000,
        hidden_size: int = 768,
        intermediate_size: int = 2048,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        num_key_value_heads: int | None = None,
        max_position_embeddings: int = 2048,
        rms_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        placement: str = "pre",
        qk_norm: bool | str = False,
        pad_token_id: int | None = None,
        bos_token_id: int | None = None,
        eos_token_id: int | list[int] | None = None,
        tie_word_embeddings: bool = False,
        rope_parameters: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        for field, value in {
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
            "max_position_embeddings": max_position_embeddings,
        }.items():
            count(field, value)
        positive("rms_norm_eps", rms_norm_eps)
        within("initializer_range", initializer_range, 0.0, 1.0)
        if placement not in PLACEMENTS:
            raise unknown("placement", placement, PLACEMENTS)
        if qk_norm != "width" and not isinstance(qk_norm, bool):
            raise ValueError(f"qk_norm={qk_norm!r} is not valid: it must be true, false or 'width'")
        _check_heads(hidden_size, num_attention_heads, num_key_value_heads, others.get("head_dim"))
        self.placement = placement
        self.qk_norm = qk_norm
        super().__init__(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            num_hidden_layers=num_hidden_layers,
            num_attention_heads=num_attention_heads,
            num_key_value_heads=num_key_value_heads,
            max_position_embeddings=max_position_embeddings,
            rms_norm_eps=rms_norm_eps,
            initializer_range=initializer_range,
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            tie_word_embeddings=tie_word_embeddings,
            rope_parameters=rope_parameters,
            **others,
        )


def _check_heads(width: int, heads: int, kv_heads: int | None, head_dim: int | None) -> None:
    if width % heads:
        raise ValueError(
            f"num_attention_heads={heads} is not valid: it must divide hidden_size={width}"
        )
    if kv_heads is not None and heads % count("num_key_value_heads", kv_heads):
        raise ValueError(
            f"num_key_value_heads={kv_heads} is not valid: it must divide "
            f"num_attention_heads={heads}"
        )
    size = width // heads if head_dim is None else count("head_dim", head_dim)
    if size % 2:
        raise ValueError(
            f"num_attention_heads={heads} is not valid: rotary positions turn pairs, and heads "
            f"have the size {size}, which is not even"
        )
