"""Loss by position against loops in float64, bins against what they are said to be."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.measure import positions
from groundup.measure.positions import binned, bins, loss_by_position
from groundup.model.loss import losses


def batch(b: int = 3, t: int = 7, v: int = 11) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    targets = torch.randint(v, (b, t), generator=draw)
    targets[0, 2] = targets[:, 4] = targets[1, 6] = -100
    return 3 * torch.randn(b, t, v, generator=draw), targets


def by_loop(logits: Tensor, targets: Tensor) -> tuple[list[float], list[int]]:
    sums, counts = [0.0] * logits.shape[1], [0] * logits.shape[1]
    for rows, wanted in zip(logits.double().tolist(), targets.tolist(), strict=True):
        for t, (row, target) in enumerate(zip(rows, wanted, strict=True)):
            if target != -100:
                sums[t] += math.log(math.fsum(map(math.exp, row))) - row[target]
                counts[t] += 1
    return sums, counts


@pytest.mark.parametrize("chunk", [1, 20, 1 << 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_against_a_loop(chunk: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "_CHUNK", chunk)
    logits, targets = batch()
    logits = logits.to(dtype)
    sums, counts = loss_by_position(logits, targets)
    expected, tokens = by_loop(logits, targets)
    # bf16 logits are raised first: no error but that of float32.
    assert sums.tolist() == pytest.approx(expected, rel=1e-12 if dtype == torch.float64 else 1e-6)
    assert counts.tolist() == tokens == [3, 3, 2, 3, 0, 3, 2]
    assert (sums.dtype, counts.dtype) == (torch.float64, torch.int64)


def test_adds_up_to_the_loss() -> None:
    logits, targets = batch(5, 40, 30)
    sums, counts = loss_by_position(logits.clone().requires_grad_(), targets)
    assert float(sums.sum()) == pytest.approx(float(losses(logits, targets).cross_entropy))
    assert not sums.requires_grad
    means = binned(sums, counts, [0, 40])
    assert means == pytest.approx([float(sums.sum()) / int(counts.sum())])


def test_logits_that_are_nan_where_they_do_not_count() -> None:
    logits, targets = batch()
    expected, _ = loss_by_position(logits, targets)
    logits[targets == -100] = math.nan
    assert torch.equal(loss_by_position(logits, targets)[0], expected)


def test_nothing_is_copied_whole() -> None:
    """Neither logits without their last position nor bf16 ones."""
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.data_ptr() not in here:
                largest = max(largest, result.numel())
            return result

    logits = torch.randn(4, 65, 32).bfloat16()[:, :-1]
    here = range(logits.data_ptr(), logits.data_ptr() + 4 * 65 * 32 * 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(positions, "_CHUNK", 256)
        with Largest():
            loss_by_position(logits, torch.zeros(4, 64, dtype=torch.long))
    assert largest == 256


def test_nothing_waits_for_the_device() -> None:
    """Tensors without data refuse whatever would need to know a number."""
    logits, targets = (x.to("meta") for x in batch())
    assert all(x.is_meta for x in loss_by_position(logits, targets))


def test_bins() -> None:
    assert bins(32) == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32]
    assert bins(127) == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 127]
    assert bins(1024)[-5:] == [256, 362, 512, 724, 1024]
    assert [bins(t) for t in (1, 2, 3, 5)] == [[0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]
    assert [bins(t)[-2:] for t in (33, 38, 39)] == [[23, 33], [23, 38], [32, 39]]  # of 32 … 45


@given(st.integers(1, 200_000))
def test_bins_cover_all_positions(length: int) -> None:
    edges = bins(length)
    assert (edges[0], edges[-1]) == (0, length)
    widths = [b - a for a, b in itertools.pairwise(edges)]
    assert min(widths) >= 1
    assert len(edges) <= 2 * math.log2(length) + 4
    for low, high in itertools.pairwise(edges):
        assert high - low == 1 or 1.15 < high / low < 1.75  # √2, rounded; the last one by a half


def test_binned() -> None:
    sums = torch.tensor([2.0, 3.0, 5.0, 0.0, 7.0], dtype=torch.float64)
    counts = torch.tensor([1, 2, 3, 0, 4])
    assert binned(sums, counts, [0, 1, 3, 4, 5]) == [2.0, 8 / 5, None, 7 / 4]
    assert binned(sums, counts, [1, 3]) == [8 / 5]
    sums[4] = math.nan
    assert binned(sums, counts, [0, 1, 5]) == [2.0, None]


def edged(*edges: int) -> list[float | None]:
    return binned(torch.ones(4), torch.ones(4), edges)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        (
            r"targets have shape \[2, 4\]",
            lambda: loss_by_position(torch.ones(2, 3, 5), _long(2, 4)),
        ),
        ("targets have shape", lambda: loss_by_position(torch.ones(3, 5), _long(3))),
        ("length=0", lambda: bins(0)),
        (r"counts have shape \[3\]", lambda: binned(torch.ones(4), torch.ones(3), [0, 3])),
        (r"edges=\[0, 5\].*at most 4", lambda: edged(0, 5)),
        (r"edges=\[0, 2, 2\]", lambda: edged(0, 2, 2)),
        (r"edges=\[-1, 2\]", lambda: edged(-1, 2)),
        (r"edges=\[0\]", lambda: edged(0)),
    ],
)
def test_refuses(message: str, wrong) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def _long(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.long)
