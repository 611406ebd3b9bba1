"""Attention as it is seen, one call at a time: against loops in float64 and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from groundup.measure import attention
from groundup.measure.attention import Watch, attention_entropy
from tests.measure.attention_loop import close, drawn, loop, loop_of, seen


def masks() -> dict[str, dict[str, Any]]:
    draw = torch.rand(2, 4, 5, 7, generator=torch.Generator().manual_seed(1))
    some = draw > 0.4
    some[0, 1, 2] = False  # a query without any key
    bias = drawn(2, 4, 5, 7, seed=2)
    low = torch.finfo(torch.float64).min
    return {
        "none": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": some},
        "bool, shared": {"attn_mask": some[:1, :1]},
        "bool [T, S]": {"attn_mask": some[1, 1]},
        "-inf": {
            "attn_mask": torch.zeros(2, 1, 5, 7).masked_fill(~some[:, :1], -math.inf).double()
        },
        "least": {"attn_mask": torch.zeros(2, 4, 5, 7).double().masked_fill(~some, low)},
        "-1e9": {"attn_mask": torch.zeros(1, 4, 5, 7).double().masked_fill(~some[1:], -1e9)},
        "bias": {"attn_mask": bias},
        "bias and mask": {"attn_mask": bias.masked_fill(~some, -math.inf)},
        "scale": {"scale": 0.7},
    }


@pytest.mark.parametrize("chunk", [1, 20, 80, 1 << 22])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("case", masks())
def test_fused_attention_against_a_loop(
    case: str, kv_heads: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_CHUNK", chunk)
    q, k = drawn(2, 4, 5, 8), 2 * drawn(2, kv_heads, 7, 8, seed=1)
    settings = masks()[case]
    allowed = bias = None
    mask = settings.get("attn_mask")
    if settings.get("is_causal"):
        allowed = torch.ones(5, 7).tril().bool().expand(2, 4, 5, 7)
    elif mask is not None and mask.dtype == torch.bool:
        allowed = mask.expand(2, 4, 5, 7)
    elif mask is not None:
        allowed, bias = (mask > -1e8).expand(2, 4, 5, 7), mask.expand(2, 4, 5, 7)
    expected = loop_of(q, k, allowed, bias, **{n: x for n, x in settings.items() if n == "scale"})
    result = []

    def call() -> None:
        out = F.scaled_dot_product_attention(q, k, k, enable_gqa=kv_heads < 4, **settings)
        result.append(out)

    close(seen(call), expected, rel=1e-10)
    call()
    assert torch.equal(*result)


@pytest.mark.parametrize("lead", [(), (6,), (2, 3, 2)])
def test_any_number_of_dimensions(lead: tuple[int, ...]) -> None:
    q, k = drawn(*lead, 5, 8), drawn(*lead, 7, 8, seed=1)
    expected = loop_of(q.reshape(1, -1, 5, 8), k.reshape(1, -1, 7, 8))
    close(seen(lambda: F.scaled_dot_product_attention(q, k, k)), expected, rel=1e-10)


def test_named_arguments_and_shared_keys() -> None:
    q, k = drawn(2, 3, 5, 8), drawn(2, 1, 7, 8, seed=1)
    found = seen(lambda: F.scaled_dot_product_attention(query=q, key=k, value=k))
    close(found, loop_of(q, k), rel=1e-10)


SOFTMAXES: dict[str, Callable[[Tensor], Tensor]] = {
    "F.softmax": lambda x: F.softmax(x, dim=-1),
    "F.softmax, dtype": lambda x: F.softmax(x, -1, dtype=torch.float64),
    "torch.softmax": lambda x: torch.softmax(x, 3),
    "torch.softmax, named": lambda x: torch.softmax(input=x, dim=-1),
    "torch.special.softmax": lambda x: torch.special.softmax(x, -1),
    "Tensor.softmax": lambda x: x.softmax(dim=-1),
    "nn.Softmax": nn.Softmax(dim=-1),
}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_attention_by_hand(name: str) -> None:
    scores = drawn(2, 3, 4, 6).masked_fill(drawn(2, 3, 4, 6, seed=1) > 0.5, -math.inf)
    scores[1, 1, 1] = -math.inf
    rows = [[s for s in row if s > -math.inf] for row in scores.flatten(0, 2).tolist()]
    close(seen(lambda: SOFTMAXES[name](scores)), loop(rows), rel=1e-10)


def test_what_is_not_attention() -> None:
    x = drawn(2, 3, 4, 6)
    with Watch() as watch:
        x.softmax(-1)  # outside of a layer
        F.scaled_dot_product_attention(x, x, x)
        watch.layer = 0
        x.softmax(1)
        F.softmax(x, dim=2)
        x[0].softmax(-1)  # a router's [B, T, experts]
        F.log_softmax(x, -1)
        F.scaled_dot_product_attention(x[:0], x[:0], x[:0])
    assert watch.results() == {}


def test_subclasses_are_left_to_themselves() -> None:
    from torch.nn.attention.bias import causal_lower_right

    q = drawn(1, 2, 4, 8)
    with Watch() as watch:
        watch.layer = 0
        found = F.scaled_dot_product_attention(q, q, q, attn_mask=causal_lower_right(4, 4))
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, q, q, is_causal=True))
    assert watch.results() == {}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_left_to_themselves(layout: torch.layout) -> None:
    rows = [drawn(4, 2, 8), drawn(6, 2, 8)]  # [T, H, D]
    q = torch.nested.nested_tensor(rows, layout=layout).transpose(1, 2)
    q = q.contiguous() if layout == torch.strided else q
    with Watch() as watch:
        watch.layer = 0
        found = F.scaled_dot_product_attention(q, q, q)
    for one, row in zip(found.transpose(1, 2).unbind(), rows, strict=True):
        q = row.transpose(0, 1)
        torch.testing.assert_close(one.transpose(0, 1), F.scaled_dot_product_attention(q, q, q))
    assert watch.results() == {}


def test_what_it_refuses_is_said_by_torch() -> None:
    x = drawn(1, 2, 4, 8)
    with Watch() as watch:
        watch.layer = 0
        with pytest.raises(RuntimeError, match="same embedding|size"):
            F.scaled_dot_product_attention(x, x[..., :4], x)
    assert watch.results() == {}


def test_several_calls_in_a_layer_are_taken_together() -> None:
    q, k = drawn(2, 3, 5, 8), drawn(2, 3, 7, 8, seed=1)

    def both() -> None:
        F.scaled_dot_product_attention(q, q, q, is_causal=True)
        F.scaled_dot_product_attention(q, k, k)

    causal = torch.ones(5, 5).tril().bool().expand(2, 3, 5, 5)
    one, other = loop_of(q, q, causal), loop_of(q, k)
    logs = [6 * sum(math.log(n) for n in range(1, 6)), 30 * math.log(7)]
    uniform = 30 * (one[0] + other[0]) / sum(logs)
    close(seen(both), ((one[0] + other[0]) / 2, uniform, max(one[2], other[2])), rel=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_attending_evenly(causal: bool) -> None:
    q, k = torch.zeros(2, 3, 6, 8), drawn(2, 3, 6, 8, dtype=torch.float32)
    found = seen(lambda: F.scaled_dot_product_attention(q, k, k, is_causal=causal))
    entropy = math.lgamma(7) / 6 if causal else math.log(6)
    close(found, (entropy, 1.0, 0.0))
    assert found[1] <= 1.0


def test_attending_to_one_key() -> None:
    eye = 1e3 * torch.eye(8).expand(2, 3, 8, 8)
    close(seen(lambda: F.scaled_dot_product_attention(eye, eye, eye)), (0.0, 0.0, 1e6 / 8**0.5))


def test_a_single_key_says_nothing_of_evenness() -> None:
    q = drawn(2, 3, 1, 8)
    entropy, uniform, logit = seen(lambda: F.scaled_dot_product_attention(q, q, q))
    assert entropy == 0.0
    assert math.isnan(uniform)
    assert logit == pytest.approx(float(q.square().sum(-1).max()) / math.sqrt(8))


def test_one_query_and_many_keys() -> None:
    q, k = drawn(2, 3, 1, 8), drawn(2, 3, 9, 8, seed=1)
    close(seen(lambda: F.scaled_dot_product_attention(q, k, k)), loop_of(q, k), rel=1e-10)


def test_entropy_of_probabilities() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0]]).bfloat16()
    found = attention_entropy(p)
    close(found.tolist(), [1.5 * math.log(2), 0.0])
    assert found.dtype == torch.float32


def test_what_is_not_finite_is_not_hidden() -> None:
    scores = drawn(1, 2, 3, 3)
    scores[0, 0, 1, 1] = math.nan
    entropy, uniform, logit = seen(lambda: scores.softmax(-1))
    assert math.isnan(entropy)
    assert math.isnan(uniform)
    assert logit == float(scores.nan_to_num(-9.0).max())
    nothing = torch.full((1, 1, 2, 2), -math.inf)
    assert all(math.isnan(x) for x in seen(lambda: nothing.softmax(-1)))


def test_half_precision_is_raised() -> None:
    q, k = (drawn(2, 4, 16, 32, seed=s).bfloat16() for s in (0, 1))
    found = seen(lambda: F.scaled_dot_product_attention(q, k, k))
    close(found, loop_of(q, k), rel=1e-6)
    scores = (6e4 * torch.tensor([[1.0, -1.0, 0.1]])).half()[None, None]  # near its end
    scores[..., 1] = torch.finfo(torch.float16).min
    expected = loop([[float(scores[..., 0]), float(scores[..., 2])]])
    close(seen(lambda: F.softmax(scores, -1, dtype=torch.float32)), expected)


def test_dropout_and_random_state() -> None:
    q = drawn(2, 2, 6, 8)
    call = lambda: F.scaled_dot_product_attention(q, q, q, dropout_p=0.5)  # noqa: E731
    torch.manual_seed(0)
    expected, after = call(), torch.get_rng_state()
    torch.manual_seed(0)
    result = []
    close(seen(lambda: result.append(call())), loop_of(q, q), rel=1e-10)
    assert torch.equal(result[0], expected)
    assert torch.equal(torch.get_rng_state(), after)


def test_gradients_flow_as_without() -> None:
    q = drawn(1, 2, 3, 4).requires_grad_()
    close(
        seen(lambda: F.scaled_dot_product_attention(q, q, q).sum().backward()),
        loop_of(q, q),
        rel=1e-10,
    )
    assert q.grad is not None


def test_nothing_waits_for_the_device() -> None:
    """Tensors without data refuse whatever would need to know a number."""
    q = torch.empty(2, 3, 4, 8, device="meta")
    with Watch() as watch:
        watch.layer = 0
        F.scaled_dot_product_attention(q, q, q, is_causal=True)
        F.scaled_dot_product_attention(q, q, q, attn_mask=torch.empty(4, 4, device="meta"))
        q.softmax(-1)
    assert all(x.is_meta for x in watch.results()[0])


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):  # storage: an expanded mask is small
                largest = max(largest, result.untyped_storage().nbytes() // result.element_size())
            return result

    monkeypatch.setattr(attention, "_CHUNK", 2048)
    q = drawn(2, 4, 64, 4, dtype=torch.float32)
    mask = torch.ones(64, 64).tril().log()
    pieces = [
        lambda: attention._attention_scores(q, q, q, attn_mask=mask),
        lambda: attention._attention_scores(q, q, q, is_causal=True),
    ]
    for make in pieces:
        with Largest():
            for scores, allowed in make():
                assert scores.numel() <= 2048
                attention._summed(scores, allowed)
    assert largest == 4096  # the mask that is there


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_goes_unseen() -> None:
    from torch.nn.attention.flex_attention import flex_attention

    x = drawn(1, 2, 4, 16, dtype=torch.float32)
    with Watch() as watch:
        watch.layer = 0
        found = flex_attention(x, x, x)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(x, x, x))
    assert watch.results() == {}
