"""Attention within documents on a GPU: the compiled kernel against a mask."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from groundup.model import ModelConfig, Transformer
from groundup.model.documents import Blocks, documents_of
from groundup.train.recompute import recompute
from tests.fresh_compiler import fresh_compiler  # noqa: F401

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

END, VOCABULARY = 3, 19
CONFIG = ModelConfig(vocab_size=VOCABULARY, width=128, layers=2, kv_heads=2)


def drawn(often: float, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(END + 1, VOCABULARY, (3, length), generator=generator)
    return tokens.masked_fill(torch.rand(3, length, generator=generator) < often, END).cuda()


@pytest.mark.parametrize(
    ("length", "precision", "again"),
    [
        (128, torch.bfloat16, "none"),
        (1024, torch.bfloat16, "none"),
        (300, torch.float32, "none"),
        (300, torch.bfloat16, "full"),
        (300, torch.bfloat16, "ops"),
    ],
)
def test_compiled_is_what_the_mask_gives_in_one_graph(
    length: int, precision: torch.dtype, again: str
) -> None:
    near = {torch.bfloat16: 3e-2, torch.float32: 1e-3}[precision]
    plain = Transformer(CONFIG).cuda()
    plain.separator = END
    model, counter = copy.deepcopy(plain), CompileCounterWithBackend("inductor")
    recompute(model.layers, again)
    for layer in model.layers:
        layer.compile(backend=counter)
    for often in (0.0, 0.02, 0.5, 1.0):
        tokens = drawn(often, length)
        assert isinstance(documents_of(tokens, END, CONFIG.head_dim), Blocks)
        for one in (plain, model):
            one.zero_grad()
            with torch.autocast("cuda", precision, enabled=precision != torch.float32):
                one(tokens, tokens).total.backward()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            assert (p.grad - q.grad).norm() <= near * q.grad.norm()
    assert counter.frame_count == 1


def test_small_heads_take_the_mask() -> None:
    model = Transformer(ModelConfig(vocab_size=VOCABULARY, width=32, layers=1)).cuda()
    plain = copy.deepcopy(model).cpu()
    plain.separator = model.separator = END
    for layer in model.layers:
        layer.compile()
    tokens = drawn(0.1, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens).cpu(), plain(tokens.cpu()), rtol=1e-3, atol=1e-4)
