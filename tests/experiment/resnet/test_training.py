"""A run: the phase of large updates, what each arm does, files, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from groundup.experiment.resnet import (
    ResNetRun,
    configurations,
    images,
    phase,
    study_arms,
    train_resnet,
)
from groundup.experiment.resnet.__main__ import main
from groundup.experiment.resnet.images import Images
from groundup.experiment.resnet.model import biases, seeded
from groundup.experiment.resnet.training import _Run
from tests.test_imports import loaded

CPU = torch.device("cpu")
SMALL = ResNetRun(width=2, batch=8, epochs=4, phase=2, rate=0.05, weight_decay=0.01)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> Images:
    """Twenty-six made-up images, so three updates an epoch."""
    draw = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 1, 8, 8, generator=draw) for n in (26, 6))
    made = Images(train, torch.arange(26) % 10, test, torch.arange(6), 10)
    monkeypatch.setattr(images, "_loaded", lambda kind, where: made)
    return made


def _updates(config: ResNetRun, few: Images) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    for epoch in range(config.epochs):
        for x, y in few.epoch(config.batch, (config.seed, epoch), config.augment):
            yield epoch, x, y


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_updates_of_the_phase_are_multiplied_and_no_others(
    optimizer: str, scale: float, few: Images
) -> None:
    config = replace(SMALL, scale=scale, optimizer=optimizer, rate=0.01)
    run = _Run(config, few, CPU)
    lines = list(run.lines())
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["step"] for line in lines] == [0, 3, 6, 9, 12]
    model = seeded(0, 1, 10, 2, torch.nn.ReLU)
    kept = {p: [torch.zeros_like(p) for _ in range(2)] for p in model.parameters()}
    losses = []
    for step, (epoch, x, y) in enumerate(_updates(config, few)):
        rate = 0.01 * (scale if epoch < 2 else 1.0) * (1 + math.cos(math.pi * step / 12)) / 2
        loss = F.cross_entropy(model(x), y)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        losses.append(loss.item())
        for p, g in zip(model.parameters(), gradients, strict=True):
            decay = 0.01 if p.ndim > 1 else 0.0
            first, second = kept[p]
            with torch.no_grad():
                if optimizer == "sgd":
                    first.mul_(0.9).add_(g + decay * p)
                    p -= rate * first
                else:
                    first.mul_(0.9).add_(0.1 * g)
                    second.mul_(0.999).add_(0.001 * g.square())
                    n = step + 1
                    root = (second / (1 - 0.999**n)).sqrt() + 1e-8
                    p -= rate * decay * p
                    p -= rate * first / (1 - 0.9**n) / root
    for epoch in range(4):
        mean = sum(losses[3 * epoch : 3 * epoch + 3]) / 3
        assert lines[epoch + 1]["train_loss"] == pytest.approx(mean, rel=1e-3)
    for name, parameter in run.model.state_dict().items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(
                parameter, model.state_dict()[name], rtol=2e-3, atol=2e-4, msg=name
            )


def test_frozen_biases_move_after_the_phase_alone(few: Images) -> None:
    run = _Run(replace(SMALL, arm="frozen-biases", scale=8.0), few, CPU)
    others = run.model.conv.weight.detach().clone()
    lines = run.lines()
    for epoch in range(5):
        next(lines)
        moved = [bool(bias.any()) for bias in biases(run.model)]
        assert moved == [epoch > 2] * 20
        assert torch.equal(run.model.conv.weight, others) == (epoch == 0)
    free = _Run(replace(SMALL, scale=8.0), few, CPU)
    begun = free.lines()
    next(begun), next(begun)
    assert all(bool(bias.any()) for bias in biases(free.model))


def test_random_gradients_have_the_norms_of_the_true_ones(few: Images) -> None:
    model = seeded(0, 1, 10, 2, torch.nn.ReLU)
    F.cross_entropy(model(few.train[:8]), few.train_labels[:8]).backward()
    true = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.bn.bias.grad.zero_()
    generator = phase.generator_of(0, CPU)
    phase.randomize(model, generator)
    first = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert not first.pop("bn.bias").any()
    for name, g in first.items():
        torch.testing.assert_close(g.norm(), true[name].norm())
        if g.numel() > 16:  # of fewer some directions are near
            assert F.cosine_similarity(g.flatten(), true[name].flatten(), dim=0) < 0.9
    # Another direction at every update.
    phase.randomize(model, generator)
    for name in ("conv.weight", "blocks.0.conv1.weight", "classifier.weight"):
        again = model.get_parameter(name).grad
        assert F.cosine_similarity(again.flatten(), first[name].flatten(), dim=0).abs() < 0.9


@pytest.mark.parametrize("name", ["standard", "random-gradients"])
def test_gradients_after_the_phase_are_the_true_ones(name: str, few: Images) -> None:
    calls = []
    run = _Run(replace(SMALL, arm=name), few, CPU)
    intervene = run.arm.intervene
    run.arm = replace(run.arm, intervene=lambda m, g: (calls.append(run._step), intervene(m, g)))
    list(run.lines())
    assert calls == list(range(6))


def test_a_killed_run_begins_anew_and_ends_the_same(tmp_path: Path) -> None:
    config = replace(SMALL, arm="random-gradients", scale=8.0, seed=3)

    def die(line: dict[str, object]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    whole = train_resnet(config, tmp_path / "whole", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        train_resnet(config, tmp_path / "killed", die, device="cpu")
    assert not (tmp_path / "killed" / "summary.json").exists()
    seen: list[dict[str, object]] = []
    again = train_resnet(config, tmp_path / "killed", seen.append, device="cpu")
    content = (tmp_path / "killed" / "metrics.jsonl").read_bytes()
    assert content == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert [json.loads(line) for line in content.splitlines()] == seen
    assert {k: v for k, v in again.items() if k != "wall_seconds"} == {
        k: v for k, v in whole.items() if k != "wall_seconds"
    }
    assert (again["status"], again["seed"], again["variant"]) == (
        "finished", 3, "random-gradients-8",
    )  # fmt: skip
    assert again["test_accuracy"] == seen[-1]["test_accuracy"]
    assert again["dead_share_after_phase"] == seen[2]["dead_share"]
    # A finished one is taken over.
    assert train_resnet(config, tmp_path / "whole", die, device="cpu") == whole
    with pytest.raises(ValueError, match=r"rate=0\.1 .* holds a finished run with rate=0\.05"):
        train_resnet(replace(config, rate=0.1), tmp_path / "whole")
    (tmp_path / "whole" / "summary.json").write_text('{"configuration": {}}')
    with pytest.raises(ValueError, match="damaged"):
        train_resnet(config, tmp_path / "whole")


def test_a_run_that_diverges_ends_with_its_numbers(tmp_path: Path) -> None:
    config = replace(SMALL, rate=1e30)
    summary = train_resnet(config, tmp_path, device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert summary["status"] == "diverged"
    assert summary["epochs"] == len(lines) - 2 < config.epochs
    assert lines[-1]["test_loss"] is None
    assert summary["test_accuracy"] == lines[-2]["test_accuracy"]
    json.dumps(summary, allow_nan=False)
    assert train_resnet(config, tmp_path) == summary


def test_what_is_not_valid_is_refused(tmp_path: Path) -> None:
    for field, value in (
        ("arm", "frozen"), ("scale", 0.0), ("scale", math.inf), ("phase", 4), ("epochs", 0),
        ("batch", 1), ("optimizer", "adam"), ("rate", -1.0), ("weight_decay", -0.1), ("width", 0),
        ("augment", "flip"), ("seed", -1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^{field}="):
            replace(SMALL, **{field: value})
    with pytest.raises(ValueError, match="batch=27 .* 26 training images"):
        train_resnet(replace(SMALL, batch=27), tmp_path)


@pytest.mark.parametrize("scale", ["cpu", "gpu", "paper"])
def test_every_arm_at_every_scale_with_five_seeds(scale: str) -> None:
    runs = configurations(scale)
    assert len({(run.variant, run.seed) for run in runs}) == len(runs) == 60
    assert {run.variant for run in runs} >= {"standard-1", "frozen-biases-8", "leaky-relu-128"}
    same = {replace(run, arm="standard", scale=1.0, seed=0) for run in runs}
    assert len(same) == 1
    assert {run.data for run in configurations(scale, data="cifar10:x", seeds=[7])} == {"cifar10:x"}
    with pytest.raises(ValueError, match="scale='tpu' is unknown"):
        configurations("tpu")  # type: ignore[arg-type]


def test_an_arm_of_a_study_is_trained_by_a_process_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = study_arms("cpu")({"epochs": 2, "phase": 1, "batch": 8, "width": 2})
    assert {(name, arm.run.variant) for name, arm in arms.items()} == {
        (run.variant, run.variant) for run in configurations("cpu")
    }
    arm = arms["leaky-relu-8"]
    file, folder = tmp_path / f"seed-3{arm.suffix}", tmp_path / "seed-3"
    file.write_text(arm.configuration("leaky-relu-8.peak-0.1", 0.1, 3))
    wanted = replace(arm.run, rate=0.1, seed=3)
    assert ResNetRun.from_json(file.read_bytes()) == wanted
    command = arm.command(str(file), str(folder))
    assert command[1:3] == ["-m", "groundup.experiment.resnet"]
    assert main(command[3:]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["configuration"] == json.loads(wanted.to_json())
    assert summary["test_error"] == pytest.approx(1 - summary["test_accuracy"])
    assert len(capsys.readouterr().out.splitlines()) == 3 + 1
    for text, message in (
        ('{"arms": 1}', "field='arms' is unknown: did you mean 'arm'"),
        ('{"rate": "high"}', "rate='high'"),
        ("[]", "JSON object"),
        ("{", "Expecting"),
    ):
        file.write_text(text)
        assert main(command[3:]) == 2
        assert message in capsys.readouterr().err
    assert main(["one"]) == 2
    assert main([str(tmp_path / "none.json"), str(folder)]) == 2


def test_planning_needs_no_torch() -> None:
    code = "from groundup.experiment import resnet; resnet.study_arms('gpu')({})"
    assert loaded(code) == []
