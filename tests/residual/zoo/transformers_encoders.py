"""Encoders, encoder-decoders and vision models of Hugging Face transformers."""

from __future__ import annotations

from typing import Any

from tests.residual.zoo.specimen import Specimen, seeded, tokens
from tests.residual.zoo.transformers_lm import from_config

_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
_TEXT = _SIZES | {"vocab_size": 64, "max_position_embeddings": 32}
_IMAGE = _SIZES | {"image_size": 8, "patch_size": 4}
_BOTH = {
    "vocab_size": 64,
    "d_model": 16,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
}
_T5 = {
    "vocab_size": 64,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}


def _text() -> dict[str, Any]:
    return {"input_ids": tokens()}


def _image() -> dict[str, Any]:
    return {"pixel_values": seeded(2, 3, 8, 8)}


def _pair() -> dict[str, Any]:
    return {"input_ids": tokens(), "decoder_input_ids": tokens(length=5), "use_cache": False}


def _encoder(name: str, family: str, stack: str, of: dict[str, Any] = _TEXT, **more: Any):
    return Specimen(
        name=name,
        library="transformers",
        build=from_config(f"{family}Config", f"{family}ForMaskedLM", **of),
        inputs=_text,
        stacks={stack: 3},
        **{"norms": ("attention.output.LayerNorm", "output.LayerNorm")} | more,
    )


def _encoder_decoder(
    name: str,
    family: str,
    of: dict[str, Any],
    *,
    stacks: tuple[str, str] = ("model.encoder.layers", "model.decoder.layers"),
    inputs=_pair,
    **more: Any,
) -> Specimen:
    return Specimen(
        name=name,
        library="transformers",
        build=from_config(f"{family}Config", f"{family}ForConditionalGeneration", **of),
        inputs=inputs,
        stacks=dict(zip(stacks, (3, 2), strict=True)),
        branches=dict(zip(stacks, (2, 3), strict=True)),
        **more,
    )


def _vision(
    name: str, family: str, stack: str, of: dict[str, Any], head: str = "Model", **more: Any
) -> Specimen:
    return Specimen(
        name=name,
        library="transformers",
        build=from_config(f"{family}Config", f"{family}{head}", **of),
        inputs=_image,
        stacks={stack: 3},
        **more,
    )


def _two_towers(
    name: str, family: str, vision: dict[str, Any], inputs, **settings: Any
) -> Specimen:
    return Specimen(
        name=name,
        library="transformers",
        build=from_config(
            f"{family}Config",
            f"{family}Model",
            text_config=_TEXT | _SPECIAL | {"projection_size": 16},
            vision_config=vision | {"num_hidden_layers": 2},
            **settings,
        ),
        inputs=inputs,
        stacks={"text_model.encoder.layers": 3, "vision_model.encoder.layers": 2},
    )


def _naflex() -> dict[str, Any]:
    import torch

    return _text() | {
        "pixel_values": seeded(2, 4, 48),
        "pixel_attention_mask": torch.ones(2, 4),
        "spatial_shapes": torch.tensor([[2, 2], [2, 2]]),
    }


def _layer_scale(layer):
    return [layer.layer_scale1.lambda1, layer.layer_scale2.lambda1]


_DEBERTA = _TEXT | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_DINOV2 = {k: v for k, v in _IMAGE.items() if k != "intermediate_size"}

_OF_TEXT = [
    _encoder("BERT", "Bert", "bert.encoder.layer"),
    Specimen(
        name="BERT as a decoder, cross attention",
        library="transformers",
        build=from_config(
            "BertConfig", "BertLMHeadModel", is_decoder=True, add_cross_attention=True, **_TEXT
        ),
        inputs=lambda: {
            "input_ids": tokens(),
            "encoder_hidden_states": seeded(2, 5, 16),
            "use_cache": False,
        },
        stacks={"bert.encoder.layer": 3},
        branches=3,
        norms=(
            "attention.output.LayerNorm",
            "crossattention.output.LayerNorm",
            "output.LayerNorm",
        ),
    ),
    _encoder("RoBERTa", "Roberta", "roberta.encoder.layer"),
    _encoder("XLM-RoBERTa", "XLMRoberta", "roberta.encoder.layer"),
    _encoder("ELECTRA", "Electra", "electra.encoder.layer", _TEXT | {"embedding_size": 8}),
    _encoder("DeBERTa", "Deberta", "deberta.encoder.layer", _DEBERTA),
    _encoder("DeBERTa-v2, -v3", "DebertaV2", "deberta.encoder.layer", _DEBERTA),
    _encoder(
        "DistilBERT",
        "DistilBert",
        "distilbert.transformer.layer",
        {
            "vocab_size": 64,
            "dim": 16,
            "hidden_dim": 24,
            "n_layers": 3,
            "n_heads": 2,
            "max_position_embeddings": 32,
        },
        norms=("sa_layer_norm", "output_layer_norm"),
    ),
    _encoder(
        "ModernBERT",
        "ModernBert",
        "model.layers",
        _TEXT | _SPECIAL | {"cls_token_id": 1, "sep_token_id": 2},
        norms=(),
    ),
]
_OF_BOTH = [
    _encoder_decoder("T5", "T5", _T5, stacks=("encoder.block", "decoder.block")),
    _encoder_decoder(
        "T5 v1.1",
        "T5",
        _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        stacks=("encoder.block", "decoder.block"),
    ),
    _encoder_decoder("mT5", "MT5", _T5, stacks=("encoder.block", "decoder.block")),
    _encoder_decoder(
        "BART",
        "Bart",
        _BOTH | {"max_position_embeddings": 32},
        norms={
            "model.encoder.layers": ("self_attn_layer_norm", "final_layer_norm"),
            "model.decoder.layers": (
                "self_attn_layer_norm",
                "encoder_attn_layer_norm",
                "final_layer_norm",
            ),
        },
    ),
    _encoder_decoder("mBART", "MBart", _BOTH | {"max_position_embeddings": 32}),
    _encoder_decoder(
        "Whisper",
        "Whisper",
        _BOTH
        | _SPECIAL
        | {
            "num_mel_bins": 8,
            "max_source_positions": 8,
            "max_target_positions": 16,
            "decoder_start_token_id": 1,
        },
        inputs=lambda: {
            "input_features": seeded(2, 8, 16),
            "decoder_input_ids": tokens(length=5),
            "use_cache": False,
        },
    ),
]
_OF_IMAGES = [
    _vision("ViT", "ViT", "vit.layers", _IMAGE | {"num_labels": 5}, "ForImageClassification"),
    _vision("DeiT", "DeiT", "deit.layers", _IMAGE | {"num_labels": 5}, "ForImageClassification"),
    _vision(
        "DINOv2",
        "Dinov2",
        "encoder.layer",
        _DINOV2,
        gains=_layer_scale,
        remark="before LayerScale",
    ),
    _vision(
        "DINOv2, gated",
        "Dinov2",
        "encoder.layer",
        _DINOV2 | {"use_swiglu_ffn": True},
        gains=_layer_scale,
        remark="before LayerScale",
    ),
    _vision(
        "DINOv2 with registers",
        "Dinov2WithRegisters",
        "encoder.layer",
        _DINOV2,
        gains=_layer_scale,
        remark="before LayerScale",
    ),
    _vision(
        "DINOv3",
        "DINOv3ViT",
        "model.layer",
        _IMAGE,
        gains=_layer_scale,
        remark="before LayerScale",
    ),
    _vision(
        "DINOv3, gated",
        "DINOv3ViT",
        "model.layer",
        _IMAGE | {"use_gated_mlp": True},
        gains=_layer_scale,
        remark="before LayerScale",
    ),
    _two_towers("CLIP", "CLIP", _IMAGE, lambda: _text() | _image(), projection_dim=16),
    _two_towers("SigLIP", "Siglip", _IMAGE, lambda: _text() | _image()),
    _two_towers("SigLIP 2", "Siglip2", _SIZES | {"patch_size": 4, "num_patches": 4}, _naflex),
]

SPECIMENS = [*_OF_TEXT, *_OF_BOTH, *_OF_IMAGES]
