"""The step: followed, saved, loaded; the end: detached, folded."""

import copy
import io

import pytest
import torch

import groundup as gu
from tests.residual.toy import PATTERNS, Net, reference

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))


def made(T: float = 10) -> tuple[Net, gu.Warmup]:
    torch.manual_seed(0)
    net = Net()
    return net, gu.attach(net, gu.depth.linear(T=T), branches=PATTERNS)


def train(net: Net, optimizer: torch.optim.Optimizer, updates: int) -> list[float]:
    losses = []
    for _ in range(updates):
        optimizer.zero_grad()
        loss = (net(X) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_follow_advances_after_each_update_and_the_first_sees_step_zero() -> None:
    net, warmup = made()
    optimizer = torch.optim.AdamW(net.parameters())
    assert warmup.follow(optimizer) is warmup
    seen = []
    net.register_forward_pre_hook(lambda *_: seen.append(warmup.updates))
    train(net, optimizer, 3)
    assert seen == [0, 1, 2]
    assert warmup.alphas()[0] == pytest.approx(0.3)
    assert [g["residual_warmup_step"] for g in optimizer.param_groups] == [3]


@pytest.mark.parametrize("follow_first", [True, False])
def test_saving_the_optimizer_saves_the_step(follow_first: bool) -> None:
    net, warmup = made()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    warmup.follow(optimizer)
    train(net, optimizer, 5)
    file = io.BytesIO()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    expected = train(net, optimizer, 6)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, warmup2 = made()
    optimizer2 = torch.optim.AdamW(again.parameters(), lr=0.01)
    if follow_first:
        warmup2.follow(optimizer2)
    again.load_state_dict(saved["model"])
    optimizer2.load_state_dict(saved["optimizer"])
    if not follow_first:
        warmup2.follow(optimizer2)
    assert warmup2.updates == 5
    assert train(again, optimizer2, 6) == expected


def test_an_optimizer_saved_without_warmup_is_warned_about() -> None:
    net, warmup = made()
    bare = torch.optim.AdamW(net.parameters()).state_dict()
    optimizer = torch.optim.AdamW(net.parameters())
    warmup.follow(optimizer)
    warmup.at(7)
    with pytest.warns(UserWarning, match="saved without warmup.*stays at step 7"):
        optimizer.load_state_dict(bare)
    assert optimizer.param_groups[0]["residual_warmup_step"] == 7


def test_groups_added_later_and_several_groups_carry_the_step() -> None:
    net, warmup = made()
    optimizer = torch.optim.SGD([{"params": net.layers.parameters()}], lr=0.1)
    warmup.follow(optimizer)
    optimizer.add_param_group({"params": net.stem.parameters(), "lr": 0.01})
    train(net, optimizer, 2)
    assert [g["residual_warmup_step"] for g in optimizer.param_groups] == [2, 2]


def test_a_skipped_update_is_not_counted() -> None:
    net, warmup = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    warmup.follow(optimizer)
    net(X).sum().backward()
    optimizer.zero_grad()  # no optimizer.step(): as a gradient scaler does on overflow
    assert warmup.updates == 0


def test_counting_by_hand() -> None:
    net, warmup = made()
    net(X)
    for _ in range(4):
        warmup.step()
    assert warmup.updates == 4
    warmup.follow(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))
    assert warmup.updates == 4
    with pytest.raises(RuntimeError, match="followed optimizer counts"):
        warmup.step()
    with pytest.raises(RuntimeError, match="followed already: unfollow"):
        warmup.follow(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))


@pytest.mark.parametrize("step", [-1, 1.5, True, "3", None])
def test_bad_steps(step: object) -> None:
    _, warmup = made()
    with pytest.raises(ValueError, match="step="):
        warmup.at(step)  # type: ignore[arg-type]


def test_state_dict_round_trip_and_its_refusals() -> None:
    _, warmup = made()
    warmup.at(13)
    state = warmup.state_dict()
    net, other = made()
    other.load_state_dict(state)
    assert other.updates == 13
    assert net.layers[1].mix.out.residual_alpha.item() == pytest.approx(13 / 20)
    with pytest.raises(ValueError, match=r"depths=\[12\] .* \[4\] layers"):
        other.load_state_dict(state | {"depths": [12]})
    with pytest.raises(ValueError, match="lacks step"):
        other.load_state_dict({"schedule": "", "depths": [4]})
    with pytest.warns(UserWarning, match="goes on with"):
        other.load_state_dict(state | {"schedule": gu.depth.equal(T=4).to_json()})


def test_detach_gives_the_stock_model_and_warns_when_early() -> None:
    net, warmup = made()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    warmup.follow(optimizer)
    with pytest.warns(UserWarning, match="before every α is 1"):
        warmup.detach()
    assert torch.equal(net(X), reference(net, X, [1.0] * 4))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert "residual_warmup_step" not in optimizer.param_groups[0]
    train(net, optimizer, 1)
    assert warmup.updates == 0


def test_fold_keeps_the_function_without_hooks() -> None:
    net, warmup = made()
    warmup.at(7)
    expected = net(X)
    plain = Net()
    plain.load_state_dict(warmup.folded_state_dict())
    torch.testing.assert_close(plain(X), expected)
    assert torch.equal(net(X), expected)
    warmup.fold_()
    assert type(net.layers[0].mix.out) is torch.nn.Linear
    assert "residual_alpha" not in vars(net.layers[0].mix.out)
    torch.testing.assert_close(net(X), expected)
    assert set(net.state_dict()) == set(plain.state_dict())


def test_folding_at_the_end_changes_no_bit() -> None:
    net, warmup = made()
    warmup.at(40)
    for name, value in warmup.folded_state_dict().items():
        assert torch.equal(value, net.state_dict()[name])


def test_fold_is_refused_while_an_optimizer_is_followed() -> None:
    net, warmup = made()
    warmup.follow(torch.optim.SGD(net.parameters(), lr=0.1))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(RuntimeError, match="followed optimizer"):
        warmup.fold_()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_unfollowing_leaves_the_step_and_the_optimizer_clean() -> None:
    net, warmup = made()
    first, second = (torch.optim.SGD(net.parameters(), lr=0.1) for _ in range(2))
    warmup.follow(first)
    train(net, first, 3)
    warmup.unfollow()
    assert "residual_warmup_step" not in first.param_groups[0]
    train(net, first, 1)
    assert warmup.updates == 3
    warmup.follow(second)
    train(net, second, 2)
    assert warmup.updates == 5
    assert second.param_groups[0]["residual_warmup_step"] == 5
    warmup.unfollow()
    expected = net(X)
    warmup.fold_()
    torch.testing.assert_close(net(X), expected)


def test_fold_is_refused_where_it_would_be_wrong() -> None:
    net = Net()
    warmup = gu.attach(net, gu.depth.linear(T=3), branches=["layers.{l}.mlp.1"])
    with pytest.raises(ValueError, match="a GELU with no parameters is not known"):
        warmup.fold_()
    warmup.at(12)
    assert torch.equal(warmup.folded_state_dict()["stem.weight"], net.stem.weight)
    shared = Net()
    for block in shared.layers:
        block.mix.out.weight = shared.layers[0].mix.out.weight
    warmup = gu.attach(shared, gu.depth.linear(T=3), branches=PATTERNS)
    with pytest.raises(ValueError, match=r"layers\.0\.mix\.out: another module shares its weight"):
        warmup.folded_state_dict()


def test_fold_is_refused_for_a_forward_of_its_own_and_for_parametrizations() -> None:
    class Adapter(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(8, 8)
            self.extra = torch.nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + self.extra(x)

    def normed() -> torch.nn.Module:
        return torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(8, 8))

    for make in (Adapter, normed):
        net = Net()
        for block in net.layers:
            block.mix.out = make()
        warmup = gu.attach(net, gu.depth.linear(T=3), branches=PATTERNS)
        before = copy.deepcopy(net.state_dict())
        with pytest.raises(ValueError, match="not known to be linear in them"):
            warmup.fold_()
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_fold_is_refused_where_the_weight_serves_elsewhere_too() -> None:
    net = Net()
    net.stem.weight = net.layers[0].mix.out.weight
    warmup = gu.attach(net, gu.depth.linear(T=3), branches=PATTERNS)
    with pytest.raises(ValueError, match="another module shares its weight"):
        warmup.fold_()


@pytest.mark.parametrize("end", ["detach", "fold_"])
def test_after_the_end_it_does_nothing_more(end: str) -> None:
    net, warmup = made()
    warmup.at(40 if end == "detach" else 7)
    getattr(warmup, end)()
    expected = net(X)
    assert warmup.finished
    assert warmup.alphas().tolist() == [1.0] * 4
    for again in (
        warmup.step,
        warmup.fold_,
        warmup.folded_state_dict,
        lambda: warmup.at(3),
        lambda: warmup.check(X),
        lambda: warmup.load_state_dict({**warmup.state_dict(), "step": 3}),
        lambda: warmup.follow(torch.optim.SGD(net.parameters(), lr=0.1)),
    ):
        with pytest.raises(RuntimeError, match="attach again"):
            again()
    assert torch.equal(net(X), expected)


@pytest.mark.parametrize("fused", [True, False])
def test_an_overflow_that_a_gradient_scaler_skips_is_not_counted(fused: bool) -> None:
    net, warmup = made()
    optimizer = torch.optim.AdamW(net.parameters(), fused=fused)
    warmup.follow(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor, counted in ((1.0, 1), (float("inf"), 1), (1.0, 2)):
        before = net.stem.weight.clone()
        scaler.scale(net(X).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        assert warmup.updates == counted
        assert torch.equal(net.stem.weight, before) is (factor == float("inf"))


def test_making_the_state_of_a_fresh_optimizer_is_no_update() -> None:
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    net, warmup = made()
    optimizer = torch.optim.AdamW(net.parameters())
    warmup.follow(optimizer)
    get_optimizer_state_dict(net, optimizer)
    assert optimizer.state
    assert warmup.updates == 0


def test_a_first_update_at_rate_zero_counts() -> None:
    net, warmup = made()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.0)
    warmup.follow(optimizer)
    train(net, optimizer, 1)
    assert warmup.updates == 1


def test_following_an_optimizer_with_state_but_no_step_is_warned_about() -> None:
    net, warmup = made()
    optimizer = torch.optim.AdamW(net.parameters())
    train(net, optimizer, 2)
    with pytest.warns(UserWarning, match="not followed yet.*stays at step 0"):
        warmup.follow(optimizer)


def test_a_copy_of_model_and_warmup_lives_on_its_own() -> None:
    net, warmup = made()
    optimizer = torch.optim.AdamW(net.parameters())
    warmup.follow(optimizer)
    train(net, optimizer, 3)
    twin, twin_warmup, twin_optimizer = copy.deepcopy((net, warmup, optimizer))
    twin_warmup.follow(twin_optimizer)
    assert twin_warmup.updates == 3
    assert train(twin, twin_optimizer, 4) == train(net, optimizer, 4)
    assert twin_warmup.updates == warmup.updates == 7
    train(net, optimizer, 1)
    assert twin_warmup.updates == 7


def test_scaling_taken_off_behind_its_back_is_said() -> None:
    net, warmup = made()
    gu.residual.remove_scaling(net)
    with pytest.raises(RuntimeError, match=r"layers\.0\.mix\.out is no longer scaled"):
        warmup.at(3)


def test_updates_without_a_forward_that_was_seen_are_warned_about() -> None:
    _, warmup = made()
    warmup.step()
    warmup.step()
    with pytest.warns(UserWarning, match="not proven that its branches are scaled"):
        warmup.step()
    warmup.step()
