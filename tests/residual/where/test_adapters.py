"""PEFT: a branch that ends in an adapted module is scaled with its adapter, or that is refused."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import groundup as gu
import tests.torchvision_shim  # noqa: F401
from tests.residual.where.models import T, alphas, ends, hook_by_hand, llama, tokens

peft = pytest.importorskip("peft")

LAYERS = 3
STEPS = (0, 1, 3, 5, T * LAYERS)

KINDS = {
    "LoRA": {"target_modules": ["q_proj", "o_proj", "down_proj"]},
    "LoRA on q and v only": {"target_modules": ["q_proj", "v_proj"]},
    "LoRA on one of the two ends": {"target_modules": ["o_proj"]},
    "LoRA on everything": {"target_modules": "all-linear"},
    "DoRA": {"target_modules": ["o_proj", "down_proj"], "use_dora": True},
    "modules to save": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "an end to save": {"target_modules": ["q_proj"], "modules_to_save": ["down_proj"]},
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="peft")
        yield


def adapted(model: nn.Module, kind: str) -> nn.Module:
    # Adapters start as 0: drawn here, so that scaling them or not makes a difference.
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **KINDS[kind])
    )
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        if "modules_to_save" in name:
            nn.init.normal_(p, std=0.2)
    return model


def logits(model: nn.Module) -> Tensor:
    return model(input_ids=tokens()).logits


@pytest.mark.parametrize("kind", KINDS)
def test_attached_after_adapters_alpha_scales_base_and_adapter(kind: str) -> None:
    model = adapted(llama(LAYERS), kind)
    plain = copy.deepcopy(model)
    warmup = gu.attach(model, gu.depth.linear(T=T))
    for step in STEPS:
        warmup.at(step)
        model.zero_grad()
        expected = hook_by_hand(copy.deepcopy(plain), alphas(step, LAYERS))
        out, wanted = logits(model), logits(expected)
        torch.testing.assert_close(out, wanted)
        out.square().mean().backward()
        wanted.square().mean().backward()
        for (name, p), q in zip(model.named_parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, msg=f"{name}, step {step}")


def test_an_adapter_that_is_switched_off_leaves_the_scaled_base() -> None:
    model = adapted(llama(LAYERS), "LoRA")
    warmup = gu.attach(model, gu.depth.linear(T=T))
    warmup.at(3)
    expected = logits(hook_by_hand(llama(LAYERS), alphas(3, LAYERS)))
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), expected)
    assert not torch.allclose(logits(model), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_after_the_warmup_it_is_the_stock_model(kind: str) -> None:
    model = adapted(llama(LAYERS), kind)
    expected = logits(model)
    warmup = gu.attach(model, gu.depth.linear(T=T))
    logits(model)
    warmup.at(T * LAYERS)
    merged = model.merge_and_unload()
    torch.testing.assert_close(logits(merged), expected)
    for pair in ends(merged):
        assert {type(module) for module in pair} == {nn.Linear}


@pytest.mark.parametrize("kind", ["LoRA", "LoRA on one of the two ends", "DoRA", "an end to save"])
class TestAttachedBeforeAdapters:
    """The base would be scaled and its adapter not: said in the first forward and at every step."""

    def test_the_first_forward_says_so(self, kind: str) -> None:
        model = llama(LAYERS)
        gu.attach(model, gu.depth.linear(T=T))
        model = adapted(model, kind)
        with pytest.raises(RuntimeError, match=r"replaced by .* attach after adapters are added"):
            logits(model)

    def test_the_next_update_says_so(self, kind: str) -> None:
        model = llama(LAYERS)
        warmup = gu.attach(model, gu.depth.linear(T=T))
        logits(model)
        adapted(model, kind)
        with pytest.raises(RuntimeError, match=r"replaced by .* attach after adapters are added"):
            warmup.step()


def test_adapters_elsewhere_may_come_after() -> None:
    model = llama(LAYERS)
    warmup = gu.attach(model, gu.depth.linear(T=T))
    model = adapted(model, "LoRA on q and v only")
    plain = adapted(llama(LAYERS), "LoRA on q and v only")
    plain.load_state_dict(model.state_dict())
    warmup.at(3)
    expected = logits(hook_by_hand(plain, alphas(3, LAYERS)))
    torch.testing.assert_close(logits(model), expected)


def test_merging_during_the_warmup_is_said_at_the_next_update() -> None:
    model = adapted(llama(LAYERS), "LoRA")
    warmup = gu.attach(model, gu.depth.linear(T=T))
    warmup.at(3)
    logits(model)
    model.merge_and_unload()
    with pytest.raises(RuntimeError, match="replaced by a Linear"):
        warmup.step()


def test_merging_in_place_keeps_the_scaling() -> None:
    """`merge_adapter` adds the adapter to the base's weights and leaves the modules in place."""
    model = adapted(llama(LAYERS), "LoRA")
    warmup = gu.attach(model, gu.depth.linear(T=T))
    warmup.at(3)
    before = logits(model)
    model.merge_adapter()
    torch.testing.assert_close(logits(model), before)
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model), before)


def test_only_adapters_are_trained_and_the_step_is_saved_with_them() -> None:
    model = adapted(llama(LAYERS), "LoRA")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    warmup = gu.attach(model, gu.depth.linear(T=T)).follow(optimizer)
    for _ in range(3):
        logits(model).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    again = adapted(llama(LAYERS), "LoRA")
    peft.set_peft_model_state_dict(again, peft.get_peft_model_state_dict(model))
    resumed = torch.optim.AdamW([p for p in again.parameters() if p.requires_grad], lr=0.01)
    warmup_again = gu.attach(again, gu.depth.linear(T=T)).follow(resumed)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert warmup_again.updates == warmup.updates == 3
    torch.testing.assert_close(logits(again), logits(model))


def test_folding_into_an_adapted_end_is_refused_and_elsewhere_exact() -> None:
    model = adapted(llama(LAYERS), "LoRA")
    warmup = gu.attach(model, gu.depth.linear(T=T))
    warmup.at(3)
    with pytest.raises(ValueError, match="cannot fold α into .*o_proj"):
        warmup.folded_state_dict()
    model = adapted(llama(LAYERS), "LoRA on q and v only")
    plain = copy.deepcopy(model)
    warmup = gu.attach(model, gu.depth.linear(T=T))
    warmup.at(3)
    plain.load_state_dict(warmup.folded_state_dict())
    torch.testing.assert_close(logits(plain), logits(model))
