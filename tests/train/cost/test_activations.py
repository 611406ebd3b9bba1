"""The closed forms against what PyTorch keeps: what it hands to saved_tensors_hooks, and all bytes
that are alive after the forward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.model import ModelConfig, Transformer, losses
from groundup.train.cost import Activations, LiveBytes
from groundup.train.cost.head import HeadCost
from groundup.train.recompute import recompute
from groundup.train.setup import compute_precision

SEQUENCES, LENGTH = 3, 48
BASE = ModelConfig(vocab_size=300, width=48, layers=3, heads=4)
CPU = torch.device("cpu")


def rows(config: ModelConfig, sequences: int, length: int) -> Tensor:
    return torch.randint(config.vocab_size or 0, (sequences, length + 1))


def casts(model: Transformer, precision: str, what: str) -> int:
    """Bytes of the bf16 copies of matrices that the backward needs: not of the head's."""
    if precision == "float32":
        return 0
    inside = model.layers if what == "none" else []
    kept = [p for layer in inside for p in layer.parameters() if p.ndim == 2]
    return 2 * sum(p.numel() for p in kept)


def saved(model: Transformer, tokens: Tensor, precision: str) -> int:
    """Bytes of the storages that the graph of the loss keeps, but for those of parameters."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    found: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        found.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, compute_precision(precision, CPU):
        model(tokens[:, :-1], tokens[:, 1:])
    return sum(t.untyped_storage().nbytes() for key, t in found.items() if key not in own)


def planned(
    model: Transformer, precision: str, sequences: int, length: int, **settings: Any
) -> float:
    config = model.config
    a = Activations.of(config, precision, fused_norms=False, **settings)
    tokens = sequences * length
    each = config.layers * a.layer + a.ends
    head = HeadCost.of(config, precision, tokens, "cpu")
    what = settings.get("recompute", "none")
    return tokens * each + length * a.rotary + head.kept + casts(model, precision, what)


SHAPES = {
    "pre": BASE,
    "wide": replace(BASE, width=96, layers=2, vocab_size=64, feed_forward=200),
    "grouped": replace(BASE, kv_heads=1),
    "tied": replace(BASE, tied=True),
    "large vocabulary, z-loss": replace(BASE, vocab_size=4000, z_loss=1e-4, layers=1),
    "qk-norm": replace(BASE, qk_norm=True, kv_heads=2),
    "qk-norm of all heads": replace(BASE, qk_norm="width", kv_heads=2),
    **{name: replace(BASE, placement=name) for name in ("post", "sandwich", "deepnorm", "lns")},
    "output": replace(BASE, placement="output", kv_heads=2),
    "rezero": replace(BASE, gain="rezero"),
    "layerscale after a norm": replace(BASE, gain="layerscale", placement="sandwich"),
    "drop_path": replace(BASE, drop_path=0.1),
}


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_what_is_kept_for_the_backward(shape: str, precision: str) -> None:
    model = Transformer(SHAPES[shape])
    found = saved(model, rows(model.config, SEQUENCES, LENGTH), precision)
    want = planned(model, precision, SEQUENCES, LENGTH, compiled=False)
    assert want == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_what_the_loss_of_whole_logits_takes(precision: str, z_loss: float) -> None:
    """As of a model of transformers: beside the cast of the weight, the input and the targets."""
    logits, targets = torch.zeros(40, 9000, requires_grad=True), torch.zeros(40, dtype=torch.int64)
    config = replace(BASE, vocab_size=9000, z_loss=z_loss, hf_config={"model_type": "llama"})
    want = HeadCost.of(config, precision, 40)
    with LiveBytes() as live:
        whole = logits.bfloat16() if precision == "bf16" else 1 * logits
        loss = losses(whole, targets, z_loss)
        del whole
        assert live.now == pytest.approx(want.kept, rel=0.01)
        assert live.peak == pytest.approx(want.forward, rel=0.01)
        live.restart()
        loss.total.backward()
        assert live.peak <= 1.01 * want.backward + logits.nbytes


@pytest.mark.parametrize(("sequences", "length"), [(1, 16), (7, 16), (1, 130)])
def test_it_follows_micro_batch_and_length(sequences: int, length: int) -> None:
    model = Transformer(BASE)
    found = saved(model, rows(BASE, sequences, length), "bf16")
    want = planned(model, "bf16", sequences, length, compiled=False)
    assert want == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("what", ["full", "ops"])
@pytest.mark.parametrize("placement", ["pre", "sandwich"])
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_what_is_kept_when_layers_compute_again(what: str, precision: str, placement: Any) -> None:
    """Not by the hooks, which do not see what selective checkpointing stores."""
    model = Transformer(replace(BASE, placement=placement))
    tokens = rows(BASE, SEQUENCES, LENGTH)
    want = planned(model, precision, SEQUENCES, LENGTH, compiled=False, recompute=what)
    recompute(model.layers, what)
    with LiveBytes() as live:
        live.add([*model.parameters(), tokens])
        before = live.now
        with compute_precision(precision, CPU):
            losses = model(tokens[:, :-1], tokens[:, 1:])
        found = live.now - before
    del losses
    assert want == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize("gain", ["none", "layerscale"])
def test_compiled_layers_keep_what_the_plan_says(gain: Any) -> None:
    """By the partitioner alone: the code that is then made of it keeps the same."""
    config = replace(BASE, layers=2, kv_heads=2, gain=gain)
    model = Transformer(config)
    for layer in model.layers:
        layer.compile(backend="aot_eager_decomp_partition")
    found = saved(model, rows(config, SEQUENCES, LENGTH), "bf16")
    want = planned(model, "bf16", SEQUENCES, LENGTH, compiled=True)
    assert want == pytest.approx(found, rel=0.01)


def test_live_bytes_count_storages_once_and_forget_them() -> None:
    with LiveBytes() as live:
        x = torch.zeros(1000)
        view = x.view(10, 100)[1:]
        y = view * 2
        del x
        assert live.now == 4000 + 3600
        del view
        assert live.now == 3600
        del y
    assert (live.now, live.peak) == (0, 7600)
