"""The network against the publication's numbers and against brute force."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from groundup.experiment.resnet.measuring import Measuring
from groundup.experiment.resnet.model import ResNet20, biases, seeded
from groundup.measure import stable_rank


def test_parameters_and_shapes_are_those_of_the_publication() -> None:
    model = ResNet20()
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    # Section 4.2: 3×3 convolutions with 16, 32 and 64 filters, 2n = 6 of each, after the first.
    assert [c.out_channels for c in convolutions] == [16] * 7 + [32] * 6 + [64] * 6
    assert all(c.kernel_size == (3, 3) for c in convolutions)
    fan_in = [3, *[16] * 7, *[32] * 6, *[64] * 5]
    weights = sum(9 * a * c.out_channels for a, c in zip(fan_in, convolutions, strict=True))
    assert sum(p.numel() for p in model.parameters()) == weights + 2 * 7 * 16 + 2 * 6 * 96 + 650
    assert weights + 2 * 7 * 16 + 2 * 6 * 96 + 650 == 269_722  # "0.27M"
    sizes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: sizes.append(list(out.shape[1:])))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert sizes == [[16, 32, 32]] * 3 + [[32, 16, 16]] * 3 + [[64, 8, 8]] * 3


def test_a_shortcut_has_no_parameters_and_the_rest_is_written_out() -> None:
    model = seeded(3, colours=1, classes=4, width=2, activation=nn.ReLU).double().eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.normal_(norm.bias)
        nn.init.uniform_(norm.running_mean)
    x = torch.randn(3, 1, 9, 9, dtype=torch.float64)

    def normed(norm: nn.BatchNorm2d, y: torch.Tensor) -> torch.Tensor:
        mean, variance, gain, shift = (
            v[:, None, None] for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (y - mean) / (variance + norm.eps).sqrt() * gain + shift

    h = normed(model.bn, F.conv2d(x, model.conv.weight, padding=1)).clamp(min=0)
    for index, block in enumerate(model.blocks):
        stride = 2 if index in (3, 6) else 1
        y = normed(block.bn1, F.conv2d(h, block.conv1.weight, stride=stride, padding=1))
        y = normed(block.bn2, F.conv2d(y.clamp(min=0), block.conv2.weight, padding=1))
        if stride == 2:
            h = torch.cat([h[..., ::2, ::2], torch.zeros_like(h[..., ::2, ::2])], 1)
        h = (h + y).clamp(min=0)
    expected = h.flatten(2).mean(2) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(x), expected)


def test_arms_begin_with_the_same_weights() -> None:
    state = torch.random.get_rng_state()
    relu, leaky, other = (
        seeded(seed, 3, 10, 4, act).state_dict()
        for seed, act in ((5, nn.ReLU), (5, nn.LeakyReLU), (6, nn.ReLU))
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert relu.keys() == leaky.keys()
    assert all(torch.equal(relu[name], leaky[name]) for name in relu)
    assert not torch.equal(relu["conv.weight"], other["conv.weight"])


def test_biases_are_the_norms_shifts_and_the_classifiers() -> None:
    model = ResNet20(width=2)
    assert len(biases(model)) == 19 + 1
    assert all(p.ndim == 1 and not p.any() for p in biases(model))


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
def test_measurements_against_brute_force(activation: type[nn.Module]) -> None:
    model = seeded(0, 1, 10, 4, activation)
    torch.manual_seed(1)
    probe, test = torch.randn(12, 1, 8, 8), (torch.randn(7, 1, 8, 8), torch.arange(7))
    measuring = Measuring(model, probe, test)
    with torch.no_grad():
        model.blocks[1].bn1.bias[:3] = -50.0  # dead
        model.blocks[4].bn2.bias[:5] = -50.0  # dead, unless the shortcut is larger
        for parameter in model.parameters():
            parameter.mul_(2)
    found = measuring()

    # Everything again, unit by unit, on a model in training mode, as the probe set was seen.
    inputs: dict[str, torch.Tensor] = {}
    for name in measuring.relus:
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: inputs.__setitem__(name, args[0].detach())
        )
    model.train()
    model(probe)
    dead = {
        name: [all(float(v) <= 0 for v in x[:, c].flatten()) for c in range(x.shape[1])]
        for name, x in inputs.items()
    }
    assert len(dead) == 19
    assert sum(dead["blocks.1.act1"]) >= 3
    flat = [unit for units in dead.values() for unit in units]
    assert found["dead_share"] == pytest.approx(sum(flat) / len(flat))
    assert found["dead_shares"] == pytest.approx([sum(u) / len(u) for u in dead.values()])
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert found["stable_ranks"] == pytest.approx([float(stable_rank(w)) for w in weights])
    assert found["stable_rank"] == pytest.approx(sum(found["stable_ranks"]) / 20)
    assert found["weight_norm"] == pytest.approx(2.0)
    assert all(norm.momentum == 0.1 for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))

    # The test images, normalized by what the probe set had: population statistics, except that
    # torch stores the sample variance.
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_pre_hook(_own_statistics)
    model.train()(probe)
    model.eval()
    for norm in norms:
        norm._forward_pre_hooks.clear()
    logits = model(test[0]).detach()
    assert found["test_loss"] == pytest.approx(float(F.cross_entropy(logits, test[1])), rel=1e-5)
    assert found["test_accuracy"] == float((logits.argmax(1) == test[1]).double().mean())


def _own_statistics(norm: nn.BatchNorm2d, args: tuple[torch.Tensor]) -> None:
    norm.momentum = 0.0  # keep what is set here
    norm.running_mean.copy_(args[0].detach().mean((0, 2, 3)))
    norm.running_var.copy_(args[0].detach().var((0, 2, 3), correction=1))
