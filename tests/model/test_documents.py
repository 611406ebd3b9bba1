"""Attention within documents, against each document by itself and against a loop over scores."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from groundup.model import PLACEMENTS, ModelConfig, Transformer
from groundup.model import documents as module
from groundup.model.documents import Blocks, Documents, Masked, OneByOne, documents_of
from groundup.train.recompute import recompute
from tests.fresh_compiler import fresh_compiler  # noqa: F401
from tests.measure.attention_loop import watched
from tests.model.test_transformer import one_rank  # noqa: F401

END, VOCABULARY, LENGTH = 3, 19, 14
CONFIG = ModelConfig(vocab_size=VOCABULARY, width=32, layers=2, kv_heads=2)


@pytest.fixture(autouse=True)
def of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows as short as these would be masked."""
    monkeypatch.setattr(module, "_LONG", 1)


def drawn(*ends: int, rows: int = 1) -> Tensor:
    """Rows in which the end-of-document token stands at these places and nowhere else."""
    generator = torch.Generator().manual_seed(len(ends))
    tokens = torch.randint(END + 1, VOCABULARY, (rows, LENGTH), generator=generator)
    tokens[:, list(ends)] = END
    return tokens


PACKED = {
    "from the middle of one": drawn(5, 9),
    "from the beginning of one": drawn(0, 6),
    "several empty ones": drawn(4, 5, 6),
    "nothing but ends": drawn(*range(LENGTH)),
    "an end at the end": drawn(LENGTH - 1),
    "another in each row": torch.cat([drawn(2, 7), drawn(), drawn(0, 1, 13)]),
}


def alone(row: Tensor) -> list[Tensor]:
    """The documents of a row [T], each as the only row of a batch."""
    starts = sorted({0, *(row == END).nonzero().flatten().tolist()})
    return [row[None, a:b] for a, b in zip(starts, [*starts[1:], len(row)], strict=True)]


@pytest.mark.parametrize("tokens", [pytest.param(x, id=name) for name, x in PACKED.items()])
def test_a_document_in_a_row_is_what_it_is_alone(tokens: Tensor) -> None:
    apart = Transformer(CONFIG).double()
    single = copy.deepcopy(apart)
    apart.separator = END
    weights = torch.randn(*tokens.shape, VOCABULARY, dtype=torch.float64)
    logits = apart(tokens)
    expected = torch.stack([torch.cat([single(d)[0] for d in alone(row)]) for row in tokens])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    (logits * weights).sum().backward()
    (expected * weights).sum().backward()
    for p, q in zip(apart.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-11)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_in_every_placement(placement: str) -> None:
    model = Transformer(
        ModelConfig(vocab_size=VOCABULARY, width=32, layers=2, placement=placement, qk_norm=True)
    ).double()
    (row,) = tokens = drawn(4, 9)
    expected = torch.cat([model(d)[0] for d in alone(row)])
    assert (model(tokens)[0] - expected)[4:].abs().amax(-1).min() > 1e-9
    model.separator = END
    torch.testing.assert_close(model(tokens)[0], expected, rtol=0, atol=1e-12)


def test_a_row_of_one_document_is_causal_attention() -> None:
    model = Transformer(CONFIG).double()
    tokens = drawn(0, rows=2)
    expected = model(tokens)
    model.separator = END
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-13)


def test_targets_beyond_a_document_count() -> None:
    """Its end is predicted from it, and what follows from the end: no token is without a loss."""
    model = Transformer(CONFIG).double()
    row = drawn(5, 9)[0]
    model.separator = END
    whole = model(row[None, :-1], row[None, 1:]).total
    model.separator = None
    parts = [
        model(d, row[None, at : at + d.shape[1]]).total
        for d, at in zip(alone(row[:-1]), (1, 6, 10), strict=True)
    ]
    torch.testing.assert_close(whole, sum(parts))


# ---------------------------------------------------------------------- each way to attend


def by_hand(q: Tensor, k: Tensor, v: Tensor, begins: Tensor) -> Tensor:
    rows, heads, length, size = q.shape
    out = torch.empty_like(q)
    for b in range(rows):
        for h in range(heads):
            g = h * k.shape[1] // heads
            first = 0
            for i in range(length):
                first = i if begins[b, i] else first
                scores = torch.stack([q[b, h, i] @ k[b, g, j] for j in range(first, i + 1)])
                out[b, h, i] = (scores / size**0.5).softmax(0) @ v[b, g, first : i + 1]
    return out


WAYS: dict[str, tuple[type[Documents], bool]] = {
    "masked": (Masked, False),
    "one by one": (OneByOne, False),
    "one by one, as compiled": (OneByOne, True),
}


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None)
@given(begins=st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=2))
def test_every_way_is_the_loop_over_scores(way: str, begins: list[list[bool]]) -> None:
    kind, compiled = WAYS[way]
    where = torch.tensor(begins)
    where[:, 0] = True
    generator = torch.Generator().manual_seed(0)
    qkv = [
        torch.randn(
            len(begins), heads, 7, 4, dtype=torch.float64, generator=generator
        ).requires_grad_()
        for heads in (2, 1, 1)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: compiled)
        found = kind(where).attend(*qkv)
    expected = by_hand(*qkv, where)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn(found.shape, dtype=torch.float64, generator=generator)
    for one, other in zip(
        torch.autograd.grad(found, qkv, upstream),
        torch.autograd.grad(expected, qkv, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_the_operator_is_what_a_compiler_takes_it_for() -> None:
    """Shapes, strides and gradients of its abstract implementation."""
    q, k, v = (torch.randn(2, 6, 4).requires_grad_() for _ in range(3))
    begins = torch.tensor([True, False, True, True, False, False])
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    given = (q, k, v, begins)
    torch.library.opcheck(module.attention_one_by_one, given, test_utils=checks)


def test_blocks_are_those_of_the_mask() -> None:
    """What CUDA takes, as far as a CPU can tell: 200 tokens are two blocks, and one graph."""
    counter = CompileCounterWithBackend("eager")
    attend = torch.compile(lambda blocks, *qkv: blocks.attend(*qkv), backend=counter)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 200, 16, generator=generator) for heads in (2, 1, 1))
    for often in (0.01, 0.1):
        begins = torch.rand(2, 200, generator=generator) < often
        begins[:, 0] = True
        expected = Masked(begins).attend(q, k, v)
        torch.testing.assert_close(attend(Blocks(begins), q, k, v), expected)
    assert counter.frame_count == 1


def test_where_each_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = drawn(4)
    assert isinstance(documents_of(tokens, END, 8), OneByOne)
    monkeypatch.setattr(module, "_LONG", LENGTH + 1)
    assert isinstance(documents_of(tokens, END, 8), Masked)
    assert isinstance(documents_of(tokens.to("meta"), END, 8), Masked)
    monkeypatch.setitem(module._FASTEST, "cpu", Blocks)
    assert isinstance(documents_of(tokens, END, 8), Masked)
    assert isinstance(documents_of(tokens, END, 16), Blocks)


# ---------------------------------------------------------------------- with everything else


def test_one_graph_however_many_documents() -> None:
    plain = Transformer(CONFIG)
    plain.separator = END
    model, counter = copy.deepcopy(plain), CompileCounterWithBackend("aot_eager")
    for layer in model.layers:
        layer.compile(backend=counter)
    for ends in ((), (4,), (0, 1, 5), range(LENGTH)):
        tokens = drawn(*ends, rows=2)
        for one in (plain, model):
            one.zero_grad()
            one(tokens, tokens).total.backward()
        torch.testing.assert_close(
            [p.grad for p in model.parameters()], [p.grad for p in plain.parameters()]
        )
    assert counter.frame_count == 1


@pytest.mark.usefixtures("one_rank")
def test_sharded_in_mixed_precision_and_computed_again() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    plain = Transformer(CONFIG)
    plain.separator = END
    model, counter = copy.deepcopy(plain), CompileCounterWithBackend("eager")
    recompute(model.layers, "ops")
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    for layer in model.layers:
        layer.compile(backend=counter)
    for part in (*model.layers, model):
        fully_shard(part, mesh=init_device_mesh("cpu", (1,)), mp_policy=policy)
    for ends in ((4,), (0, 1, 5)):
        tokens = drawn(*ends, rows=2)
        losses = [one(tokens, tokens).total for one in (plain, model)]
        torch.testing.assert_close(*losses, rtol=1e-2, atol=0)
        for loss in losses:
            loss.backward()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert (p.grad.full_tensor() - q.grad).norm() < 0.05 * q.grad.norm()
    assert counter.frame_count == 1


def test_what_is_measured_of_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """An observer sees the documents that a mask would show it."""
    model = Transformer(CONFIG)
    model.separator = END
    tokens = torch.cat([drawn(2, 7), drawn(5)])

    def seen(kind: type[Documents]) -> Any:
        monkeypatch.setitem(module._FASTEST, "cpu", kind)
        return watched(model, model.layers, lambda: model(tokens))

    torch.testing.assert_close(seen(OneByOne), seen(Masked))
