"""Where the residual branches of known architectures end: a table, one row per class of layer.

A row is found by the class of a layer, so it holds wherever the layer stands: under a language
modelling head, a classifier, an adapter's or a parallelizer's wrapper. A row is written for the
library's own class; a subclass whose `forward` is its own is another architecture and unknown.

Each row was read off the layer's `forward` (transformers 5.23, timm 1.0.31, torch 2.13, torchtitan
0.2.2 and of August 2026) and is run by a specimen in ``tests/residual/zoo``; docs/architectures.md
lists them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class End:
    """The last operation of a branch before the addition, or one that commutes with what follows.

    (Dropout, LayerScale and a fixed multiplier do: γ·(α·y) = α·(γ·y).)

    Attributes:
        path: the module's name inside the layer; ``*`` stands for one component of it.
        fold: names inside the layer of the parameters, or of the modules with all their parameters,
            that α is multiplied into by folding; those that a layer lacks are left out, one must
            be there. Empty: the module's own parameters.
        optional: the module may be absent, or not run in a forward in which its layer does (cross
            attention without an encoder).
    """

    path: str
    fold: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Layer:
    """A row of the table.

    Attributes:
        ends: one for each branch.
        hold: attributes of the layer and the values they are held at while the branches are
            scaled: what switches a fused path off that would bypass an end.
    """

    ends: tuple[End, ...]
    hold: Mapping[str, Any] = field(default_factory=dict)


def _layer(*ends: str | End, **hold: Any) -> Layer:
    return Layer(tuple(End(e) if isinstance(e, str) else e for e in ends), hold)


def _rows(row: Layer, names: str) -> dict[str, Layer]:
    return dict.fromkeys(names.split(), row)


# A feed-forward branch that may be a mixture of experts ends in the module as a whole. The experts'
# weights stand in one 3-D parameter, shared experts in modules of their own; routing weights and
# gates multiply what comes after them and commute.
_MIXTURE = End(
    "mlp",
    fold=(
        "mlp.down_proj",
        "mlp.experts.down_proj",
        "mlp.shared_expert.down_proj",
        "mlp.shared_experts.down_proj",
    ),
)
# The router's scores come out beside the mixture: the experts alone return a tensor.
_GPT_OSS = End("mlp.experts", fold=("mlp.experts.down_proj", "mlp.experts.down_proj_bias"))
# A plain or a gated feed-forward module, by configuration.
_PLAIN_OR_GATED = End("mlp", fold=("mlp.fc2", "mlp.down_proj"))
_GPT2 = _layer("attn.c_proj", End("crossattention.c_proj", optional=True), "mlp.c_proj")
# Post-LN: the norm stands after the addition, so that the projection before it ends the branch.
_BERT = _layer(
    "attention.output.dense", End("crossattention.output.dense", optional=True), "output.dense"
)
_T5 = _layer(
    "layer.*.SelfAttention.o",
    End("layer.*.EncDecAttention.o", optional=True),
    "layer.*.DenseReluDense.wo",
)

_TRANSFORMERS: dict[str, Layer] = {
    # Decoders. A fixed multiplier after the end (Granite) and two branches that stand side by side
    # (Cohere, StableLM's parallel residual) make no difference.
    **_rows(
        _layer("self_attn.o_proj", "mlp.down_proj"),
        """LlamaDecoderLayer MistralDecoderLayer Ministral3DecoderLayer Qwen2DecoderLayer
        Qwen3DecoderLayer GemmaDecoderLayer Phi3DecoderLayer OlmoDecoderLayer GlmDecoderLayer
        GraniteDecoderLayer SmolLM3DecoderLayer StableLmDecoderLayer CohereDecoderLayer
        Cohere2DecoderLayer NemotronDecoderLayer HeliumDecoderLayer SeedOssDecoderLayer
        Ernie4_5DecoderLayer""",
    ),
    # A norm after the projection sets the branch's size again: it is the end.
    **_rows(
        _layer("post_attention_layernorm", "post_feedforward_layernorm"),
        "Gemma2DecoderLayer Gemma3DecoderLayer Olmo2DecoderLayer Olmo3DecoderLayer",
    ),
    "Glm4DecoderLayer": _layer("post_self_attn_layernorm", "post_mlp_layernorm"),
    **_rows(
        _layer("self_attn.o_proj", _MIXTURE),
        """MixtralDecoderLayer Qwen2MoeDecoderLayer Qwen3MoeDecoderLayer OlmoeDecoderLayer
        DeepseekV2DecoderLayer DeepseekV3DecoderLayer Glm4MoeDecoderLayer""",
    ),
    "GptOssDecoderLayer": _layer("self_attn.o_proj", _GPT_OSS),
    "Starcoder2DecoderLayer": _layer("self_attn.o_proj", "mlp.c_proj"),
    "NanoChatDecoderLayer": _layer("self_attn.o_proj", "mlp.fc2"),
    "GPT2Block": _GPT2,
    "GPTBigCodeBlock": _GPT2,
    "GPTNeoXLayer": _layer("attention.dense", "mlp.dense_4h_to_h"),
    **_rows(_layer("self_attention.dense", "mlp.dense_4h_to_h"), "FalconDecoderLayer BloomBlock"),
    "GPTJBlock": _layer("attn.out_proj", "mlp.fc_out"),
    "MptBlock": _layer("attn.out_proj", "ffn.down_proj"),
    "PhiDecoderLayer": _layer("self_attn.dense", "mlp.fc2"),
    "OPTDecoderLayer": _layer("self_attn.out_proj", "fc2"),
    # Encoders of text, and encoder-decoders.
    **_rows(_BERT, "BertLayer RobertaLayer XLMRobertaLayer ElectraLayer"),
    **_rows(_layer("attention.output.dense", "output.dense"), "DebertaLayer DebertaV2Layer"),
    "TransformerBlock": _layer("attention.out_lin", "ffn.lin2"),  # DistilBERT
    "ModernBertEncoderLayer": _layer("attn.Wo", "mlp.Wo"),
    **_rows(_T5, "T5Block MT5Block"),
    **_rows(
        _layer("self_attn.out_proj", "fc2"),
        "BartEncoderLayer MBartEncoderLayer WhisperEncoderLayer",
    ),
    **_rows(
        _layer("self_attn.out_proj", End("encoder_attn.out_proj", optional=True), "fc2"),
        "BartDecoderLayer MBartDecoderLayer WhisperDecoderLayer",
    ),
    # Encoders of images.
    **_rows(_layer("attention.o_proj", "mlp.fc2"), "ViTLayer DeiTLayer"),
    **_rows(
        _layer("attention.o_proj", _PLAIN_OR_GATED),
        "Dinov2Layer Dinov2WithRegistersLayer DINOv3ViTLayer",
    ),
    **_rows(
        _layer("self_attn.out_proj", "mlp.fc2"),
        "CLIPEncoderLayer SiglipEncoderLayer Siglip2EncoderLayer",
    ),
}

_TIMM: dict[str, dict[str, Layer]] = {
    "timm.models.vision_transformer": {
        "Block": _layer("attn.proj", "mlp.fc2"),
        "ResPostBlock": _layer("norm1", "norm2"),
        # Attention and feed-forward stand side by side and, by configuration, share a projection:
        # what follows their sum is one module in either case.
        "ParallelScalingBlock": _layer(
            End("ls", fold=("out_proj", "attn_out_proj", "mlp_out_proj"))
        ),
        "DiffParallelScalingBlock": _layer("out_proj"),
        "ParallelThingsBlock": _layer("attns.*.attn.proj", "ffns.*.mlp.fc2"),
    },
    "timm.models.eva": {
        "EvaBlock": _layer("attn.proj", "mlp.fc2"),
        "EvaBlockPostNorm": _layer("norm1", "norm2"),
    },
    "timm.models.beit": {"Block": _layer("attn.proj", "mlp.fc2")},
}

# Attention reads the weights of its output projection and never calls it: the dropout after it is
# what runs. The encoder's layer also has a fused path for inference, which calls no module at all.
_SELF_ATTENTION = End("dropout1", fold=("self_attn.out_proj",))
_CROSS_ATTENTION = End("dropout2", fold=("multihead_attn.out_proj",))
_TORCH: dict[str, Layer] = {
    "TransformerEncoderLayer": _layer(_SELF_ATTENTION, "linear2", activation_relu_or_gelu=0),
    "TransformerDecoderLayer": _layer(_SELF_ATTENTION, _CROSS_ATTENTION, "linear2"),
}

_MINIMAL_GPT = _layer("attn.c_proj", "mlp.c_proj")

LAYERS: dict[str, dict[str, Layer]] = {
    "transformers": _TRANSFORMERS,
    **_TIMM,
    "torch.nn": _TORCH,
    "torchtitan.models.llama3": _rows(
        _layer("attention.wo", "feed_forward.w2"), "TransformerBlock Llama3TransformerBlock"
    ),
    "model": {"Block": _MINIMAL_GPT},  # nanoGPT's model.py
    "nanochat.gpt": {"Block": _MINIMAL_GPT},
}
"""Package or module → class name of a layer defined in it or below → its row."""


def layer_of(module: nn.Module) -> Layer | None:
    """The row of the table that describes this module; None if it is no known layer."""
    for cls in type(module).__mro__:
        row = _row(cls.__module__, cls.__name__)
        if row is not None:
            # FSDP2 makes a subclass without a forward; a forward of its own is somebody's variant.
            return row if _forward(type(module)) is _forward(cls) else None
    return None


def _forward(cls: type) -> Any:
    """What it computes: transformers puts a wrapper of its own around it in every subclass."""
    return inspect.unwrap(cls.forward) if hasattr(cls, "forward") else None


def _row(place: str, name: str) -> Layer | None:
    while place:
        if name in LAYERS.get(place, ()):
            return LAYERS[place][name]
        place = place.rpartition(".")[0]
    return None
