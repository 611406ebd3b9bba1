"""A decoder and the model of transformers that it becomes give the same logits."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
import torch

import groundup as gu
from groundup.export import as_hugging_face
from groundup.model import PLACEMENTS
from groundup.model.config import InitializationName
from tests.export.models import (
    CLASSES,
    LAYERS,
    QK_NORMS,
    STOCK,
    by_recomputation,
    decoder,
    difference,
    some_tokens,
)

# Every initialization, and with it every pair of tied and grouped.
SETTINGS = [
    {"init": init, "tied": tied, "kv_heads": kv_heads}
    for init, (tied, kv_heads) in zip(
        get_args(InitializationName), itertools.product((False, True), (None, 2)), strict=True
    )
]


@pytest.mark.parametrize("qk_norm", QK_NORMS)
@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings["init"])
@pytest.mark.filterwarnings("ignore:.*look trained")
def test_logits_in_the_middle_of_warmup(placement: str, qk_norm: Any, settings: Any) -> None:
    model = decoder(placement, qk_norm, **settings)
    tokens = some_tokens()
    without = model(tokens)
    gu.attach(model, gu.depth.linear(T=4)).at(3)
    exported = as_hugging_face(model, [0.75, 0.375, 0.25])
    assert type(exported).__name__ == CLASSES.get((placement, qk_norm), "GroundupForCausalLM")
    assert difference(exported(tokens).logits, model(tokens)) < 1e-5
    assert difference(without, model(tokens)) > 1e-3


@pytest.mark.parametrize("qk_norm", QK_NORMS)
@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
@pytest.mark.filterwarnings("ignore:.*look trained")
def test_logits_without_warmup_and_at_its_ends(placement: str, qk_norm: Any) -> None:
    model = decoder(placement, qk_norm)
    tokens = some_tokens()
    without = model(tokens)
    full = as_hugging_face(model, [1.0] * LAYERS)
    assert difference(full(tokens).logits, without) < 1e-5
    warmup = gu.attach(model, gu.depth.linear(T=4))
    assert difference(as_hugging_face(model, [0.0] * LAYERS)(tokens).logits, model(tokens)) < 1e-5
    warmup.at(12)
    assert torch.equal(model(tokens), without)


@pytest.mark.parametrize("gain", ["rezero", "layerscale"])
@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
@pytest.mark.filterwarnings("ignore:.*look trained")
def test_gains_are_multiplied_into_what_a_stock_model_has(placement: str, gain: str) -> None:
    model = decoder(placement, False, gain=gain, gain_init=0.6, drop_path=0.3)
    tokens = some_tokens()
    without = decoder(placement, False)(tokens)
    assert difference(as_hugging_face(model, [1.0] * LAYERS)(tokens).logits, model(tokens)) < 1e-5
    warmup = gu.attach(model, gu.depth.linear(T=4))
    warmup.at(3)
    exported = as_hugging_face(model, [0.75, 0.375, 0.25])
    assert type(exported).__name__ == CLASSES.get((placement, False), "GroundupForCausalLM")
    assert difference(exported(tokens).logits, model(tokens)) < 1e-5
    assert difference(without, model(tokens)) > 1e-3
    warmup.fold_()  # α alone: the gains stay the model's own
    assert difference(exported(tokens).logits, model(tokens)) < 1e-5


@pytest.mark.parametrize(("placement", "qk_norm"), [*STOCK, ("post", False), ("sandwich", True)])
def test_generating_with_a_cache_is_recomputing(placement: str, qk_norm: Any) -> None:
    model = decoder(placement, qk_norm)
    exported = as_hugging_face(model, [1.0] * LAYERS, max_position_embeddings=64)
    tokens = some_tokens(rows=1, length=5)
    wanted = by_recomputation(model, tokens, new=20)
    for use_cache in (True, False):
        found = exported.generate(tokens, max_new_tokens=20, do_sample=False, use_cache=use_cache)
        assert found.tolist() == wanted.tolist()


def test_nothing_else_is_changed() -> None:
    model = decoder("sandwich", False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    exported = as_hugging_face(model, [0.5, 1.0, 0.25])
    assert torch.equal(torch.random.get_rng_state(), state)
    exported.to(torch.bfloat16)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name]), name
    assert not exported.training


def test_settings_go_into_the_configuration() -> None:
    for placement, qk_norm in STOCK:
        model = decoder(placement, qk_norm)
        none = as_hugging_face(model, [1.0] * LAYERS).config
        assert (none.bos_token_id, none.eos_token_id, none.pad_token_id) == (None, None, None)
        some = as_hugging_face(
            model, [1.0] * LAYERS, max_position_embeddings=77, eos_token_id=3, bos_token_id=4
        ).config
        found = (some.max_position_embeddings, some.eos_token_id, some.bos_token_id)
        assert (*found, some.pad_token_id) == (77, 3, 4, None)


@pytest.mark.parametrize("alphas", [[1.0, 1.0], [1.0] * 4, [1.0, float("nan"), 1.0]])
def test_alphas_that_do_not_fit_are_refused(alphas: list[float]) -> None:
    with pytest.raises(ValueError, match="alphas=.* is not valid: .* each of 3 layers"):
        as_hugging_face(decoder("pre", False), alphas)
