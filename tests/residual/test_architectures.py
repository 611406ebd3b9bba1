"""Every architecture of the table: what α does to it, against what it should do.

A wrong row shows: an end that is missing leaves something over at α = 0, one that stands before a
norm or after the addition contradicts the formula of its layer, one that is fused does not run.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import groundup as gu
import tests.torchvision_shim  # noqa: F401 (before what imports torchvision)
from groundup.residual import BranchError
from groundup.residual.architectures import LAYERS, layer_of
from tests.residual.zoo import SPECIMENS, Specimen
from tests.residual.zoo.ends import Found, ends
from tests.residual.zoo.specimen import seeded
from tests.residual.zoo.table import PAGE, on_page

T, STEP = 10, 7  # of the linear schedule, in the middle of its warmup
FINISHED = 10**6
OPTIONAL = ("transformers", "timm")  # what is not there is not tested
# More than the stream: attention, position biases.
RETURN_MORE = ("BLOOM", "GPT-J", "MPT", "T5", "T5 v1.1", "mT5")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about their own settings


@functools.lru_cache(maxsize=1)
def stock(specimen: Specimen) -> nn.Module:
    """The stock model, not to be changed; the tests of one specimen run one after the other."""
    if specimen.library in OPTIONAL:
        pytest.importorskip(specimen.library)
    return specimen.make()


def fresh(specimen: Specimen) -> nn.Module:
    return copy.deepcopy(stock(specimen))


def attached(specimen: Specimen, step: int) -> tuple[nn.Module, gu.Warmup]:
    model = fresh(specimen)
    warmup = gu.attach(model, gu.depth.linear(T=T), branches=specimen.patterns)
    warmup.at(step)
    return model, warmup


def alpha(branch: Found, step: int = STEP) -> float:
    return min(step / (T * (branch.layer + 1)), 1.0)


def scaled_by_hooks(specimen: Specimen) -> nn.Module:
    """A stock model with the outputs of its branches times α, by other means."""
    model = fresh(specimen)
    for branch in ends(specimen, model):
        branch.module.register_forward_hook(_times(alpha(branch)))
    return model


def _times(factor: float) -> Callable[..., torch.Tensor]:
    return lambda module, args, output: output * factor


def what_a_layer_is(model: nn.Module) -> list[tuple[Any, ...]]:
    """Everything about a model's modules but their parameters."""
    plain = (bool, int, float, str, type(None))
    return [
        (
            name,
            type(module),
            len(module._forward_hooks) + len(module._forward_pre_hooks),
            sorted(vars(module)),
            {key: value for key, value in vars(module).items() if isinstance(value, plain)},
        )
        for name, module in model.named_modules()
    ]


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda s: s.id, scope="class")
class TestArchitecture:
    def test_the_stacks_and_branches_are_found(self, specimen: Specimen) -> None:
        model, warmup = attached(specimen, 0)
        found = [branch.name for branch in ends(specimen, model)]
        expected = sum(n * specimen.per_layer(stack) for stack, n in specimen.stacks.items())
        assert len(found) == len(set(found)) == expected
        assert sorted(branch.name for branch in warmup._branches) == sorted(found)

    def test_alpha_zero_leaves_what_is_there_without_layers(self, specimen: Specimen) -> None:
        model, _ = attached(specimen, 0)
        if specimen.kind == "identity":
            expected = specimen.without_layers(stock(specimen))
        else:
            silenced = fresh(specimen)
            for branch in ends(specimen, silenced):
                for weight in branch.weights():
                    nn.init.zeros_(weight)
            expected = specimen.output(silenced)
        assert not torch.allclose(expected, specimen.output(stock(specimen)))
        torch.testing.assert_close(specimen.output(model), expected, rtol=0, atol=0)

    def test_alpha_one_is_the_untouched_model(self, specimen: Specimen) -> None:
        untouched = specimen.output(stock(specimen))
        model, warmup = attached(specimen, FINISHED)
        assert torch.equal(specimen.output(model), untouched)  # times α = 1
        warmup.at(FINISHED)
        assert torch.equal(specimen.output(model), untouched)  # the scaling may be off by now
        warmup.detach()
        assert torch.equal(specimen.output(model), untouched)
        assert what_a_layer_is(model) == what_a_layer_is(stock(specimen))

    def test_output_and_gradients_are_those_of_scaled_branches(self, specimen: Specimen) -> None:
        (model, _), reference = attached(specimen, STEP), scaled_by_hooks(specimen)
        out, expected = specimen.output(model), specimen.output(reference)
        torch.testing.assert_close(out, expected)
        for output in (out, expected):
            (output * seeded(*output.shape)).sum().backward()
        pairs = zip(model.named_parameters(), reference.parameters(), strict=True)
        for (name, parameter), other in pairs:
            assert (parameter.grad is None) == (other.grad is None), name
            if other.grad is not None:
                torch.testing.assert_close(
                    parameter.grad, other.grad, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: n + m
                )

    def test_dormant_layers_rest_where_they_are_the_identity(self, specimen: Specimen) -> None:
        """Behind the first layer of each stack there is nothing yet, forward or backward."""
        schedule = gu.depth.cascade(T=T, S=2 * STEP)
        models = []
        for dormant in ("skip", "run"):
            model = fresh(specimen)
            gu.attach(model, schedule, branches=specimen.patterns, dormant=dormant).at(STEP)
            models.append(model)
        if specimen.kind == "silent" or specimen.name in RETURN_MORE:
            why = "more than the residual" if specimen.name in RETURN_MORE else "does not give what"
            with pytest.raises(BranchError, match=f"cannot rest while it is dormant: .*{why}"):
                specimen.output(models[0])
            return
        skipping, running = (specimen.output(model) for model in models)
        assert torch.equal(skipping, running)
        for output in (skipping, running):
            (output * seeded(*output.shape)).sum().backward()
        waiting = {branch.block for branch in ends(specimen, models[0]) if branch.layer}
        silent = {p for block in waiting for p in block.parameters()}
        pairs = zip(models[0].named_parameters(), models[1].parameters(), strict=True)
        for (name, parameter), other in pairs:
            if parameter in silent:
                assert parameter.grad is None, name
            elif other.grad is not None and parameter.grad is not None:
                torch.testing.assert_close(parameter.grad, other.grad, msg=name)
            else:
                assert parameter.grad is None, name
                assert other.grad is None or not other.grad.any(), name

    def test_a_layer_is_what_the_formula_says(self, specimen: Specimen) -> None:
        model, _ = attached(specimen, STEP)
        said: dict[str, torch.Tensor] = {}
        layers: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        by_layer: dict[nn.Module, list[Found]] = {}
        for branch in ends(specimen, model):
            # Hooks of a scaled module see what it says before it is scaled.
            branch.module.register_forward_hook(_remember(said, branch.name))
            by_layer.setdefault(branch.block, []).append(branch)
        for block in by_layer:
            block.register_forward_hook(_remember_layer(layers), with_kwargs=True)
        specimen.output(model)
        for block, branches in by_layer.items():
            gains = specimen.gains(block) if specimen.gains else [1.0] * len(branches)
            norms = specimen.norms_of(branches[0].stack) or [""] * len(branches)
            x, after = layers[block]
            for branch, gain, norm in zip(branches, gains, norms, strict=True):
                x = x + gain * alpha(branch) * said[branch.name].view_as(x)
                x = block.get_submodule(norm)(x) if norm else x
            torch.testing.assert_close(after, x, rtol=1e-4, atol=1e-4)

    def test_folded_weights_say_the_same_in_a_stock_model(self, specimen: Specimen) -> None:
        model, warmup = attached(specimen, STEP)
        loaded = fresh(specimen)
        loaded.load_state_dict(warmup.folded_state_dict(), strict=True)
        expected = specimen.output(model)
        torch.testing.assert_close(specimen.output(loaded), expected, rtol=1e-4, atol=1e-5)

    def test_after_fold_it_is_a_stock_model_and_is_saved_as_one(
        self, specimen: Specimen, tmp_path: Path
    ) -> None:
        model, warmup = attached(specimen, STEP)
        expected = specimen.output(model)
        warmup.fold_()
        torch.testing.assert_close(specimen.output(model), expected, rtol=1e-4, atol=1e-5)
        assert list(model.state_dict()) == list(stock(specimen).state_dict())
        assert what_a_layer_is(model) == what_a_layer_is(stock(specimen))
        if hasattr(model, "save_pretrained"):
            model.save_pretrained(tmp_path)
            again = type(model).from_pretrained(tmp_path).eval()
            torch.testing.assert_close(specimen.output(again), expected, rtol=1e-4, atol=1e-5)


def _remember(said: dict[str, torch.Tensor], name: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        said[name] = output.detach()

    return hook


def _remember_layer(
    layers: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]],
) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        first = next(iter(inspect.signature(module.forward).parameters))
        before = args[0] if args else kwargs[first]
        layers[module] = before, output[0] if isinstance(output, tuple) else output

    return hook


def test_every_row_of_the_table_has_a_specimen() -> None:
    for library in OPTIONAL:
        pytest.importorskip(library)
    seen = {
        type(module)
        for specimen in SPECIMENS
        for module in specimen.make().modules()
        if layer_of(module) is not None
    }
    without = {
        (place, name)
        for place, named in LAYERS.items()
        for name in named
        if not any(f"{c.__module__}.".startswith(f"{place}.") and c.__name__ == name for c in seen)
    }
    assert without == set()


def test_torchtitan_itself() -> None:
    """The specimens are imitations; this is the library, where somebody has it."""
    llama3 = pytest.importorskip("torchtitan.models.llama3")
    arguments = llama3.TransformerModelArgs(dim=16, n_layers=3, n_heads=2, vocab_size=64)
    model = llama3.Transformer(arguments)
    warmup = gu.attach(model, gu.depth.linear(T=T))
    x = torch.arange(14).view(2, 7)
    assert len(warmup._branches) == 6
    assert torch.equal(model(x), model.output(model.norm(model.tok_embeddings(x))))


def test_a_layer_with_a_forward_of_its_own_is_unknown() -> None:
    class Mine(nn.TransformerEncoderLayer):
        def forward(self, src: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return self.norm1(src) + self.linear2(self.linear1(src))

    class Renamed(nn.TransformerEncoderLayer):
        pass

    sizes: dict[str, Any] = {"d_model": 16, "nhead": 2, "dim_feedforward": 24}
    assert layer_of(Renamed(**sizes)) is layer_of(nn.TransformerEncoderLayer(**sizes))
    mine = nn.TransformerEncoder(Mine(**sizes), 3, enable_nested_tensor=False)
    with pytest.raises(ValueError, match="no residual branches are known"):
        gu.attach(mine, gu.depth.linear(T=T))


@pytest.mark.parametrize("padded", [False, True])
def test_the_fused_path_of_torch_is_off_while_attached(monkeypatch, padded: bool) -> None:
    fused = torch._transformer_encoder_layer_fwd
    calls = []
    monkeypatch.setattr(
        torch, "_transformer_encoder_layer_fwd", lambda *a: calls.append(1) or fused(*a)
    )
    specimen = next(s for s in SPECIMENS if s.name == "TransformerEncoderLayer")
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 4:] = True
    kept = ~padding if padded else torch.ones_like(padding)
    inputs = specimen.inputs() | ({"src_key_padding_mask": padding} if padded else {})

    model, warmup = attached(specimen, STEP)
    expected = scaled_by_hooks(specimen)(**inputs)  # with gradients nothing is fused
    with torch.no_grad():
        for _ in range(2):  # the first forward is the one that is proven, with hooks
            out = model(**inputs)
    assert calls == []
    torch.testing.assert_close(out[kept], expected[kept])

    warmup.at(FINISHED)
    for taken_off in range(2):
        with torch.no_grad():
            out = model(**inputs)
        assert len(calls) == 3 * (taken_off + 1)  # once in each layer
        torch.testing.assert_close(out[kept], stock(specimen)(**inputs)[kept])
        warmup.detach()


def test_the_page_is_up_to_date() -> None:
    for library in OPTIONAL:
        pytest.importorskip(library)
    text = PAGE.read_text()
    assert on_page(text) == text, "run python -m tests.residual.zoo --write"
