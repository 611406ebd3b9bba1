"""Sketches against exact cosines: their mean, their scatter, their edges."""

from __future__ import annotations

import base64
import math

import pytest
import torch
from torch import Tensor

from groundup.measure.similarity import compare, sketch, standard_error


def pair(cosine: float, tokens: int, width: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two matrices whose rows have about this cosine, and lengths that differ widely."""
    one, other = torch.randn(2, tokens, width, generator=draw, dtype=torch.float64)
    other = cosine * one + math.sqrt(1 - cosine**2) * other
    lengths = torch.randn(2, tokens, 1, generator=draw).mul(2).exp()
    return lengths[0] * one, lengths[1] * other


def exact(a: Tensor, b: Tensor) -> float:
    """The definition, in a loop over tokens."""
    total = 0.0
    for x, y in zip(a.double().tolist(), b.double().tolist(), strict=True):
        inner = math.fsum(p * q for p, q in zip(x, y, strict=True))
        total += inner / math.hypot(*x) / math.hypot(*y)
    return total / len(a)


@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.9, -0.9])
@pytest.mark.parametrize("size", [64, 256])
def test_the_standard_error_holds(cosine: float, size: int) -> None:
    draw = torch.Generator().manual_seed(int(1000 * cosine) + size)
    errors = []
    for _ in range(250):
        a, b = pair(cosine, 16, 256, draw)
        errors.append(compare(sketch(a, size), sketch(b, size)) - exact(a, b))
    mean = sum(errors) / len(errors)
    scatter = math.sqrt(sum(e * e for e in errors) / len(errors))
    expected = standard_error(cosine, size)
    assert abs(mean) < 4 * expected / math.sqrt(len(errors)) + 1 / size * abs(cosine)
    # 250 errors tell their own scatter within 4.5%; 1 − size/(N·d) takes at most 3% off it.
    assert scatter == pytest.approx(expected, rel=0.15)


def test_outliers_in_some_features_do_no_harm() -> None:
    """Residual streams have a few features far larger than others; the projection mixes them."""
    draw = torch.Generator().manual_seed(1)
    gains = torch.ones(256, dtype=torch.float64)
    gains[[3, 77]] = 30.0
    errors = []
    for _ in range(200):
        a, b = (gains * x for x in pair(0.5, 64, 256, draw))
        errors.append(compare(sketch(a), sketch(b)) - exact(a, b))
    # Few numbers carry most of the length, 128 here; the error is that of the same order.
    scatter = math.sqrt(sum(e * e for e in errors) / len(errors))
    assert scatter < 1.5 * standard_error(0.5)


def test_small_changes_are_seen() -> None:
    draw = torch.Generator().manual_seed(2)
    for cosine in (0.99, 0.999):
        a, b = pair(cosine, 64, 256, draw)
        found = compare(sketch(a), sketch(b))
        assert found == pytest.approx(exact(a, b), abs=4 * standard_error(cosine) + 2e-4)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 128), (4, 256)])
def test_all_numbers_are_kept_where_they_fit(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, *shape, generator=draw)
    assert compare(sketch(a), sketch(b)) == pytest.approx(exact(a, b), abs=2e-3)
    assert compare(sketch(a), sketch(-3 * a)) == -1.0


def test_rounding_at_its_worst() -> None:
    """One number outweighs all others, which the rounding takes away: size/(12·127²)."""
    draw = torch.Generator().manual_seed(4)
    a, b = 0.0035 * torch.randn(2, 1, 1024, generator=draw)
    a[0, 0] = b[0, 0] = 1.0
    assert compare(sketch(a), sketch(b)) == pytest.approx(exact(a, b), abs=6e-3)


def test_of_the_same_is_exactly_one() -> None:
    x = torch.randn(7, 300, generator=torch.Generator().manual_seed(5))
    assert compare(sketch(x), sketch(x.clone())) == 1.0
    lengths = torch.tensor([0.25, 8.0, 1.0, 2.0, 4.0, 0.5, 1.0])[:, None]
    assert compare(sketch(x), sketch(lengths * x)) == 1.0
    assert compare(sketch(x), sketch(x.bfloat16())) > 0.999


def test_tokens_of_zeros() -> None:
    draw = torch.Generator().manual_seed(6)
    a, b = torch.randn(2, 8, 50, generator=draw)  # all numbers fit
    both_a, both_b = (torch.cat([x, torch.zeros(4, 50)]) for x in (a, b))
    assert compare(sketch(both_a), sketch(both_b)) == pytest.approx(exact(a, b), abs=2e-3)
    # 8 and 4 tokens of length 1, 4 of them the same.
    half = torch.cat([a[:4], torch.zeros(4, 50)])
    assert compare(sketch(a), sketch(half)) == pytest.approx(4 / math.sqrt(8 * 4), abs=2e-3)


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_nothing_to_compare(bad: float) -> None:
    x = torch.randn(4, 500, generator=torch.Generator().manual_seed(7))
    broken = torch.zeros_like(x) if bad == 0 else x.clone()
    broken[1, 3] = bad
    for a, b in ((x, broken), (broken, x), (broken, broken)):
        assert math.isnan(compare(sketch(a), sketch(b)))


def test_tiny_and_huge_numbers() -> None:
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(8))
    for factor in (1e-36, 1e36):
        assert compare(sketch(x), sketch(factor * x)) > 0.9999


def test_the_same_on_every_machine() -> None:
    """Sketches of a run may come from several releases of torch: its draws must not change."""
    x = torch.arange(1, 41, dtype=torch.float32).reshape(4, 10).sin()
    with torch.device("meta"):  # nor with the default device
        assert sketch(x, 20) == "BAAAAAoAAAABaoEV00MTnAY5Iys+34YM7je6AA=="


def test_size_and_random_state() -> None:
    state = torch.get_rng_state()
    text = sketch(torch.ones(128, 768))
    assert len(base64.b64decode(text)) == 8 + 1024
    assert torch.equal(state, torch.get_rng_state())


def test_standard_error() -> None:
    assert standard_error(0.0, 1024) == 1 / 32
    assert standard_error(1.0) == standard_error(-1.0) == 0.0
    assert standard_error(0.6, 100) == pytest.approx(0.064)


SKETCH = sketch(torch.ones(3, 4), 8)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        (r"x has shape \[4\].*\[tokens, width\]", lambda: sketch(torch.ones(4))),
        (r"x has shape \[0, 4\]", lambda: sketch(torch.ones(0, 4))),
        ("size=0 ", lambda: sketch(torch.ones(3, 4), 0)),
        (r"\[4, 3\] in 8 .*like a: of \[3, 4\]", lambda: compare(SKETCH, sketch(_ones(4, 3), 8))),
        ("in 9 numbers.* in 8", lambda: compare(SKETCH, sketch(torch.ones(3, 4), 9))),
        ("b='AAAA' .*what sketch", lambda: compare(SKETCH, "AAAA")),
        ("a='no base64'", lambda: compare("no base64", SKETCH)),
        ("cosine=1.5", lambda: standard_error(1.5)),
        ("size=0.5", lambda: standard_error(0.0, 0.5)),  # type: ignore[arg-type]
    ],
)
def test_refuses(message: str, wrong) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def _ones(*shape: int) -> Tensor:
    return torch.ones(*shape)
