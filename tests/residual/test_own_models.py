"""Models that nobody has a row for: what is suggested, what is refused, what is found out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import groundup as gu
from groundup.residual import BranchError, find_branches
from groundup.residual.suggestion import suggestion
from tests.residual.toy import PATTERNS, Net

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
LINEAR = gu.depth.linear(T=10)


class Pieces(nn.Module):
    """Layers that are mere containers and are never called themselves."""

    def __init__(self, bypass: bool = False, skip: bool = False) -> None:
        super().__init__()
        self.bypass, self.skip = bypass, skip
        parts = lambda: nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8)})  # noqa: E731
        self.trunk = nn.ModuleList(parts() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.skip:
            return x
        for layer in self.trunk:
            a = layer["a"]
            x = x + (F.linear(x, a.weight, a.bias) if self.bypass else a(x))
            x = x + layer["b"](x)
        return x


class Attending(nn.Module):
    """torch's attention in a layer of one's own, as torchvision's ViT and CLIP have it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.fc2 = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        x = x + self.attention(y, y, y)[0]
        return x + self.fc2(self.mlp(x))


def attending() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(Attending() for _ in range(3)))


ENDS = ["{l}.attention", "{l}.fc2"]


def test_a_branch_inside_another_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layers.0.mix.out is inside layers.0.mix, which is"):
        gu.attach(Net(), LINEAR, branches=["layers.{l}.mix", *PATTERNS])


def test_a_bypassed_branch_of_a_layer_that_is_never_called_is_found() -> None:
    branches = ["trunk.{l}.a", "trunk.{l}.b"]
    gu.attach(Pieces(), LINEAR, branches=branches).check(X)
    model = Pieces(bypass=True)
    gu.attach(model, LINEAR, branches=branches)
    with pytest.raises(BranchError, match=r"trunk.0.a ran 0 times.*A fused path bypasses"):
        model(X)


def test_check_is_not_content_with_layers_that_did_not_run() -> None:
    model = Pieces(skip=True)
    warmup = gu.attach(model, LINEAR, branches=["trunk.{l}.a"])
    with pytest.raises(BranchError, match="these branches did not run: trunk.0.a, trunk.1.a"):
        warmup.check(X)


def test_a_model_that_runs_twice_is_told_to_attach_to_what_does() -> None:
    net = Net()
    net.forward = lambda x, forward=net.forward: forward(x) + forward(-x)
    gu.attach(net, LINEAR, branches=PATTERNS)
    with pytest.raises(BranchError, match=r"ran 2 times.*attach to the part that does"):
        net(X)


class TestMultiheadAttention:
    @pytest.mark.parametrize("train", [True, False])
    def test_its_output_is_scaled(self, train: bool) -> None:
        model = attending().train(train)
        plain = copy.deepcopy(model)
        warmup = gu.attach(model, LINEAR, branches=ENDS)
        warmup.at(6)
        x = X
        for layer, alpha in zip(plain, (0.6, 0.3, 0.2), strict=True):
            y = layer.norm(x)
            x = x + alpha * layer.attention(y, y, y)[0]
            x = x + alpha * layer.fc2(layer.mlp(x))
        with torch.set_grad_enabled(train):
            torch.testing.assert_close(model(X), x)
        weights = model[0].attention(X, X, X)[1]
        torch.testing.assert_close(weights, plain[0].attention(X, X, X)[1])

    def test_it_is_folded_into_its_projection(self) -> None:
        model, stock = attending(), attending()
        warmup = gu.attach(model, LINEAR, branches=ENDS)
        warmup.at(6)
        stock.load_state_dict(warmup.folded_state_dict())
        torch.testing.assert_close(stock(X), model(X))

    def test_it_is_suggested_and_not_its_projection(self) -> None:
        assert f"branches={ENDS!r}" in suggestion(attending())


def named(attention: str, feed_forward: str) -> nn.Module:
    model = nn.Module()
    names = {"norm": nn.LayerNorm(4), attention: nn.Linear(4, 4), feed_forward: nn.Linear(4, 4)}
    model.trunk = nn.ModuleList(nn.ModuleDict(copy.deepcopy(names)) for _ in range(3))
    return model


class TestSuggestions:
    @pytest.mark.parametrize(
        "names",
        [("c_proj", "fc2"), ("wo", "w2"), ("out", "down"), ("o", "fc2"), ("out_lin", "lin2"),
         ("to_out", "ff2"), ("W_O", "fc_out")],
    )  # fmt: skip
    def test_usual_names_are_found_and_work_when_pasted(self, names: tuple[str, str]) -> None:
        model = named(*names)
        said = suggestion(model)
        patterns = eval(said.partition("Perhaps branches=")[2])
        assert patterns == [f"trunk.{{l}}.{name}" for name in names]
        assert len(find_branches(model, patterns)) == 6

    def test_one_end_only_is_said(self) -> None:
        assert "a Transformer's layer has two" in suggestion(named("something", "down"))

    def test_numbers_inside_a_name_and_stages_of_blocks(self) -> None:
        model = nn.Module()
        layer = lambda: nn.ModuleDict({"wo": nn.Linear(4, 4), "w2": nn.Linear(4, 4)})  # noqa: E731
        model.encoder = nn.Module()
        for number in range(3):
            model.encoder.add_module(f"layer_{number}", layer())
        model.stages = nn.ModuleList(
            nn.ModuleDict({"blocks": nn.ModuleList(layer() for _ in range(2))}) for _ in range(2)
        )
        said = suggestion(model)
        patterns = eval(said.partition("Perhaps branches=")[2])
        assert "encoder.layer_0…2 (ModuleDict), stages.0.blocks.0…1 (ModuleDict)" in said
        assert len(find_branches(model, patterns)) == 2 * (3 + 2 + 2)


class TestCheck:
    def test_a_mapping_stands_for_keywords(self) -> None:
        net = Net()
        warmup = gu.attach(net, LINEAR, branches=PATTERNS)
        warmup.check({"x": X})
        assert warmup._proof.done

    @pytest.mark.parametrize("compiled", [False, True])
    def test_running_statistics_are_not_touched(self, compiled: bool) -> None:
        torch._dynamo.reset()
        layers = [nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(5)) for _ in range(3)]
        model = nn.Sequential(*layers)
        warmup = gu.attach(model, LINEAR, branches=["{l}.1"])
        if compiled:
            model[0].compile(backend="eager")
            model(X)
        else:
            warmup.check(X)
        assert model[1][1].num_batches_tracked.item() == int(compiled)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: gu.attach(LINEAR, net), "is no torch.nn.Module .model comes first"),
        (lambda net: gu.attach(net, LINEAR, branches=[net.stem]), "names of modules"),
        (lambda net: gu.attach(net, LINEAR, branches=PATTERNS, layers=3), "a list of layer numb"),
        (lambda net: gu.attach(net, LINEAR, branches=PATTERNS).follow(net), "of type Net is not"),
    ],
)
def test_arguments_of_another_kind(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call(Net())
    assert len(str(error.value)) < 400
