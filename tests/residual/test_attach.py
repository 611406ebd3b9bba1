"""What `gu.attach` does to a model, against the same model with α written out by hand."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import groundup as gu
from groundup.residual import BranchError, remove_scaling
from groundup.residual.scale import _Scaled
from tests.residual.toy import PATTERNS, Net, reference


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


def attach(net: nn.Module, T: float = 10, **kwargs) -> gu.Warmup:
    return gu.attach(net, gu.depth.linear(T=T), branches=PATTERNS, **kwargs)


@pytest.mark.parametrize("step", [0, 1, 7, 25, 40])
def test_forward_and_gradients_equal_the_formula(net: Net, x: torch.Tensor, step: int) -> None:
    plain = copy.deepcopy(net)
    alphas = [min(step / (10 * l), 1.0) for l in range(1, 5)]
    expected = reference(plain, x, alphas)
    expected.square().sum().backward()
    warmup = attach(net)
    warmup.at(step)
    out = net(x)
    out.square().sum().backward()
    torch.testing.assert_close(out, expected)
    assert torch.equal(warmup.alphas(), torch.tensor(alphas))
    for (name, p), q in zip(net.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_alpha_zero_is_the_identity_and_alpha_one_the_untouched_model(net, x) -> None:
    stem, untouched = net.stem(x), net(x)
    warmup = attach(net)
    assert torch.equal(net(x), stem)
    warmup.at(40)
    assert torch.equal(net(x), untouched)


def test_parameter_names_classes_and_print_stay_stock(net) -> None:
    before, printed = list(net.state_dict()), str(net)
    attach(net)
    assert str(net) == printed
    assert isinstance(net.layers[0].mix.out, nn.Linear)
    assert list(net.state_dict()) == before
    assert [n for n, _ in net.named_buffers()] == []


def test_alpha_is_exact_in_bf16_and_after_loading(net, x) -> None:
    warmup = attach(net)
    warmup.at(3)
    net.load_state_dict(net.state_dict())
    net.to(torch.bfloat16)
    alpha = net.layers[2].mix.out.residual_alpha
    assert alpha.dtype == torch.float32
    assert alpha.shape == ()
    assert alpha.item() == torch.tensor(3 / 30).item()
    assert net(x.bfloat16()).dtype == torch.bfloat16


def test_alpha_survives_meta_construction_and_to_empty(x) -> None:
    with torch.device("meta"):
        net = Net()
    warmup = attach(net)
    warmup.at(5)
    net.to_empty(device="cpu")
    source = Net()
    net.load_state_dict(source.state_dict())
    expected = reference(source, x, [0.5, 0.25, 5 / 30, 0.125])
    torch.testing.assert_close(net(x), expected)


def test_alpha_is_rebound_when_the_model_moves(net) -> None:
    warmup = attach(net)
    warmup.at(5)
    net.to("meta")  # stands for another device: α must neither follow into nowhere nor be lost
    net.to_empty(device="cpu")
    warmup.at(6)
    assert net.layers[0].mix.out.residual_alpha.item() == pytest.approx(0.6)


def test_a_deepcopy_is_warmed_up_along_and_can_be_set_free(net, x) -> None:
    """As an average of the weights needs it, which is copied at the start of training."""
    warmup = attach(net)
    warmup.at(5)
    twin = copy.deepcopy(net)
    for step in (9, 40, 20):
        warmup.at(step)
        assert torch.equal(twin(x), net(x))
    with pytest.raises(ValueError, match="remove_scaling"):
        attach(twin)
    assert remove_scaling(twin) == 8
    attach(twin).at(9)
    assert not torch.equal(twin(x), net(x))
    warmup.at(9)
    assert torch.equal(twin(x), net(x))


def test_a_copy_follows_when_the_original_moves_is_detached_or_folded(net, x) -> None:
    early = copy.deepcopy(net)
    warmup = attach(net)
    twin = copy.deepcopy(net)
    net.to("meta")  # the original goes to another device, its copy stays
    net.to_empty(device="cpu")
    net.load_state_dict(early.state_dict())
    warmup.at(7)
    expected = net(x)
    torch.testing.assert_close(twin(x), expected)
    warmup.fold_()
    torch.testing.assert_close(twin(x), expected)
    torch.testing.assert_close(net(x), expected)
    other = attach(early)
    twin = copy.deepcopy(early)
    with pytest.warns(UserWarning, match="before every α is 1"):
        other.detach()
    assert torch.equal(twin(x), early(x))


def test_a_whole_model_can_be_pickled(net, x, tmp_path) -> None:
    warmup = attach(net)
    warmup.at(7)
    expected = net(x)
    torch.save(net, tmp_path / "net.pt")
    again = torch.load(tmp_path / "net.pt", weights_only=False)
    assert torch.equal(again(x), expected)
    assert remove_scaling(again) == 8
    assert type(again.layers[0].mix.out) is nn.Linear


def test_a_deepcopy_before_the_first_forward_proves_itself_too(net, x) -> None:
    attach(net)
    twin = copy.deepcopy(net)
    twin.layers[2].mix.forward = lambda x: x * 0
    with pytest.raises(BranchError, match="layers.2.mix.out ran 0 times"):
        twin(x)
    net(x)


def test_changing_alpha_between_forward_and_backward_is_an_error(net, x) -> None:
    warmup = attach(net)
    warmup.at(3)
    loss = net(x).sum()
    warmup.at(4)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_in_eager_mode_a_layer_is_multiplied_only_while_its_alpha_is_not_1(net, x) -> None:
    plain = copy.deepcopy(net)
    warmup = attach(net)
    scaled = lambda: [isinstance(block.mix.out, _Scaled) for block in net.layers]  # noqa: E731
    warmup.at(20)
    assert scaled() == [True] * 4  # not before the proof
    net(x)
    for step in (0, 9, 10, 20, 25, 39, 40, 15, 40):
        warmup.at(step)
        assert scaled() == [step < 10 * l for l in (1, 2, 3, 4)]
        alphas = [min(step / (10 * l), 1.0) for l in (1, 2, 3, 4)]
        torch.testing.assert_close(net(x), reference(plain, x, alphas))
    assert warmup.finished
    assert not any("residual_alpha" in m.__dict__ for m in net.modules())


class TestProof:
    def test_a_branch_that_never_runs_is_named(self, net, x) -> None:
        net.layers[2].mix.forward = lambda x: x * 0
        attach(net)
        with pytest.raises(BranchError, match="layers.2.mix.out ran 0 times"):
            net(x)

    def test_a_branch_that_runs_twice_is_named(self, net, x) -> None:
        net.layers[1].mix.forward = lambda x, out=net.layers[1].mix.out: out(out(x))
        warmup = attach(net)
        with pytest.raises(BranchError, match="layers.1.mix.out ran 2 times"):
            warmup.check(x)

    def test_fused_attention_that_bypasses_its_projection_is_found(self) -> None:
        model = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), num_layers=3
        )
        patterns = ["layers.{l}.self_attn.out_proj", "layers.{l}.linear2"]
        gu.attach(model, gu.depth.linear(T=5), branches=patterns)
        with pytest.raises(BranchError, match="layers.0.self_attn.out_proj ran 0 times"):
            model(torch.randn(2, 4, 8))

    def test_an_error_in_the_first_forward_is_not_hidden_and_the_proof_still_comes(
        self, net, x
    ) -> None:
        attach(net)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            net(torch.randn(3, 5))
        net.layers[3].mlp.forward = lambda x: x
        with pytest.raises(BranchError, match="layers.3.mlp.2 ran 0 times"):
            net(x)

    def test_a_branch_that_returns_a_tuple_gets_a_sentence(self, net, x) -> None:
        net.layers[0].mix.forward = lambda x: (x, None)
        with pytest.raises(TypeError, match="this Mix returns a tuple"):
            gu.attach(net, gu.depth.linear(T=1), branches=["layers.{l}.mix"]).check(x)

    def test_a_model_that_returns_nothing_is_proven_too(self, net, x) -> None:
        forward = net.forward
        net.forward = lambda x: [forward(x), None][1]
        warmup = attach(net)
        assert net(x) is None
        assert warmup._proof.done

    def test_check_goes_through_the_hooks_of_the_model(self, net, x) -> None:
        """FSDP gathers a model's weights in a hook on it."""
        seen = []
        net.register_forward_pre_hook(lambda *_: seen.append("hook"))
        warmup = attach(net)
        warmup.check(x)
        assert seen == ["hook"]
        assert warmup._proof.done

    def test_it_happens_once(self, net, x) -> None:
        warmup = attach(net)
        net(x)
        net.layers[2].mix.forward = lambda x: x * 0
        net(x)
        assert warmup._proof.done


class TestCompiled:
    @pytest.mark.parametrize("how", ["method", "wrapper", "whole"])
    def test_one_training_graph_for_the_whole_run(self, how: str, x) -> None:
        torch._dynamo.reset()
        counters.clear()
        torch.manual_seed(0)
        net = Net(layers=5)
        plain = copy.deepcopy(net)
        warmup = attach(net, T=2)
        model: nn.Module = net
        if how == "method":
            for block in net.layers:
                block.compile(backend="aot_eager")
        elif how == "wrapper":
            for i, block in enumerate(net.layers):
                net.layers[i] = torch.compile(block, backend="aot_eager")
        else:
            model = torch.compile(net, backend="aot_eager")
        for step in range(13):
            warmup.at(step)
            out = model(x)
            alphas = [min(step / (2 * l), 1.0) for l in range(1, 6)]
            torch.testing.assert_close(out, reference(plain, x, alphas))
            out.sum().backward()
        assert warmup.finished
        assert counters["stats"]["unique_graphs"] == 1

    @pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
    def test_graphs_of_an_unscaled_model_are_not_taken_for_a_scaled_one(
        self, backend: str, x
    ) -> None:
        """torch.compile keeps its graphs by code, not by model, and does not guard on hooks."""
        torch._dynamo.reset()
        plain, scaled = Net(), Net()
        scaled.load_state_dict(plain.state_dict())
        reference_net = copy.deepcopy(plain)
        for block in [*plain.layers, *scaled.layers]:
            block.compile(backend=backend)
        torch.testing.assert_close(plain(x), reference(reference_net, x, [1.0] * 4))
        warmup = attach(scaled)
        for step in (0, 3, 20, 40, 7):
            warmup.at(step)
            alphas = [min(step / (10 * l), 1.0) for l in range(1, 5)]
            torch.testing.assert_close(scaled(x), reference(reference_net, x, alphas))
            torch.testing.assert_close(plain(x), reference(reference_net, x, [1.0] * 4))

    def test_the_first_forward_proves_although_blocks_are_compiled(self, x) -> None:
        torch._dynamo.reset()
        net = Net()
        net.layers[1].mix.forward = lambda x: x * 0
        for block in net.layers:
            block.compile(backend="aot_eager")
        attach(net)
        with pytest.raises(BranchError, match="layers.1.mix.out"):
            net(x)

    @pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
    @pytest.mark.parametrize("when", ["checked", "eager before", "eager between"])
    def test_compiled_as_a_whole_stays_one_graph_whatever_ran_eagerly(
        self, when: str, backend: str, x
    ) -> None:
        torch._dynamo.reset()
        counters.clear()
        net = Net(layers=3)
        plain = copy.deepcopy(net)
        warmup = attach(net, T=2)
        model = torch.compile(net, backend=backend)
        if when == "checked":
            warmup.check(x)
        elif when == "eager before":
            net(x)
        for step in range(9):
            warmup.at(step)
            out = model(x)
            alphas = [min(step / (2 * l), 1.0) for l in range(1, 4)]
            torch.testing.assert_close(out, reference(plain, x, alphas))
            out.sum().backward()
            if when == "eager between" and step == 3:
                net(x)
        assert warmup.finished
        assert counters["stats"]["unique_graphs"] == 1

    @pytest.mark.parametrize("reentrant", [True, False])
    def test_activation_checkpointing_around_compiled_blocks(self, reentrant: bool, x) -> None:
        torch._dynamo.reset()
        net = Net()
        forward = type(net.layers[0]).forward
        plain = copy.deepcopy(net)
        for block in net.layers:
            block.compile(backend="aot_eager")

        def checkpointed(x: torch.Tensor) -> torch.Tensor:
            x = net.stem(x)
            for block in net.layers:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=reentrant)
            return x

        assert forward is type(net.layers[0]).forward
        net.forward = checkpointed
        warmup = attach(net)
        for step in (3, 9):
            warmup.at(step)
            net.zero_grad()
            plain.zero_grad()
            net(x).square().sum().backward()
            expected = reference(plain, x, [min(step / (10 * l), 1.0) for l in range(1, 5)])
            expected.square().sum().backward()
            torch.testing.assert_close(net.stem.weight.grad, plain.stem.weight.grad)

    def test_an_interrupted_proof_leaves_compilation_as_it_was(self, x) -> None:
        net = Net()
        for block in net.layers:
            block.compile(backend="aot_eager")
        warmup = attach(net)
        stop = net.layers[2].register_forward_pre_hook(_interrupt)
        with pytest.raises(KeyboardInterrupt):
            net(x)
        stop.remove()
        torch._dynamo.reset()
        counters.clear()
        net(x)
        net(x)
        assert counters["stats"]["unique_graphs"] >= 1  # and not run eagerly for ever
        assert warmup._proof.done


def _interrupt(module: nn.Module, args: object) -> None:
    raise KeyboardInterrupt


class TestPatterns:
    def test_an_unknown_model_gets_its_blocks_and_a_suggestion(self, net) -> None:
        with pytest.raises(ValueError, match=r"known for Net.*layers\.0…3 \(Block\)"):
            gu.attach(net, gu.depth.linear(T=1))
        net.layers[0].fc2 = nn.Linear(8, 8)
        ends = r"\['layers\.\{l\}\.mix\.out', 'layers\.\{l\}\.fc2'\]"
        with pytest.raises(ValueError, match=f"Perhaps branches={ends}$"):
            gu.attach(net, gu.depth.linear(T=1))

    @pytest.mark.parametrize(
        ("branches", "message"),
        [
            (["layers.{l}.nothing"], "matches no module of Net"),
            (["layers.0.mix.out"], "exactly once"),
            (["layers.{l}.{l}"], "exactly once"),
            ([], "give a list of patterns"),
            ("layers.{l}.mix.out", "give a list of patterns"),
            (["layers.{l}.mix.out", "layers.{l}.*.out"], "more than one pattern"),
            (["layers.{l}"], r"is a whole layer \(Block\).*repeated blocks: layers"),
            (["*.{l}.mix.out"], r"a \* stands before \{l\}"),
        ],
    )
    def test_bad_patterns(self, net, branches, message) -> None:
        with pytest.raises(ValueError, match=message):
            gu.attach(net, gu.depth.linear(T=1), branches=branches)

    def test_unequal_counts_over_layers_are_refused(self, net) -> None:
        net.layers[1].mix.extra = nn.ModuleDict({"out": nn.Linear(8, 8)})
        net.layers[2].out = nn.Linear(8, 8)
        net.layers[2].second = nn.ModuleDict({"out": nn.Linear(8, 8)})
        with pytest.raises(ValueError, match="matches unequally over the layers.*layer 2: 2"):
            gu.attach(net, gu.depth.linear(T=1), branches=["layers.{l}.*.out"])
        with pytest.raises(ValueError, match=r"does not reach layers \[0, 1, 3\]"):
            gu.attach(net, gu.depth.linear(T=1), branches=[*PATTERNS, "layers.{l}.out"])
        assert not any("residual_alpha" in m.__dict__ for m in net.modules())

    def test_the_layer_number_comes_from_the_name(self, net, x) -> None:
        stage = nn.Module()
        stage.layers = nn.ModuleDict({str(i): block for i, block in enumerate(net.layers, 6)})
        stage.forward = lambda x: [x := block(x) for block in stage.layers.values()][-1]
        warmup = gu.attach(stage, gu.depth.linear(T=1), branches=PATTERNS, depth=12)
        warmup.at(7)
        assert net.layers[0].mix.out.residual_alpha.item() == 1.0
        assert net.layers[3].mlp[2].residual_alpha.item() == pytest.approx(7 / 10)
        assert warmup.alphas().shape == (12,)
        remove_scaling(stage)
        with pytest.raises(ValueError, match="depth=9 .* layer number 10"):
            gu.attach(stage, gu.depth.linear(T=1), branches=PATTERNS, depth=9)

    def test_attaching_twice_is_refused(self, net) -> None:
        attach(net)
        with pytest.raises(ValueError, match="scaled already"):
            attach(net)

    def test_a_schedule_by_name_only_is_refused(self, net) -> None:
        with pytest.raises(ValueError, match="schedule='linear'"):
            gu.attach(net, "linear", branches=PATTERNS)


def test_alpha_of_a_branch_without_parameters_lives_where_its_layer_does(net) -> None:
    for block in net.layers:
        block.mlp.append(nn.Dropout(0.0))
    warmup = gu.attach(net, gu.depth.linear(T=1), branches=["layers.{l}.mlp.3"])
    assert warmup._branches[2].anchor is net.layers[2].mlp


def test_repr_says_what_it_is(net) -> None:
    warmup = attach(net)
    warmup.at(5)
    text = "<Warmup linear on Net: 8 branches, 4 layers, step 5 of 40, α 0.125 to 0.5>"
    assert repr(warmup) == text
    warmup.at(40)
    assert "step 40, finished, α 1 to 1" in repr(warmup)
    warmup.detach()
    assert "taken off" in repr(warmup)
    assert "step 0, α 0.25 to 0.25" in repr(gu.attach(net, gu.depth.fix_L(), branches=PATTERNS))


def test_both_branches_of_a_layer_share_one_tensor(net) -> None:
    attach(net)
    for block, other in itertools.pairwise(net.layers):
        assert block.mix.out.residual_alpha is block.mlp[2].residual_alpha
        assert block.mix.out.residual_alpha is not other.mix.out.residual_alpha
