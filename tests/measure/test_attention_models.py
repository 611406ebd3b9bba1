"""Attention in models: ours, PyTorch's and other libraries', by the hooks of an observer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model import ModelConfig, Transformer
from tests.measure.attention_loop import close, drawn, loop_of, seen, watched


@pytest.mark.parametrize("settings", [{}, {"kv_heads": 2, "qk_norm": True}])
def test_our_transformer(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Transformer(ModelConfig(vocab_size=50, width=32, layers=3, **settings))
    for p in model.parameters():
        p.data.mul_(4)  # far from attending evenly
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))
    plain, calls = model(tokens), []
    fused = F.scaled_dot_product_attention
    results = []

    def keeping(q: Tensor, k: Tensor, v: Tensor, **more: Any) -> Tensor:
        calls.append((q, k))
        return fused(q, k, v, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", keeping)
    found = watched(model, model.layers, lambda: results.append(model(tokens)))
    causal = torch.ones(9, 9).tril().bool().expand(2, 4, 9, 9)
    close(found, [loop_of(q, k, causal) for q, k in calls])
    assert torch.equal(results[0], plain)


def test_autocast() -> None:
    model = Transformer(ModelConfig(vocab_size=50, width=32, layers=2))
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))

    def call() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            model(tokens)

    full = watched(model, model.layers, lambda: model(tokens))
    close(watched(model, model.layers, call), full, rel=0.02)


def hugging_face(kind: str, implementation: str) -> tuple[nn.Module, nn.ModuleList]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "llama":
        config = transformers.LlamaConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
            attn_implementation=implementation,
        )
        model = transformers.LlamaForCausalLM(config)
        return model.eval(), model.model.layers
    config = transformers.GPT2Config(
        vocab_size=50,
        n_positions=16,
        n_embd=32,
        n_layer=3,
        n_head=4,
        initializer_range=0.3,
        attn_implementation=implementation,
    )
    model = transformers.GPT2LMHeadModel(config)
    return model.eval(), model.transformer.h


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_hugging_face_both_ways(kind: str, padded: bool) -> None:
    """Fused and by hand the same, and as the latter returns it."""
    inputs = {"input_ids": torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))}
    if padded:
        inputs["attention_mask"] = torch.ones(2, 9, dtype=torch.long)
        inputs["attention_mask"][1, :3] = 0
    found = {}
    for implementation in ("sdpa", "eager"):
        model, blocks = hugging_face(kind, implementation)
        found[implementation] = watched(model, blocks, lambda: model(**inputs))  # noqa: B023
    close(found["sdpa"], found["eager"], rel=1e-4)

    if not padded:  # Llama's softmax in float32 turns float64's least number into -inf, and nan
        model.double()
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions
    there = inputs.get("attention_mask", torch.ones(2, 9)).bool()
    expected = []
    for layer in attentions:
        entropies, logs = [], []
        for b in range(2):
            for t in range(9):
                keys = [s for s in range(t + 1) if there[b, s]]
                if not keys:
                    continue
                for head in layer[b, :, t].tolist():
                    entropies.append(-sum(head[s] * math.log(head[s]) for s in keys))
                    logs.append(math.log(len(keys)))
        expected.append((sum(entropies) / len(entropies), sum(entropies) / sum(logs)))
    close([one[:2] for one in found["sdpa"]], expected, rel=1e-4)


def test_the_logits_of_gpt2() -> None:
    """From its projections, by hand."""
    model, blocks = hugging_face("gpt2", "sdpa")
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))
    projected: list[Tensor] = []
    for block in blocks:
        block.attn.c_attn.register_forward_hook(lambda m, i, out: projected.append(out))
    found = watched(model, blocks, lambda: model(tokens))
    causal = torch.ones(9, 9).tril().bool().expand(2, 4, 9, 9)
    for numbers_, out in zip(found, projected, strict=True):
        q, k, _ = (x.unflatten(-1, (4, 8)).transpose(1, 2) for x in out.split(32, -1))
        close(numbers_, loop_of(q, k, causal), rel=1e-4)


@pytest.mark.parametrize("fused", [True, False])
def test_timm(fused: bool) -> None:
    pytest.importorskip("tests.torchvision_shim")
    vision = pytest.importorskip("timm.models.vision_transformer")
    torch.manual_seed(0)
    model = vision.VisionTransformer(
        img_size=8, patch_size=4, embed_dim=16, depth=3, num_heads=2, num_classes=5
    ).eval()
    projected: list[Tensor] = []
    for block in model.blocks:
        block.attn.fused_attn = fused
        block.attn.qkv.weight.data.mul_(20)
        block.attn.qkv.register_forward_hook(lambda m, i, out: projected.append(out))
    images = drawn(2, 3, 8, 8, dtype=torch.float32)
    found = watched(model, model.blocks, lambda: model(images))
    for numbers_, out in zip(found, projected, strict=True):
        q, k, _ = out.unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        close(numbers_, loop_of(q, k), rel=1e-4)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_multi_head_attention(training: bool, weights: bool, masked: bool) -> None:
    """PyTorch's own module, which otherwise has a fused path, and asks modes only as a whole."""
    torch.manual_seed(0)
    module = nn.MultiheadAttention(16, 2, batch_first=True).train(training)
    module.in_proj_weight.data.mul_(5)
    x, y = drawn(3, 5, 16, dtype=torch.float32), drawn(3, 6, 16, seed=1, dtype=torch.float32)
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[1, 4:] = masked
    settings = {"need_weights": weights, "key_padding_mask": padding if masked else None}
    expected = module(x, y, y, **settings)[0]
    results = []
    with torch.no_grad():
        found = seen(lambda: results.append(module(x, y, y, **settings)[0]))
    torch.testing.assert_close(results[0], expected)
    q, k = (
        F.linear(z, w).unflatten(-1, (2, 8)).transpose(1, 2)
        for z, w in zip((x, y), module.in_proj_weight.chunk(3)[:2], strict=True)
    )
    close(found, loop_of(q, k, ~padding[:, None, None].expand(3, 2, 5, 6)), rel=1e-4)


def test_encoder_layers_of_torch() -> None:
    """Without gradients they would take a fused path that nothing can look into."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x = drawn(3, 5, 16, dtype=torch.float32)
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[2, 3:] = True
    results = []
    found = watched(
        model, model.layers, lambda: results.append(model(x, src_key_padding_mask=padding))
    )
    assert all(0 < uniform <= 1 for _, uniform, _ in found)
    with torch.no_grad():
        expected = model(x, src_key_padding_mask=padding)
    kept = ~padding
    torch.testing.assert_close(results[0][kept], expected[kept], rtol=1e-4, atol=1e-5)
