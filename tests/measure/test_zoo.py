"""Every architecture of the table: what is seen of its layers, against hooks of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tests.torchvision_shim  # noqa: F401 (before what imports torchvision)
from groundup.measure import find_layers, observe
from tests.residual.zoo import SPECIMENS, Specimen

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about their own settings


def first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def noting(norms: dict[Any, float], key: Any) -> Callable[..., None]:
    """A hook that keeps the mean norm of what a module first returns."""

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        norms.setdefault(key, float(first(output).detach().norm(dim=-1).mean()))

    return hook


@pytest.mark.parametrize("specimen", SPECIMENS, ids=lambda s: s.id)
def test_layers_and_branches_are_seen(specimen: Specimen) -> None:
    if specimen.library in ("transformers", "timm"):
        pytest.importorskip(specimen.library)
    model, inputs = specimen.make(), specimen.inputs()
    layers = find_layers(model, specimen.patterns)
    assert len(layers) == sum(specimen.stacks.values())
    streams: dict[str, float] = {}
    branches: dict[tuple[str, str], float] = {}
    own = []
    for layer in layers:
        own.append(layer.block.register_forward_hook(noting(streams, layer.name)))
        for branch, module in layer.branches.items():
            own.append(module.register_forward_hook(noting(branches, (layer.name, branch))))
    with torch.no_grad():
        before = specimen.output(model)
    for hook in own:
        hook.remove()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with observe(
        model, optimizer, ["stream"], probe=inputs, branches=specimen.patterns
    ) as observer:
        found = observer.look(0)
    expected = [streams[layer.name] for layer in layers]
    assert found["stream_norm/layers"] == pytest.approx(expected, rel=1e-4)
    for branch in {name for _, name in branches}:
        values = [branches.get((layer.name, branch)) for layer in layers]
        for seen, wanted in zip(found[f"branch_norm/{branch}/layers"], values, strict=True):
            assert seen == (wanted if wanted is None else pytest.approx(wanted, rel=1e-4))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in _plain(model))
    with torch.no_grad():
        assert torch.equal(specimen.output(model), before)


def _plain(model: nn.Module) -> list[nn.Module]:
    """Modules without hooks of their own library's."""
    return [m for m in model.modules() if type(m).__module__.startswith("torch.nn")]
