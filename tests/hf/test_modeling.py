"""The decoder in transformers against groundup's own, and against what any stock class does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import groundup as gu
import groundup.hf as hf
from tests.hf.decoders import CASES, FEW, configured, ours, renamed, theirs, tokens

close = torch.testing.assert_close

pytestmark = pytest.mark.filterwarnings("ignore:.*look trained", "ignore:.*is deprecated")


@pytest.mark.parametrize(("placement", "qk_norm"), CASES)
class TestEquation:
    def test_logits_are_ours(self, placement: str, qk_norm: bool | str) -> None:
        model = ours(placement, qk_norm)
        close(theirs(model)(tokens()).logits, model(tokens()), rtol=1e-4, atol=1e-4)

    def test_parameters_are_those_that_the_placement_needs(
        self, placement: str, qk_norm: bool | str
    ) -> None:
        model = ours(placement, qk_norm)
        names = {renamed(name, placement) for name, _ in model.named_parameters()}
        assert {name for name, _ in theirs(model).named_parameters()} == names


@pytest.mark.parametrize(("placement", "qk_norm"), FEW)
class TestAsAnyStockClass:
    @pytest.mark.parametrize("cache", ["dynamic", "static"])
    def test_cached_generation_is_recomputation(
        self, placement: str, qk_norm: bool | str, cache: str
    ) -> None:
        model = ours(placement, qk_norm)
        made = theirs(model).generate(
            tokens(),
            attention_mask=torch.ones_like(tokens()),
            max_new_tokens=9,
            do_sample=False,
            cache_implementation=cache,
            output_logits=True,
            return_dict_in_generate=True,
        )
        text = tokens()
        for logits in made.logits:
            again = model(text)[:, -1]
            close(logits, again, rtol=1e-4, atol=1e-4)
            text = torch.cat((text, again.argmax(-1, keepdim=True)), 1)
        assert torch.equal(made.sequences, text)

    def test_left_padded_batch_is_each_alone(self, placement: str, qk_norm: bool | str) -> None:
        model = theirs(ours(placement, qk_norm), pad_token_id=0)
        prompts = [tokens(1, length, seed=length) for length in (3, 8)]
        batch = torch.cat([torch.nn.functional.pad(p, (8 - p.shape[1], 0)) for p in prompts])
        mask = torch.tensor([[0] * 5 + [1] * 3, [1] * 8])
        together = greedy(model, batch, mask)
        for row, prompt in zip(together, prompts, strict=True):
            assert torch.equal(row, greedy(model, prompt, torch.ones_like(prompt))[0])

    def test_saved_and_loaded(self, placement: str, qk_norm: bool | str, tmp_path: Path) -> None:
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

        model = theirs(ours(placement, qk_norm))
        model.save_pretrained(tmp_path)
        assert type(AutoConfig.from_pretrained(tmp_path)) is hf.GroundupConfig
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert type(loaded) is hf.GroundupForCausalLM
        assert torch.equal(loaded(tokens()).logits, model(tokens()).logits)
        stream = AutoModel.from_pretrained(tmp_path)(tokens()).last_hidden_state
        assert torch.equal(loaded.lm_head(stream), loaded(tokens()).logits)
        half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
        assert half(tokens()).logits.dtype == torch.bfloat16

    def test_eager_is_sdpa(self, placement: str, qk_norm: bool | str) -> None:
        model = theirs(ours(placement, qk_norm))
        mask = torch.ones(2, 11, dtype=torch.long)
        mask[0, :4] = 0
        found = {}
        for kind in ("eager", "sdpa"):
            model.set_attn_implementation(kind)
            found[kind] = model(tokens(), attention_mask=mask).logits
        close(found["eager"][0, 4:], found["sdpa"][0, 4:], rtol=1e-4, atol=1e-4)
        close(found["eager"][1], found["sdpa"][1], rtol=1e-4, atol=1e-4)

    def test_checkpointing_changes_no_gradient(self, placement: str, qk_norm: bool | str) -> None:
        gradients = []
        for checkpointing in (False, True):
            model = theirs(ours(placement, qk_norm)).train()
            calls = count_calls(model.model.layers[1].self_attn)
            if checkpointing:
                model.gradient_checkpointing_enable()
            model(tokens(), labels=tokens(), use_cache=False).loss.backward()
            assert len(calls) == 1 + checkpointing
            gradients.append([p.grad for p in model.parameters()])
        for plain, recomputed in zip(*gradients, strict=True):
            assert plain.abs().sum() > 0
            assert torch.equal(plain, recomputed)

    def test_loss_is_cross_entropy_of_the_next_token(
        self, placement: str, qk_norm: bool | str
    ) -> None:
        model = ours(placement, qk_norm)
        labels = tokens().clone()
        labels[0, 3:6] = -100
        logits = model(tokens()).double()
        terms = [
            logits[b, t].logsumexp(0) - logits[b, t, labels[b, t + 1]]
            for b in range(2)
            for t in range(10)
            if labels[b, t + 1] >= 0
        ]
        loss = theirs(model)(tokens(), labels=labels).loss
        assert loss.item() == pytest.approx(sum(terms).item() / len(terms), rel=1e-5)

    def test_attached_it_is_ours_attached(self, placement: str, qk_norm: bool | str) -> None:
        model = ours(placement, qk_norm)
        copy, stock = theirs(model), theirs(model)
        warmups = [gu.attach(m, gu.depth.linear(T=10)) for m in (model, copy)]
        for warmup in warmups:
            warmup.at(7)
        warming = model(tokens())
        close(copy(tokens()).logits, warming, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(stock(tokens()).logits, warming, atol=0.01)
        stock.load_state_dict(warmups[1].folded_state_dict())
        close(stock(tokens()).logits, warming, rtol=1e-4, atol=1e-4)

    def test_layers_on_different_devices(
        self, placement: str, qk_norm: bool | str, tmp_path: Path
    ) -> None:
        accelerate = pytest.importorskip("accelerate")
        model = theirs(ours(placement, qk_norm))
        expected = model(tokens()).logits
        size = sum(p.nbytes for p in model.parameters())
        split = accelerate.infer_auto_device_map(
            model,
            max_memory={"cpu": 7 * size // 10, "disk": size},
            no_split_module_classes=model._no_split_modules,
        )
        assert set(split.values()) == {"cpu", "disk"}
        assert {name.count(".") for name in split if "layers" in name} == {2}  # none is cut
        model = accelerate.dispatch_model(model, split, main_device="cpu", offload_dir=tmp_path)
        close(model(tokens()).logits, expected)


def greedy(model: torch.nn.Module, prompt: Tensor, mask: Tensor) -> Tensor:
    """The tokens that follow, [B, 6]."""
    made = model.generate(prompt, attention_mask=mask, max_new_tokens=6, do_sample=False)
    return made[:, prompt.shape[1] :]


def count_calls(module: torch.nn.Module) -> list[None]:
    calls: list[None] = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    model = ours("post", True, tied=True)
    copy = theirs(model)
    close(copy(tokens()).logits, model(tokens()), rtol=1e-4, atol=1e-4)
    copy.save_pretrained(tmp_path)
    loaded = hf.GroundupForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert torch.equal(loaded(tokens()).logits, copy(tokens()).logits)


@pytest.mark.parametrize("qk_norm", [False, True, "width"])
def test_what_is_inside_can_be_recorded(qk_norm: bool | str) -> None:
    model = theirs(ours("sandwich", qk_norm))
    model.set_attn_implementation("eager")
    out = model(tokens(), output_attentions=True, output_hidden_states=True)
    assert [a.shape for a in out.attentions] == [(2, 4, 11, 11)] * 3
    assert [h.shape for h in out.hidden_states] == [(2, 11, 32)] * 4
    close(out.attentions[0].sum(-1), torch.ones(2, 4, 11))


def test_a_fresh_model_starts_as_its_configuration_says() -> None:
    torch.manual_seed(0)
    config = configured(ours("sandwich", "width").config, initializer_range=0.5)
    for name, parameter in hf.GroundupForCausalLM(config).named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            assert parameter.std().item() == pytest.approx(0.5, rel=0.25), name
