"""Layers that a schedule declares dormant: skipped, and what comes of it is what α = 0 gives."""

from __future__ import annotations

import copy
import math
import pickle
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import groundup as gu
from groundup import optim
from groundup.model import ModelConfig, Transformer
from groundup.model.placement import PLACEMENTS
from groundup.optim.entries import ENTRIES
from groundup.residual import BranchError, remove_scaling
from tests.fresh_compiler import fresh_compiler  # noqa: F401
from tests.residual.toy import PATTERNS, Net

S, T, LAYERS = 3, 5, 4
CASCADE = gu.depth.cascade(T=T, S=S)


def transformer(placement: str = "pre", layers: int = LAYERS) -> Transformer:
    config = ModelConfig(
        vocab_size=32, width=16, layers=layers, heads=2, feed_forward=24, placement=placement
    )
    model = Transformer(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:  # norms of 1 would hide that one is left out
                p.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(len(p)))
    return model


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).train()


def batch(step: int) -> torch.Tensor:
    return torch.randint(0, 32, (2, 9), generator=torch.Generator().manual_seed(step))


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    rows = batch(step)
    return model(rows[:, :-1], rows[:, 1:]).total / rows[:, 1:].numel()


def trained(
    model: nn.Module, dormant: str, steps: int, *, weight_decay: float = 0.0, momentum: float = 0.5
) -> list[float]:
    """Plain gradient descent: where gradients are zero, as where there are none, nothing moves."""
    warmup = gu.attach(model, CASCADE, dormant=dormant)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay
    )
    warmup.follow(optimizer)
    losses = []
    for step in range(steps):
        loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def calls(model: nn.Module, counts: Counter) -> None:
    for number, layer in enumerate(model.layers):
        inside = layer.attention.branch
        inside.register_forward_hook(lambda *_, number=number: counts.update([number]))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
def test_what_is_trained_is_what_zero_trains(placement: str, compiled: bool) -> None:
    skipping, running = transformer(placement), transformer(placement)
    torch._dynamo.utils.counters.clear()
    if compiled:
        for layer in skipping.layers:
            layer.compile()
    found = trained(skipping, "skip", 14)
    expected = trained(running, "run", 14)
    near = {"rtol": 1e-3, "atol": 1e-4} if compiled else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(found, expected, **near)
    for name, p in running.named_parameters():
        torch.testing.assert_close(skipping.get_parameter(name), p, **near)
    if compiled:  # one graph, and one of the norms alone where the stream is normalized
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert graphs == (2 if placement in ("post", "deepnorm") else 1)


@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
def test_weights_that_wait_are_untouched(placement: str) -> None:
    """No decay, no moments. With `run`, weight decay shrinks them: (1 − rate·decay)ⁿ."""
    model, beside = transformer(placement), transformer(placement)
    before = copy.deepcopy(model)
    trained(model, "skip", S, weight_decay=0.1)
    trained(beside, "run", S, weight_decay=0.1, momentum=0.0)
    for l in range(1, LAYERS):
        for name in ("feed_forward.branch.up.weight", "attention.branch.query.weight"):
            was = before.layers[l].get_parameter(name)
            assert torch.equal(model.layers[l].get_parameter(name), was)
            shrunk = was * (1 - 0.1 * 0.1) ** S
            torch.testing.assert_close(beside.layers[l].get_parameter(name), shrunk)
    norm = "feed_forward.norm.weight"
    if placement in ("post", "deepnorm"):  # on the stream: at work all along
        assert not torch.equal(
            model.layers[3].get_parameter(norm), before.layers[3].get_parameter(norm)
        )


def test_layers_are_called_from_their_turn_on_and_in_evaluations() -> None:
    model = transformer()
    warmup = gu.attach(model, CASCADE, dormant="skip")
    warmup.check(batch(0))
    counts: Counter = Counter()
    calls(model, counts)
    for step in range(3 * S + 2):
        counts.clear()
        warmup.at(step)
        awake = [l for l in range(LAYERS) if step >= S * l]
        assert warmup.dormant() == [l not in awake for l in range(LAYERS)]
        loss_of(model, step).backward()
        assert sorted(counts) == awake
        grads = [layer.feed_forward.branch.up.weight.grad for layer in model.layers]
        assert [g is not None for g in grads] == [l in awake for l in range(LAYERS)]
        model.zero_grad()
        counts.clear()
        with torch.no_grad():
            quiet = loss_of(model, step)
        assert sorted(counts) == list(range(LAYERS))
        assert quiet.item() == loss_of(model, step).item()


@pytest.mark.parametrize("name", sorted(entry.name for entry in ENTRIES))
def test_every_optimizer_leaves_them_alone_and_takes_them_up(name: str) -> None:
    model = transformer()
    before = copy.deepcopy(model)
    optimizer = optim.create(name, model, lr=1e-2)
    warmup = gu.attach(model, gu.depth.stagewise_0(T=2), dormant="skip").follow(optimizer)
    for step in range(10):
        loss_of(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()
        for l in range(LAYERS):
            now, was = (m.layers[l].attention.branch.output.weight for m in (model, before))
            assert torch.isfinite(now).all()
            if step < 2 * l:
                assert torch.equal(now, was)
            elif step > 2 * l:  # at its turn α is still 0, and so is the gradient
                assert not torch.equal(now, was)
    assert not any(warmup.dormant())


class TestOtherModels:
    def test_a_model_of_ones_own(self) -> None:
        x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
        found = []
        for dormant in ("skip", "run"):
            torch.manual_seed(0)
            model = Net()
            warmup = gu.attach(model, CASCADE, branches=PATTERNS, dormant=dormant)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            warmup.follow(optimizer)
            for _ in range(12):
                model(x).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            found.append(model.state_dict())
        for name, value in found[0].items():
            torch.testing.assert_close(value, found[1][name])

    @pytest.mark.parametrize("change", [lambda y: y + 1, lambda y: y.add_(1), F.dropout])
    @pytest.mark.parametrize("evaluated_first", [False, True])
    def test_a_layer_that_changes_the_stream_is_named(self, change, evaluated_first) -> None:
        model = Net().train(not evaluated_first)

        class Changing(type(model.layers[2])):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(change(x) if self.training or change is not F.dropout else x)

        model.layers[2].__class__ = Changing
        gu.attach(model, CASCADE, branches=PATTERNS, dormant="skip")
        with pytest.raises(BranchError, match=r"layers\.2 cannot rest.*does not give what it is"):
            model(torch.randn(2, 8))

    def test_numbers_that_are_not_finite_are_not_blamed_on_a_layer(self) -> None:
        model = Net()
        gu.attach(model, CASCADE, branches=PATTERNS, dormant="skip")
        with pytest.raises(BranchError, match=r"layers\.0 cannot rest.*given is not finite"):
            model(torch.full((2, 8), math.nan))

    def test_a_layer_that_is_not_called_is_named(self) -> None:
        class Containers(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                parts = ({"mlp": nn.Linear(4, 4)} for _ in range(2))
                self.layers = nn.ModuleList(nn.ModuleDict(part) for part in parts)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for layer in self.layers:
                    x = x + layer["mlp"](x)
                return x

        model = Containers()
        gu.attach(model, CASCADE, branches=["layers.{l}.mlp"], dormant="skip")
        with pytest.raises(BranchError, match=r"layers\.0 cannot rest.*it is not called"):
            model(torch.randn(2, 4))

    def test_who_listens_hears_layers_that_rest(self) -> None:
        """With hooks, as transformers collects hidden states in training."""
        found = []
        for dormant in ("skip", "run"):
            model = llama()
            gu.attach(model, CASCADE, dormant=dormant).at(S + 1)
            found.append(model(input_ids=batch(0), output_hidden_states=True))
        skipping, running = (output.hidden_states for output in found)
        assert len(skipping) == len(running) == 4
        assert all(torch.equal(a, b) for a, b in zip(skipping, running, strict=True))
        found[0].logits.sum().backward()

    def test_a_model_that_is_compiled_as_a_whole(self) -> None:
        found = []
        for dormant, whole in (("skip", True), ("run", False)):
            model = transformer(layers=2)
            warmup = gu.attach(model, CASCADE, dormant=dormant)
            warmup.check(batch(0))
            forward = torch.compile(model, backend="aot_eager") if whole else model
            losses = []
            for step in (0, S - 1, S + 1, S + 2):
                warmup.at(step)
                losses.append(loss_of(forward, step).item())
            found.append(losses)
        assert found[0] == pytest.approx(found[1], rel=1e-5)

    @pytest.mark.parametrize("checkpointing", [False, True])
    def test_llama_of_transformers(self, checkpointing: bool) -> None:
        found = []
        for dormant in ("skip", "run"):
            model = llama()
            if checkpointing:
                model.gradient_checkpointing_enable()
            warmup = gu.attach(model, CASCADE, dormant=dormant)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
            warmup.follow(optimizer)
            for step in range(2 * S + 2):
                model(input_ids=batch(step), labels=batch(step)).loss.backward()
                third = model.model.layers[2].mlp.up_proj.weight
                assert (third.grad is None) == (dormant == "skip" and step < 2 * S)
                optimizer.step()
                optimizer.zero_grad()
            found.append(model.state_dict())
        for name, value in found[0].items():
            torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-6)

    def test_bert_is_refused(self) -> None:
        transformers = pytest.importorskip("transformers")
        config = transformers.BertConfig(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2,
        )  # fmt: skip
        model = transformers.BertModel(config)
        gu.attach(model, CASCADE, dormant="skip")
        with pytest.raises(BranchError, match=r"encoder\.layer\.0 cannot rest"):
            model(batch(0))


class TestCopiesAndTheEnd:
    def test_a_copy_rests_along_and_can_be_freed(self) -> None:
        model = transformer()
        warmup = gu.attach(model, CASCADE, dormant="skip")
        loss_of(model, 0)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            counts: Counter = Counter()
            calls(twin, counts)
            loss_of(twin, 0)
            assert sorted(counts) == [0]
        free = copy.deepcopy(model)
        remove_scaling(free)
        assert {type(layer).__mro__[0] for layer in free.layers} == {type(transformer().layers[0])}
        warmup.at(20)
        assert loss_of(free, 0).item() == loss_of(model, 0).item()

    def test_a_copy_may_be_made_before_the_first_forward(self) -> None:
        model = transformer()
        warmup = gu.attach(model, CASCADE, dormant="skip")
        average = torch.optim.swa_utils.AveragedModel(model)
        loss_of(model, 0)
        warmup.at(S * LAYERS)
        with torch.no_grad():
            assert loss_of(average.module, 0).item() == loss_of(model, 0).item()

    def test_a_copy_with_its_warmup_is_on_its_own(self) -> None:
        model = transformer()
        warmup = gu.attach(model, CASCADE, dormant="skip")
        loss_of(model, 0)
        twin, its_warmup = copy.deepcopy((model, warmup))
        its_warmup.at(S * LAYERS)
        counts: Counter = Counter()
        calls(model, counts)
        loss_of(model, 0)
        assert sorted(counts) == [0]
        counts.clear()
        calls(twin, counts)
        loss_of(twin, 0)
        assert sorted(counts) == list(range(LAYERS))

    def test_taken_off(self) -> None:
        model = transformer()
        stock = [type(module) for module in model.modules()]
        warmup = gu.attach(model, CASCADE, dormant="skip")
        loss_of(model, 0)
        with pytest.warns(UserWarning, match="taken off at step 0"):
            warmup.detach()
        assert [type(module) for module in model.modules()] == stock
        assert warmup.dormant() == [False] * LAYERS
        loss_of(model, 0).backward()
        assert all(p.grad is not None for p in model.parameters())
        gu.attach(model, CASCADE, dormant="skip")


class TestRefusals:
    def test_unknown(self) -> None:
        with pytest.raises(ValueError, match="dormant='skipp' is unknown.*run, skip"):
            gu.attach(transformer(), CASCADE, dormant="skipp")

    @pytest.mark.parametrize("name", ["fix-L", "linear", "stagewise-L"])
    def test_schedules_without_dormant_layers(self, name: str) -> None:
        length = {} if name == "fix-L" else {"T": 5}
        schedule = gu.depth.by_name(name, **length)
        with pytest.raises(ValueError, match=f"{name} declares no layer dormant"):
            gu.attach(transformer(), schedule, dormant="skip")
