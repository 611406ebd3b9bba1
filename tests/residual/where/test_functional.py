"""Functional transforms, export, unusual construction, dtypes, copies: against α written out."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.nn.utils import parametrizations

import groundup as gu
from groundup.residual import remove_scaling
from tests.residual.toy import PATTERNS, Net, reference
from tests.residual.where.models import (
    FINISHED,
    LAYERS,
    T,
    alphas,
    attach,
    ends,
    hook_by_hand,
    inputs,
    llama,
    net,
    tokens,
)

STEP = 5  # two layers at 1, two on their way
BETWEEN = alphas(STEP)


def made(step: int = STEP, seed: int = 0) -> tuple[Net, Net, gu.Warmup]:
    """A model, the same one untouched, and the first one's warmup."""
    model = net(seed)
    plain = copy.deepcopy(model)
    warmup = attach(model)
    warmup.at(step)
    return model, plain, warmup


class TestTransforms:
    def test_functional_call_takes_other_parameters(self) -> None:
        model, _, warmup = made()
        other = net(seed=1)
        for step in (STEP, FINISHED, 1):
            warmup.at(step)
            out = functional_call(model, dict(other.named_parameters()), inputs())
            torch.testing.assert_close(out, reference(other, inputs(), alphas(step)))

    def test_gradients_per_sample(self) -> None:
        model, plain, warmup = made()
        x = inputs()

        def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
            return functional_call(model, parameters, row[None]).square().sum()

        rows = vmap(grad(loss), (None, 0))(dict(model.named_parameters()), x)
        for number, row in enumerate(x):
            plain.zero_grad()
            reference(plain, row[None], BETWEEN).square().sum().backward()
            for name, p in plain.named_parameters():
                torch.testing.assert_close(rows[name][number], p.grad, msg=name)
        warmup.at(STEP + 1)  # the first forward was inside a transform
        torch.testing.assert_close(model(x), reference(plain, x, alphas(STEP + 1)))

    def test_an_ensemble_in_one_call(self) -> None:
        models, outs = [], []
        for seed in range(3):
            model, plain, _ = made(seed=seed)
            models.append(model)
            outs.append(reference(plain, inputs(), BETWEEN))
        parameters, buffers = stack_module_state(models)
        skeleton = copy.deepcopy(models[0]).to("meta")
        together = vmap(
            lambda p, b, x: functional_call(skeleton, (p, b), (x,)), in_dims=(0, 0, None)
        )(parameters, buffers, inputs())
        torch.testing.assert_close(together, torch.stack(outs))

    def test_forward_mode(self) -> None:
        model, plain, _ = made()
        x, tangent = inputs(), inputs().flip(0)
        out = jvp(model, (x,), (tangent,))
        expected = jvp(lambda x: reference(plain, x, BETWEEN), (x,), (tangent,))
        torch.testing.assert_close(out, expected)

    def test_gradients_of_gradients(self) -> None:
        model, plain, _ = made()
        found = []
        for owner, call in ((model, model), (plain, lambda x: reference(plain, x, BETWEEN))):
            x = inputs().requires_grad_()
            (g,) = torch.autograd.grad(call(x).square().sum(), x, create_graph=True)
            g.square().sum().backward()
            found.append([p.grad for p in owner.parameters() if p.grad is not None])
        assert len(found[0]) > 4 * LAYERS
        torch.testing.assert_close(*found)

    def test_inference_mode(self) -> None:
        model = net()
        plain = copy.deepcopy(model)
        with torch.inference_mode():
            warmup = attach(model)
            for step in (0, STEP, FINISHED, 3):
                warmup.at(step)
                torch.testing.assert_close(
                    model(inputs()), reference(plain, inputs(), alphas(step))
                )
        model(inputs()).sum().backward()  # α was made there and is saved for the backward here
        reference(plain, inputs(), alphas(3)).sum().backward()
        torch.testing.assert_close(model.stem.weight.grad, plain.stem.weight.grad)
        warmup.at(4)

    def test_nested_sequences(self) -> None:
        model, plain, _ = made()
        x = torch.nested.nested_tensor([inputs(2), inputs(3)], layout=torch.jagged)
        out = model(x)
        torch.testing.assert_close(out.values(), reference(plain, x, BETWEEN).values())


class TestGraphsTakenOut:
    """A graph that was taken out of a model in mid-warmup holds α as it is or as it was."""

    def test_an_exported_program_goes_on_reading_alpha(self) -> None:
        model, plain, warmup = made(step=1)
        program = torch.export.export(model, (inputs(),)).module()
        for step in (1, 3, FINISHED):
            warmup.at(step)
            torch.testing.assert_close(program(inputs()), reference(plain, inputs(), alphas(step)))
            torch.testing.assert_close(model(inputs()), reference(plain, inputs(), alphas(step)))

    def test_exported_and_saved_it_keeps_the_alpha_of_its_moment(self) -> None:
        model, plain, warmup = made(step=3)
        file = io.BytesIO()
        torch.export.save(torch.export.export(model, (inputs(),)), file)
        warmup.at(FINISHED)
        file.seek(0)
        program = torch.export.load(file).module()
        torch.testing.assert_close(program(inputs()), reference(plain, inputs(), alphas(3)))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_traced_one_keeps_the_alpha_of_its_moment(self) -> None:
        model, plain, warmup = made(step=3)
        traced = torch.jit.trace(model, (inputs(),), check_trace=False)
        torch.testing.assert_close(traced(inputs()), reference(plain, inputs(), alphas(3)))
        file = io.BytesIO()
        torch.jit.save(traced, file)
        warmup.at(FINISHED)
        file.seek(0)
        again = torch.jit.load(file)
        torch.testing.assert_close(again(inputs()), reference(plain, inputs(), alphas(3)))

    def test_symbolic_tracing_is_refused_and_possible_when_folded(self) -> None:
        """It would be stuck in code that asks where α lives."""
        model, plain, warmup = made(step=3)
        model(inputs())  # counting branches is no part of the graph
        with pytest.raises(TypeError, match="returns a Proxy"):
            torch.fx.symbolic_trace(model)
        warmup.fold_()
        graph = torch.fx.symbolic_trace(model)
        torch.testing.assert_close(graph(inputs()), reference(plain, inputs(), alphas(3)))

    def test_alpha_is_not_written_into_a_cuda_graph(self, monkeypatch) -> None:
        """Each replay would write the same α again, whatever was written in between."""
        model, plain, warmup = made(step=3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        warmup.follow(optimizer)
        model(inputs()).sum().backward()
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        with pytest.raises(RuntimeError, match=r"captured.*leave optimizer\.step\(\)"):
            optimizer.step()
        with pytest.raises(RuntimeError, match="captured"):
            warmup.at(7)
        monkeypatch.undo()
        assert warmup.updates == 3
        plain.load_state_dict(model.state_dict())
        torch.testing.assert_close(model(inputs()), reference(plain, inputs(), alphas(3)))


class TestConstruction:
    def test_on_the_meta_device_then_assigned(self) -> None:
        with torch.device("meta"):
            model = Net()
        warmup = attach(model)
        warmup.at(3)
        assert model(inputs().to("meta")).is_meta  # shapes only
        source = net(seed=1)
        model.load_state_dict(copy.deepcopy(source.state_dict()), assign=True)
        torch.testing.assert_close(model(inputs()), reference(source, inputs(), alphas(3)))
        warmup.at(FINISHED - 1)
        expected = reference(source, inputs(), alphas(FINISHED - 1))
        torch.testing.assert_close(model(inputs()), expected)
        stock = Net()
        stock.load_state_dict(warmup.folded_state_dict())
        torch.testing.assert_close(stock(inputs()), expected)

    def test_with_fake_tensors(self) -> None:
        from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

        with FakeTensorMode():
            model = Net()
            warmup = attach(model)
            warmup.at(2)
            out = model(torch.randn(4, 8))
            out.sum().backward()
        assert isinstance(out, FakeTensor)

    def test_lazy_modules_are_refused_until_they_have_run(self) -> None:
        """They become another class in their first forward, and would lose the scaling there."""
        model = Net()
        for block in model.layers:
            block.mix.out = nn.LazyLinear(8)
        with pytest.raises(
            ValueError, match=r"layers\.0\.mix\.out is a LazyLinear.* run the model"
        ):
            attach(model)
        model(inputs())
        plain = copy.deepcopy(model)
        warmup = attach(model)
        model(inputs())
        warmup.at(STEP)
        torch.testing.assert_close(model(inputs()), reference(plain, inputs(), BETWEEN))

    @pytest.mark.parametrize("assign", [True, False])
    def test_weights_are_replaced_under_it(self, assign: bool) -> None:
        model, _, warmup = made()
        other = net(seed=1)
        model.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
        torch.testing.assert_close(model(inputs()), reference(other, inputs(), BETWEEN))
        warmup.fold_()
        torch.testing.assert_close(model(inputs()), reference(other, inputs(), BETWEEN))

    def test_swapped_tensors(self) -> None:
        model, _, warmup = made()
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            model.double()
            other = net(seed=1).double()
            model.load_state_dict(copy.deepcopy(other.state_dict()))
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)
        warmup.at(3)
        # α is a float32: compare with that, not with the float64 nearest to the fraction.
        rounded = torch.tensor(alphas(3)).tolist()
        x = inputs().double()
        assert torch.equal(model(x), reference(other, x, rounded))

    def test_tied_embedding_and_head(self) -> None:
        model = llama(tie_word_embeddings=True)
        plain = copy.deepcopy(model)
        warmup = gu.attach(model, gu.depth.linear(T=T))
        warmup.at(3)
        expected = hook_by_hand(copy.deepcopy(plain), alphas(3, 3))
        out = model(tokens(), labels=tokens())
        wanted = expected(tokens(), labels=tokens())
        torch.testing.assert_close(out.logits, wanted.logits)
        out.loss.backward()
        wanted.loss.backward()
        torch.testing.assert_close(model.lm_head.weight.grad, expected.lm_head.weight.grad)
        plain.load_state_dict(warmup.folded_state_dict())
        assert plain.lm_head.weight is plain.model.embed_tokens.weight
        torch.testing.assert_close(plain(tokens()).logits, wanted.logits)


class TestDtypes:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    @pytest.mark.parametrize("cast", ["before", "after"])
    def test_of_the_model(self, dtype: torch.dtype, cast: str) -> None:
        """To the bit: α is not rounded to the model's dtype, only the product is."""
        model = net()
        if cast == "before":
            model.to(dtype)
        plain = copy.deepcopy(model).to(dtype)
        warmup = attach(model)
        model.to(dtype)
        x = inputs().to(dtype)
        for step in (1, 3, FINISHED, STEP):
            warmup.at(step)
            out = model(x)
            assert out.dtype == dtype
            assert torch.equal(out, reference(plain, x, torch.tensor(alphas(step)).tolist()))

    def test_there_and_back_alpha_is_as_exact_as_before(self) -> None:
        model, _, _ = made(step=1)
        model.half().to(torch.bfloat16).float()
        alpha = model.layers[2].mix.out.residual_alpha
        assert alpha.item() == torch.tensor(1 / (3 * T)).item()

    def test_autocast(self) -> None:
        model, plain, _ = made()
        x = inputs()
        with torch.autocast("cpu", torch.bfloat16):
            out, expected = model(x), reference(plain, x, BETWEEN)
        assert torch.equal(out, expected)
        out.float().square().sum().backward()
        expected.float().square().sum().backward()
        for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
            assert torch.equal(p.grad, q.grad), name


class TestCopies:
    @pytest.mark.parametrize("steps_before", [0, 1], ids=["before the first forward", "after it"])
    def test_an_average_follows_alpha(self, steps_before: int) -> None:
        decay = 0.5
        model = net()
        warmup = attach(model)
        for _ in range(steps_before):
            model(inputs())
        average = torch.optim.swa_utils.AveragedModel(
            model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
        )
        by_hand = copy.deepcopy(model.state_dict())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        warmup.follow(optimizer)
        for update in range(1, FINISHED + 2):
            model(inputs()).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            average.update_parameters(model)
            for name, p in model.state_dict().items():
                # The first call copies.
                old = p if update == 1 else by_hand[name]
                by_hand[name] = (decay * old + (1 - decay) * p).clone()
            stock = Net()
            stock.load_state_dict(by_hand)
            expected = reference(stock, inputs(), alphas(update))
            torch.testing.assert_close(average(inputs()), expected, msg=f"update {update}")
        assert "residual_alpha" not in " ".join(average.state_dict())

    def test_an_average_with_buffers(self) -> None:
        model, plain, warmup = made(step=0)
        average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
        average.update_parameters(model)
        warmup.at(STEP)
        torch.testing.assert_close(average(inputs()), reference(plain, inputs(), BETWEEN))

    def test_a_deepcopy_of_a_parametrized_end(self) -> None:
        """A parametrization derives a class from the scaled one; a copy is of that class."""
        model, plain, warmup = made()
        for pair in ends(model):
            parametrizations.weight_norm(pair[0])
        twin = copy.deepcopy(model)
        for step in (STEP, 1, FINISHED, 3):
            warmup.at(step)
            expected = reference(plain, inputs(), alphas(step))
            torch.testing.assert_close(model(inputs()), expected)
            torch.testing.assert_close(twin(inputs()), expected)

    @pytest.mark.parametrize("how", ["pickle", "torch.save"])
    def test_of_the_model_in_a_file(self, how: str) -> None:
        model, plain, warmup = made()
        file = io.BytesIO()
        (pickle.dump if how == "pickle" else torch.save)(model, file)
        file.seek(0)
        again = pickle.load(file) if how == "pickle" else torch.load(file, weights_only=False)
        warmup.at(1)  # another process: nothing is shared
        torch.testing.assert_close(again(inputs()), reference(plain, inputs(), BETWEEN))
        assert remove_scaling(again) > 0
        torch.testing.assert_close(again(inputs()), reference(plain, inputs(), [1.0] * LAYERS))

    def test_of_model_and_warmup_together_in_a_file(self) -> None:
        model, plain, warmup = made()
        again, twin = pickle.loads(pickle.dumps((model, warmup)))
        for step, other in ((1, 3), (FINISHED, 0)):
            warmup.at(step)
            twin.at(other)
            torch.testing.assert_close(model(inputs()), reference(plain, inputs(), alphas(step)))
            torch.testing.assert_close(again(inputs()), reference(plain, inputs(), alphas(other)))

    def test_what_a_module_keeps_out_of_files_stays_out(self) -> None:
        model = Net()
        for block in model.layers:
            block.mix.out = Keeping(8, 8)
        plain = copy.deepcopy(model)
        attach(model).at(3)
        again = pickle.loads(pickle.dumps(model))
        assert model.layers[3].mix.out.cache is not None
        assert again.layers[3].mix.out.cache is None
        torch.testing.assert_close(again(inputs()), reference(plain, inputs(), alphas(3)))


class Keeping(nn.Linear):
    """A module that says itself what of it is saved."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out)
        self.cache: object | None = (lambda: None, "cannot be pickled")

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"cache": None}


class TestEndsThatChangeTheirClass:
    @pytest.fixture
    def changed(self) -> tuple[Net, gu.Warmup]:
        model, _, warmup = made(step=1)
        model(inputs())
        for pair in ends(model):
            pair[0].__class__ = nn.Linear
        return model, warmup

    def test_scaling_that_got_lost_is_said_at_the_next_update(self, changed) -> None:
        """Some libraries set a module's class, which takes the scaling off."""
        _, warmup = changed
        with pytest.raises(RuntimeError, match=r"mix\.out is no longer scaled"):
            warmup.step()

    @pytest.mark.parametrize("first", ["attached", "parametrized"])
    def test_parametrized_ends(self, first: str) -> None:
        model = net()
        plain = copy.deepcopy(model)
        if first == "attached":
            warmup = attach(model)
        for pair in ends(model):
            parametrizations.weight_norm(pair[0])
        if first == "parametrized":
            warmup = attach(model)
        model(inputs())
        for step in (0, 3, FINISHED, 1):
            warmup.at(step)
            torch.testing.assert_close(model(inputs()), reference(plain, inputs(), alphas(step)))
        warmup.at(FINISHED)
        for pair in ends(model):  # and gone again, when the scaling is
            nn.utils.parametrize.remove_parametrizations(pair[0], "weight")
        torch.testing.assert_close(model(inputs()), reference(plain, inputs(), [1.0] * LAYERS))


def test_patterns_are_those_of_the_toy() -> None:
    """`ends` and the patterns name the same modules, or the tests above compare with nothing."""
    model = net()
    attach(model)
    names = {id(m): name for name, m in model.named_modules()}
    named = {names[id(m)] for pair in ends(model) for m in pair}
    assert named == {p.format(l=l) for p in PATTERNS for l in range(LAYERS)}
    assert all("residual_alpha" in vars(m) for pair in ends(model) for m in pair)
