"""Optimizers by name: each trains, resumes and decays as its entry says; bad input is refused."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import groundup as gu
from groundup.model import ModelConfig, Transformer
from groundup.optim import check, create, groups, info, names
from groundup.optim.entries import ENTRIES

NAMES = [entry.name for entry in ENTRIES]
# Rates that show an effect on a tiny model in few updates; otherwise the entry's.
RATES = {"adafactor": 0.1, "adagrad": 0.03, "lamb": 0.02, "lion": 1e-3, "sgd": 0.3}

Optimizer = torch.optim.Optimizer


def tiny() -> Transformer:
    return Transformer(ModelConfig(layers=2, width=16, heads=2, vocab_size=32))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences that go on by 3: easy to learn."""
    start = torch.randint(32, (8, 1), generator=torch.Generator().manual_seed(step))
    rows = (start + 3 * torch.arange(17)) % 32
    return rows[:, :-1], rows[:, 1:]


def train(
    model: Transformer, optimizer: Optimizer, steps: range, warmup: gu.Warmup | None = None
) -> list[float]:
    losses = []
    for step in steps:
        if warmup is not None:
            warmup.at(step)
        tokens, targets = batch(step)
        loss = model(tokens, targets).total / tokens.numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def rate(name: str) -> float:
    return RATES.get(name, info(name).defaults["lr"])


def matrix(seed: int = 0, rows: int = 6, columns: int = 4) -> nn.Parameter:
    draw = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(rows, columns, generator=draw))


def of_one(name: str, p: nn.Parameter, **options: Any) -> Optimizer:
    """An optimizer of one matrix."""
    more = {"use_muon": True} if info(name).matrices_only else {}
    return create(name, [{"params": [p], **more}], **options)


# ---------------------------------------------------------------------- every entry


@pytest.mark.parametrize("name", NAMES)
def test_trains_and_resumes_to_the_bit(name: str) -> None:
    model = tiny()
    optimizer = create(name, model, lr=rate(name))
    assert isinstance(optimizer, Optimizer)
    losses = train(model, optimizer, range(30))
    assert losses[-1] < losses[0] - 0.1

    saved = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    expected = train(model, optimizer, range(30, 35))

    other = tiny()
    other.load_state_dict(state["model"])
    resumed = create(name, other, lr=rate(name))
    resumed.load_state_dict(state["optimizer"])
    assert train(other, resumed, range(30, 35)) == expected
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_state_is_fit_for_a_distributed_checkpoint(name: str) -> None:
    """Flat, and in tensors only."""
    model = tiny()
    optimizer = create(name, model)
    train(model, optimizer, range(2))
    options = StateDictOptions(flatten_optimizer_state_dict=True)
    flat = get_optimizer_state_dict(model, optimizer, options=options)
    state = {key: value for key, value in flat.items() if key.startswith("state.")}
    assert state
    assert all(isinstance(value, torch.Tensor) for value in state.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_in_a_tensor(name: str) -> None:
    model, other = tiny(), tiny()
    with_number = create(name, model, lr=rate(name))
    tensor = torch.tensor(rate(name))
    with_tensor = create(name, other, lr=tensor)
    train(model, with_number, range(3))
    train(other, with_tensor, range(3))
    for group in with_number.param_groups:
        group["lr"] = rate(name) / 8
    tensor.fill_(rate(name) / 8)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, with_number, range(3, 5))
    train(other, with_tensor, range(3, 5))
    assert all(group["lr"] is tensor for group in with_tensor.param_groups)
    for p, q, start in zip(model.parameters(), other.parameters(), before, strict=True):
        # An update by the old rate would be off by 700%.
        assert (p - q).norm() <= 0.02 * (p - start).norm()


@pytest.mark.parametrize("name", NAMES)
def test_a_dormant_layer_stays_as_it_is(name: str) -> None:
    """Its gradients are exactly zero for ten updates: nothing but the decay may move it."""
    model = tiny()
    optimizer = create(name, model, lr=rate(name))
    warmup = gu.attach(model, gu.depth.by_name("stagewise-0", T=10))
    train(model, optimizer, range(1), warmup)  # Nero projects the weights
    before = {key: p.detach().clone() for key, p in model.layers[1].named_parameters()}
    train(model, optimizer, range(1, 10), warmup)
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    decaying = info(name).decay in ("decoupled", "L2")
    for key, p in model.layers[1].named_parameters():
        shrunk = (1 - rate(name) * decays[id(p)]) ** 9 if decaying else 1.0
        # SGD gathers λ·w in its momentum and schedule-free averages: both shrink by less at first.
        slack = {"sgd": 1e-3, "schedule-free-adamw": 2e-3}.get(name, 1e-5)
        torch.testing.assert_close(p, before[key] * shrunk, rtol=slack, atol=1e-6)
    losses = train(model, optimizer, range(10, 40), warmup)
    assert all(p.isfinite().all() for p in model.parameters())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", [n for n in NAMES if info(n).decay in ("decoupled", "angle")])
def test_decoupled_decay_and_decay_by_angle(name: str) -> None:
    """Without a gradient the first shrinks a weight by η·λ, the second leaves it."""
    p = matrix()
    before = p.detach().clone()
    optimizer = of_one(name, p, lr=0.125, weight_decay=0.5)
    p.grad = torch.zeros_like(p)
    optimizer.step()
    expected = before * (1 - 0.125 * 0.5) if info(name).decay == "decoupled" else before
    torch.testing.assert_close(p.detach(), expected)


@pytest.mark.parametrize("name", [n for n in NAMES if info(n).decay == "L2"])
def test_l2_decay_is_a_gradient(name: str) -> None:
    decayed, plain = matrix(), matrix()
    decayed.grad, plain.grad = torch.zeros_like(decayed), 0.5 * plain.detach()
    of_one(name, decayed, lr=0.1, weight_decay=0.5).step()
    of_one(name, plain, lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(decayed, plain)
    assert not torch.equal(decayed, matrix())


@pytest.mark.parametrize("name", [n for n in NAMES if info(n).decay == "angle"])
def test_of_a_model_rows_in_the_layers_keep_their_norms_and_those_of_the_head_do_not(
    name: str,
) -> None:
    model = tiny()
    matrices = {key: p for key, p in model.named_parameters() if p.ndim == 2}
    before = {key: p.detach().norm(dim=1) for key, p in matrices.items()}
    train(model, create(name, model, lr=rate(name)), range(5))
    for key, p in matrices.items():
        moved = (p.detach().norm(dim=1) / before[key] - 1).abs().max().item()
        assert moved < 1e-6 if key.startswith("layers.") else moved > 1e-3, key


@pytest.mark.parametrize("name", NAMES)
def test_what_an_entry_says_of_its_class(name: str) -> None:
    entry, model = info(name), tiny()
    optimizer = create(name, model)
    assert type(optimizer).__name__ == entry.where.partition(":")[2]
    assert hasattr(optimizer, "eval") == hasattr(optimizer, "train") == entry.modes
    assert entry.betas == any("betas" in group for group in optimizer.param_groups)
    fused = any(group.get("fused", False) for group in optimizer.param_groups)
    assert fused == (entry.fused != "no")
    decays = [group.get("weight_decay", 0.0) for group in optimizer.param_groups]
    assert decays[-1] == 0.0
    assert decays[0] == entry.defaults.get("weight_decay", 0.0)
    assert entry.description
    assert entry.source
    assert entry.warmup


# ---------------------------------------------------------------------- single ones


def test_adamw_is_torchs() -> None:
    """The optimizer that the trainer made by hand until now."""
    model, other = tiny(), tiny()
    ours = create("adamw", model, lr=2e-3, weight_decay=0.1)
    theirs = torch.optim.AdamW(groups(other, 0.1), lr=2e-3, betas=(0.9, 0.95), eps=1e-8, fused=True)
    assert train(model, ours, range(4)) == train(other, theirs, range(4))


def test_lamb_moves_a_tensor_by_the_rate() -> None:
    """‖Δw‖ = η·min(‖w‖, 10), of the paper, from the first update on."""
    p = matrix()
    for step in range(3):
        before = p.detach().clone()
        if step == 0:
            optimizer = of_one("lamb", p, lr=0.01, weight_decay=0.0)
        p.grad = matrix(step + 1).detach()
        optimizer.step()
        assert (p.detach() - before).norm().item() == pytest.approx(
            0.01 * before.norm().item(), rel=1e-4
        )


def test_nero_keeps_rows_at_norm_one() -> None:
    model = tiny()
    train(model, create("nero", model), range(3))
    for p in model.parameters():
        if p.ndim == 2:
            torch.testing.assert_close(p.norm(dim=1), torch.ones(len(p)), rtol=1e-4, atol=0)


def test_schedule_free_evaluates_its_average() -> None:
    model = tiny()
    optimizer = create("schedule-free-adamw", model)
    train(model, optimizer, range(5))
    training = copy.deepcopy(model.state_dict())
    optimizer.eval()  # type: ignore[attr-defined]
    assert not torch.equal(model.head.weight, training["head.weight"])
    optimizer.train()  # type: ignore[attr-defined]
    torch.testing.assert_close(model.head.weight.detach(), training["head.weight"])


def test_fused_only_where_nothing_else_is_said() -> None:
    model = tiny()
    assert create("adamw", model, foreach=True).param_groups[0]["fused"] is None
    assert create("adamw", model, fused=False).param_groups[0]["fused"] is False
    model.head.to("meta")
    assert create("adamw", model).param_groups[0]["fused"] is None


@pytest.mark.parametrize("name", NAMES)
def test_sharded_parameters(name: str, tmp_path: Path) -> None:
    """By FSDP2: what works does what it does on one process, what does not is refused at once."""
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model, plain = tiny(), tiny()
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        if not info(name).sharded:
            with pytest.raises(ValueError, match=rf"{name} is not valid for parameters sharded"):
                create(name, model)
            return
        losses = train(model, create(name, model), range(3))
        expected = train(plain, create(name, plain), range(3))
        assert losses == pytest.approx(expected, rel=1e-3 if name == "muon" else 1e-5)
    finally:
        dist.destroy_process_group()


# ---------------------------------------------------------------------- names and parameters


def test_names_and_other_spellings() -> None:
    assert names() == names(installed=False) == NAMES
    assert info("AdamW") is info("adamw")
    assert info("Schedule_Free_AdamW").name == "schedule-free-adamw"
    assert info("Muon").where == "groundup.optim.muon:Muon"


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("torch:Rprop", torch.optim.Rprop),
        ("RMSprop", torch.optim.RMSprop),
        ("pytorch_optimizer:Prodigy", None),
        ("pytorch_optimizer:AdEMAMix", None),
    ],
)
def test_any_other_class(name: str, cls: type | None) -> None:
    model = tiny()
    optimizer = create(name, model, lr=1e-3)
    assert cls is None or type(optimizer) is cls
    assert type(optimizer).__name__ == name.rpartition(":")[2]
    losses = train(model, optimizer, range(30))
    assert losses[-1] < losses[0]
    assert info(name).decay == "unknown"
    assert info(name).where.endswith(f":{type(optimizer).__name__}")


def test_parameters_groups_and_named_parameters_are_taken_as_they_are() -> None:
    model = tiny()
    assert len(create("adamw", model.parameters()).param_groups) == 1
    by_name = create("adamw", model.named_parameters())
    assert by_name.param_groups[0]["param_names"][0] == "embedding.weight"
    parts = groups(model, 0.3, by_layer=True)
    for lr in (1e-3, 2e-3):  # the groups themselves are not filled in
        made = create("adamw", parts, lr=lr)
        assert {group["lr"] for group in made.param_groups} == {lr}
    assert [g["weight_decay"] for g in made.param_groups] == [g["weight_decay"] for g in parts]
    same = create("adamw", model, weight_decay=0.3, by_layer=True)
    assert [g["name"] for g in same.param_groups] == [g["name"] for g in parts]
    with pytest.raises(ValueError, match="by_layer=True would be ignored"):
        create("adamw", parts, by_layer=True)
    with pytest.raises(ValueError, match="params is empty"):
        create("adamw", [])


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamv", {}, r"optimizer='adamv' is unknown: did you mean 'adam'"),
        ("os:Optimizer", {}, r"optimizer='os:Optimizer' is unknown"),
        ("torch:Optimizer", {}, r"optimizer='torch:Optimizer' is unknown"),
        ("pytorch_optimizer:Prodigi", {}, r"class='Prodigi' is unknown: did you mean 'Prodigy'"),
        ("adamw", {"beta": 0.9}, r"adamw: option='beta' is unknown: did you mean 'betas'"),
        ("sgd", {"betas": (0.9, 0.95)}, r"sgd: option='betas' is unknown"),
        ("lion", {"eps": 1e-8}, r"lion: option='eps' is unknown"),  # its **kwargs would swallow it
        ("pytorch_optimizer:Lion", {"momentum": 0.9}, r"option='momentum' is unknown"),
        ("nero", {"weight_decay": 0.1}, r"weight_decay=0.1 would be ignored: nero has no weight"),
        ("adamw", {"lr": -1.0}, r"lr=-1.0 is not valid"),
        ("adamw", {"lr": float("nan")}, r"lr=nan is not valid"),
        ("adamw", {"weight_decay": -0.1}, r"weight_decay=-0.1 is not valid"),
        ("adamw", {"betas": (0.9, 1.5)}, r"1.5"),
        ("lion", {"betas": (0.9, 1.5)}, r"beta2"),
        ("muon", {"adjust_lr_fn": "orginal"}, r"adjust_lr_fn='orginal'.*did you mean 'original'"),
        ("pytorch_optimizer:SAM", {}, r"pytorch_optimizer:SAM needs base_optimizer"),
        ("pytorch_optimizer:Lookahead", {}, r"is made of something else than parameters"),
    ],
)
def test_refused_before_there_is_a_model(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(name, **options)
    with pytest.raises(ValueError, match=message):
        create(name, tiny(), **options)


def test_a_decay_in_the_groups_of_an_optimizer_without() -> None:
    with pytest.raises(ValueError, match=r"weight_decay=0.1 would be ignored: nero"):
        create("nero", groups(tiny(), 0.1))
    create("nero", tiny(), weight_decay=0.0)


@pytest.mark.parametrize("name", NAMES)
def test_check_accepts_every_entry(name: str) -> None:
    check(name, lr=1e-3)


def test_options_through_kwargs_have_an_effect() -> None:
    """Those that an entry lets through; by Lion's `cautious` what disagrees stays where it is."""
    p, q = matrix(), matrix()
    for parameter, options in ((p, {}), (q, {"cautious": True})):
        optimizer = of_one("lion", parameter, lr=0.1, weight_decay=0.0, **options)
        for seed in (1, 2):
            parameter.grad = matrix(seed).detach()
            optimizer.step()
    assert not torch.equal(p, q)


def test_without_pytorch_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    assert "lion" not in names()
    assert "lion" in names(installed=False)
    assert "muon" in names()
    assert info("lion").decay == "decoupled"
    for name in ("lion", "pytorch_optimizer:Prodigy"):
        with pytest.raises(ValueError, match=r"pip install -U pytorch_optimizer"):
            create(name, tiny())


def test_importing_stays_light() -> None:
    code = (
        "import sys, groundup; assert 'torch.distributed.tensor' not in sys.modules\n"
        "from groundup import optim; optim.names(); optim.info('lion')\n"
        "import groundup.optim.grouping\n"
        "assert callable(optim.groups) and 'pytorch_optimizer' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_class_of_the_table_is_its_entry() -> None:
    for name in ("RotationalAdamW", "ScheduleFreeAdamW", "LionAR", "StableAdamW"):
        assert info(name) in ENTRIES
        assert info(name).where.endswith(f":{name}")
