"""Which layer is l: one stack, several, some of the layers; and models inside wrappers."""

import copy

import pytest
import torch
from torch import nn

import groundup as gu
from groundup.residual import BranchError
from tests.residual.toy import PATTERNS, Block, Net, reference

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


class Pair(nn.Module):
    """Two stacks of different depth, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.ModuleList(Block(8) for _ in range(2))
        self.decoder = nn.ModuleList(Block(8) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in [*self.encoder, *self.decoder]:
            x = block(x)
        return x


BOTH = [f"{stack}.{{l}}.{end}" for stack in ("decoder", "encoder") for end in ("mix.out", "mlp.2")]


def by_hand(model: Pair, alphas: list[float]) -> torch.Tensor:
    net = Net(layers=0)
    net.stem = nn.Identity()
    net.layers = nn.ModuleList([*model.encoder, *model.decoder])
    return reference(net, X, alphas)


@pytest.mark.parametrize(
    ("stacks", "alphas"),
    [
        ("each", [0.6, 0.3, 0.6, 0.3, 0.2]),
        ("through", [0.6, 0.3, 0.2, 0.15, 0.12]),
    ],
)
def test_two_stacks_are_counted_each_or_through(stacks: str, alphas: list[float]) -> None:
    model = Pair()
    plain = copy.deepcopy(model)
    warmup = gu.attach(model, gu.depth.linear(T=10), branches=BOTH, stacks=stacks)
    warmup.at(6)
    torch.testing.assert_close(model(X), by_hand(plain, alphas))
    torch.testing.assert_close(warmup.alphas(), torch.tensor(alphas))


def test_each_stack_has_its_own_depth_in_a_schedule_that_depends_on_it() -> None:
    model = Pair()
    plain = copy.deepcopy(model)
    warmup = gu.attach(model, gu.depth.reverse(T=10), branches=BOTH)
    warmup.at(3)
    alphas = [0.3 / 2, 0.3, 0.1, 0.3 / 2, 0.3]
    torch.testing.assert_close(model(X), by_hand(plain, alphas))
    warmup.at(29)
    assert not warmup.finished
    warmup.at(30)
    assert warmup.finished
    with pytest.raises(ValueError, match=r"depths=\[5\] .* \[2, 3\]"):
        warmup.load_state_dict(warmup.state_dict() | {"depths": [5]})


def test_only_some_layers_are_counted_among_themselves() -> None:
    torch.manual_seed(0)
    net = Net(layers=6)
    plain = copy.deepcopy(net)
    warmup = gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS, layers=[5, 1, 4])
    warmup.at(3)
    torch.testing.assert_close(net(X), reference(plain, X, [1, 0.3, 1, 1, 0.15, 0.1]))
    assert warmup.alphas().shape == (3,)
    assert warmup.finished is False
    warmup.at(30)
    assert warmup.finished


def test_a_pipeline_stage_counts_chosen_layers_of_the_whole_model() -> None:
    net = Net(layers=6)
    stage = nn.Module()
    stage.layers = nn.ModuleDict({str(i): net.layers[i] for i in (3, 4, 5)})
    kwargs = {"branches": PATTERNS, "layers": [1, 4, 5]}
    with pytest.raises(ValueError, match="there is no layer 1, only 3 to 5"):
        gu.attach(stage, gu.depth.linear(T=10), **kwargs)
    warmup = gu.attach(stage, gu.depth.linear(T=10), depth=6, **kwargs)
    warmup.at(6)
    assert "residual_alpha" not in vars(net.layers[3].mix.out)
    assert net.layers[4].mix.out.residual_alpha.item() == pytest.approx(0.3)
    assert net.layers[5].mix.out.residual_alpha.item() == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"layers": [7]}, r"layers=\[7\] is not valid: there is no layer 7, only 0 to 3"),
        ({"layers": [-1]}, "layers=-1 is not valid"),
        ({"layers": []}, "chooses no layer"),
        ({"stacks": "both"}, "stacks='both' is unknown.*each, through"),
        ({"depth": 3}, "depth=3 is not valid: the model has a layer number 4"),
    ],
)
def test_bad_numbering_is_refused_and_nothing_is_changed(kwargs, message) -> None:
    net = Net()
    with pytest.raises(ValueError, match=message):
        gu.attach(net, gu.depth.linear(T=1), branches=PATTERNS, **kwargs)
    assert not any("residual_alpha" in m.__dict__ for m in net.modules())
    assert not net._forward_pre_hooks


def test_a_depth_for_several_stacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth=9 is for one stack.*\['encoder', 'decoder'\]"):
        gu.attach(Pair(), gu.depth.linear(T=1), branches=BOTH, depth=9)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_wrappers_that_replicate_are_looked_through(wrap) -> None:
    plain = Net()
    net = wrap(copy.deepcopy(plain))
    warmup = gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
    warmup.at(3)
    torch.testing.assert_close(net(X), reference(plain, X, [0.3, 0.15, 0.1, 0.075]))
    assert list(warmup.folded_state_dict()) == list(Net().state_dict())


class Dropping(Net):
    """Skips layers as a whole (layer drop), first one, then another."""

    skipped = 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for number, block in enumerate(self.layers):
            x = x if number == self.skipped else block(x)
        return x


def test_a_layer_that_stands_aside_is_proven_when_it_runs() -> None:
    net = Dropping()
    warmup = gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
    net(X)
    assert not warmup._proof.done
    net.skipped = 0
    net(X)
    assert warmup._proof.done


def test_a_layer_that_is_bypassed_when_it_runs_is_found_then() -> None:
    net = Dropping()
    gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
    net(X)
    net.skipped = 0
    net.layers[2].mix.forward = lambda x: x
    with pytest.raises(BranchError, match="layers.2.mix.out ran 0 times"):
        net(X)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_layer_that_never_runs_is_said(compiled: bool) -> None:
    torch._dynamo.reset()
    net = Dropping()
    warmup = gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
    if compiled:
        for block in net.layers:
            block.compile(backend="eager")
    net(X)
    net(X)
    with pytest.warns(UserWarning, match="did not run.*layers.2.mix.out, layers.2.mlp.2"):
        net(X)
    assert warmup._proof.done


class TestReminder:
    def test_training_without_advancing_is_said_once(self) -> None:
        net = Net()
        gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
        net.eval()
        for _ in range(200):
            net(X)
        net.train()
        for _ in range(199):
            net(X)
        with pytest.warns(UserWarning, match=r"200 training forwards.*follow\(optimizer\)"):
            net(X)
        assert not net._forward_pre_hooks

    @pytest.mark.parametrize("how", ["follow", "at", "step"])
    def test_it_is_quiet_where_somebody_counts(self, how: str) -> None:
        net = Net()
        warmup = gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
        net(X)
        optimizer = torch.optim.SGD(net.parameters())
        {"follow": lambda: warmup.follow(optimizer), "at": lambda: warmup.at(0),
         "step": warmup.step}[how]()  # fmt: skip
        assert not net._forward_pre_hooks


class TestTrainedWeights:
    def test_a_schedule_from_zero_on_trained_weights_is_warned_about(self) -> None:
        net = Net()
        with torch.no_grad():
            net.layers[0].norm2.weight.normal_()
        with pytest.warns(UserWarning, match="look trained, and linear starts at α = 0"):
            warmup = gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
        warmup.at(40)
        warmup.detach()

    @pytest.mark.filterwarnings("error")
    def test_it_is_quiet_for_new_weights_new_layers_and_schedules_above_zero(self) -> None:
        net = Net()
        warmup = gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
        warmup.at(40)
        warmup.detach()
        with torch.no_grad():
            net.layers[0].norm2.weight.normal_()
        for kwargs in ({"layers": [3]}, {}):
            schedule = gu.depth.linear(T=10) if kwargs else gu.depth.fix_L()
            warmup = gu.attach(net, schedule, branches=PATTERNS, **kwargs)
            gu.residual.remove_scaling(net)

    def test_meta_weights_are_not_asked(self) -> None:
        with torch.device("meta"):
            net = Net()
        gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)


def test_a_module_replaced_after_attach_is_an_error_at_the_next_step() -> None:
    net = Net()
    warmup = gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
    warmup.at(1)
    net.layers[1].mix.out = nn.Sequential(net.layers[1].mix.out, nn.Linear(8, 8))
    with pytest.raises(RuntimeError, match="layers.1.mix.out was replaced by a Sequential"):
        warmup.at(2)


class TestOptimizers:
    class Wrapped(torch.optim.Optimizer):
        """As Accelerate's and Lightning's: an optimizer that holds one."""

        def __init__(self, optimizer: object) -> None:
            self.optimizer = optimizer

        def step(self, closure=None) -> None:
            self.optimizer.step()

    def test_a_wrapped_optimizer_is_followed_inside(self) -> None:
        net = Net()
        warmup = gu.attach(net, gu.depth.linear(T=10), branches=PATTERNS)
        inner = torch.optim.SGD(net.parameters())
        outer = self.Wrapped(self.Wrapped(inner))
        warmup.follow(outer)
        net(X).sum().backward()
        outer.step()
        assert warmup.updates == 1
        assert inner.param_groups[0]["residual_warmup_step"] == 1

    def test_what_is_no_torch_optimizer_is_refused(self) -> None:
        warmup = gu.attach(Net(), gu.depth.linear(T=10), branches=PATTERNS)
        for optimizer in (object(), self.Wrapped(object())):  # the second as DeepSpeed's
            with pytest.raises(ValueError, match=r"needs a torch\.optim\.Optimizer"):
                warmup.follow(optimizer)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loop_that_calls_a_part_of_the_model_is_proven_and_reminded(compiled: bool) -> None:
    outer = nn.Module()
    outer.net = Net()  # and outer has no forward
    if compiled:
        outer.net.layers[0].compile(backend="eager")
    warmup = gu.attach(
        outer, gu.depth.linear(T=10), branches=[f"net.{pattern}" for pattern in PATTERNS]
    )
    outer.net(X)
    assert warmup._proof.done
    for _ in range(198):
        outer.net(X)
    with pytest.warns(UserWarning, match="200 training forwards"):
        outer.net(X)
