"""The loss, of whole logits and of chunks of tokens, against a float64 computation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundup.model import Losses, ModelConfig, Transformer, head_loss, losses
from groundup.model.head_loss import Chunks, head_losses
from groundup.train.cost import LiveBytes

WIDTH, VOCABULARY = 8, 19


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    _chunks_of(monkeypatch, 5)


def _chunks_of(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setitem(head_loss.CHUNKS, "cpu", Chunks(tokens, logits=1))


def case(
    sequences: int = 3, length: int = 7, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight, and targets of which some are left out."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sequences, length, WIDTH, generator=generator, dtype=dtype)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=dtype)
    targets = torch.randint(VOCABULARY, (sequences, length), generator=generator)
    left_out = torch.rand(targets.shape, generator=generator) < 0.3
    return x.requires_grad_(), weight.requires_grad_(), targets.where(~left_out, -100)


def exact(x: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> list[Tensor]:
    """By token, z, and the gradients of the total: float64, from the definitions."""
    x, weight = (t.detach().double().requires_grad_() for t in (x, weight))
    logits = torch.einsum("btd,vd->btv", x, weight)
    log_z = logits.exp().sum(-1).log()
    chosen = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    kept = targets != -100
    by_token, z = (log_z - chosen) * kept, z_loss * (log_z**2 * kept).sum()
    (by_token.sum() + z).backward()
    return [by_token.detach(), z.detach(), x.grad, weight.grad]


def found(x: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> list[Tensor]:
    got = head_losses(x, weight, targets, z_loss)
    assert torch.equal(got.cross_entropy, got.by_token.sum())
    torch.testing.assert_close(got.total, got.cross_entropy + got.z)
    return [got.by_token, got.z, *torch.autograd.grad(got.total, (x, weight))]


@given(
    sequences=st.integers(1, 4),
    length=st.integers(1, 9),
    tokens=st.integers(1, 40),
    z_loss=st.sampled_from([0.0, 0.01, 3.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_chunks_give_what_the_definitions_do(
    sequences: int, length: int, tokens: int, z_loss: float, seed: int
) -> None:
    inputs = case(sequences, length, seed)
    with pytest.MonkeyPatch.context() as patch:
        _chunks_of(patch, tokens)
        got = found(*inputs, z_loss)
    for mine, theirs in zip(got, exact(*inputs, z_loss), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=2e-5, atol=2e-5)
    whole = losses(inputs[0] @ inputs[1].T, inputs[2], z_loss)
    torch.testing.assert_close(whole.by_token, got[0])
    torch.testing.assert_close(whole.total, got[0].sum() + got[1])


@pytest.mark.parametrize("z_loss", [0.0, 0.3])
def test_derivatives_in_float64(z_loss: float) -> None:
    x, weight, targets = case(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, weight: 0.7 * head_losses(x, weight, targets, z_loss).total, (x, weight)
    )


def test_targets_that_are_all_left_out() -> None:
    x, weight, targets = case()
    with torch.no_grad():
        x[0, 0] = torch.nan  # nor does it matter what was read there
    for one in found(x, weight, torch.full_like(targets, -100), 0.1):
        assert not one.any()


@pytest.mark.parametrize("wrong", [VOCABULARY, -1])
def test_a_target_outside_of_the_vocabulary(wrong: int) -> None:
    x, weight, targets = case()
    targets[1, 2] = wrong
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        head_losses(x, weight, targets)


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_products_are_autocasts_and_sums_are_not(
    monkeypatch: pytest.MonkeyPatch, z_loss: float
) -> None:
    """Were the weight's gradient summed in bf16 over 256 chunks, it would be off by percents."""
    _chunks_of(monkeypatch, 4)
    x, weight, targets = case(32, 32)
    with torch.no_grad():
        x += 2  # so that the sums grow
    with torch.autocast("cpu", torch.bfloat16):
        got = found(x, weight, targets, z_loss)
    assert [t.dtype for t in got] == [torch.float32] * 4
    want = exact(x.bfloat16(), weight.bfloat16(), targets, z_loss)
    for mine, theirs, share in zip(got, want, (0.004, 0.004, 0.004, 0.0015), strict=True):
        assert (mine - theirs).norm() <= share * theirs.norm()
    with torch.autocast("cpu", torch.bfloat16):
        whole = losses(x @ weight.T, targets, z_loss)
    torch.testing.assert_close(whole.by_token, got[0], rtol=1e-3, atol=1e-3)


def test_the_same_to_the_bit() -> None:
    inputs = case()
    for one, again in zip(found(*inputs, 0.1), found(*inputs, 0.1), strict=True):
        assert torch.equal(one, again)


@pytest.mark.parametrize("gradients", [True, False])
def test_memory(monkeypatch: pytest.MonkeyPatch, gradients: bool) -> None:
    """Ten chunks take little more than one: 8 bytes a logit, and the weight's gradient."""
    _chunks_of(monkeypatch, 20)
    x, targets = torch.randn(4, 50, 4), torch.zeros(4, 50, dtype=torch.int64)
    weight = torch.randn(1000, 4, requires_grad=gradients)
    with LiveBytes() as live:
        loss = head_losses(x, weight, targets, 0.1).total
        assert live.peak < 1.2 * 20 * 1000 * 8 + gradients * weight.nbytes
        assert loss.requires_grad == gradients


def test_tokens_of_one_chunk_have_whole_logits_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, targets = case()
    monkeypatch.setattr(head_loss, "_one_pass", None)
    _chunks_of(monkeypatch, targets.numel())
    found = head_losses(x, weight, targets, 0.1)
    expected = losses(x @ weight.T, targets, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    _chunks_of(monkeypatch, targets.numel() - 1)
    with pytest.raises(TypeError):
        head_losses(x, weight, targets, 0.1)


def test_no_second_derivative() -> None:
    x, weight, targets = case()
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(head_losses(x, weight, targets).total, x, create_graph=True)


# ---------------------------------------------------------------------- in a model

TOKENS = torch.arange(28).reshape(2, 14) % VOCABULARY
TARGETS = (TOKENS * 5 + 1) % VOCABULARY
TARGETS[0, 9:] = -100


def model_of(**settings: Any) -> Transformer:
    return Transformer(ModelConfig(vocab_size=VOCABULARY, width=32, layers=2, **settings))


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_trains_as_by_its_logits(tied: bool, z_loss: float) -> None:
    model = model_of(tied=tied, z_loss=z_loss).double()
    whole = losses(model(TOKENS), TARGETS, z_loss)
    mine = model(TOKENS, TARGETS)
    torch.testing.assert_close(tuple(mine), tuple(whole))
    want = gradients(model, whole.total * 0.3)
    torch.testing.assert_close(gradients(model, mine.total * 0.3), want)
    for one in (0, 1):  # micro-batches, added up by autograd
        (model(TOKENS[one : one + 1], TARGETS[one : one + 1]).total * 0.3).backward()
    torch.testing.assert_close([p.grad for p in model.parameters()], want)
    with torch.no_grad():
        torch.testing.assert_close(tuple(model(TOKENS, TARGETS)), tuple(whole))


def test_compiled_in_one_graph() -> None:
    x, weight, targets = case(2, 4)
    compiled = torch.compile(head_losses, fullgraph=True, backend="aot_eager")
    got = compiled(x, weight, targets, 0.1)
    want = found(x, weight, targets, 0.1)
    torch.testing.assert_close([got.by_token, got.z], want[:2])
    torch.testing.assert_close(list(torch.autograd.grad(got.total, (x, weight))), want[2:])


def test_a_model_computed_again() -> None:
    model = model_of(z_loss=0.1)
    again = checkpoint(model, TOKENS, TARGETS, use_reentrant=False)
    want = gradients(model, model(TOKENS, TARGETS).total)
    torch.testing.assert_close(gradients(model, again.total), want)


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def _hooked(head: nn.Linear) -> nn.Linear:
    head.register_forward_hook(lambda module, args, output: 2 * output)
    return head


def _biased(head: nn.Linear) -> nn.Linear:
    head.bias = nn.Parameter(torch.linspace(0, 1, VOCABULARY))
    return head


def _replaced(head: nn.Linear) -> nn.Linear:
    other = Scaled(32, VOCABULARY, bias=False)
    other.load_state_dict(head.state_dict())
    return other


def _patched(head: nn.Linear) -> nn.Linear:
    inner = head.forward
    head.forward = lambda x: 2 * inner(x)  # type: ignore[method-assign]
    return head


@pytest.mark.parametrize("change", [_biased, _hooked, _patched, _replaced])
def test_a_head_that_is_more_than_a_product_is_called(change: Any) -> None:
    model = model_of()
    before = model(TOKENS, TARGETS).total
    model.head = change(model.head)
    got = model(TOKENS, TARGETS)
    assert torch.equal(got.total, losses(model(TOKENS), TARGETS).total)
    assert not torch.equal(got.total, before)


# ---------------------------------------------------------------------- whole logits


def test_losses_are_sums_over_the_targets_that_count() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 6, 19, generator=generator)
    targets = torch.randint(19, (4, 6), generator=generator)
    targets[1], targets[3, 2:] = -100, -100
    whole = losses(logits, targets, z_loss=0.01)
    parts = [losses(logits[i : i + 1], targets[i : i + 1], z_loss=0.01) for i in range(4)]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    assert parts[1][:3] == (0, 0, 0)
    kept = targets != -100
    log_z = logits[kept].double().exp().sum(-1).log()
    chosen = logits[kept].double().gather(-1, targets[kept, None])[:, 0]
    assert whole.cross_entropy.item() == pytest.approx((log_z - chosen).sum().item(), rel=1e-6)
    assert whole.z.item() == pytest.approx(0.01 * (log_z**2).sum().item(), rel=1e-6)
    assert losses(logits, targets).z == 0


def test_losses_are_float32_and_ignored_tokens_have_no_gradient() -> None:
    logits = torch.randn(2, 3, 19).bfloat16().requires_grad_()
    targets = torch.tensor([[1, -100, 2], [-100, -100, -100]])
    got = losses(logits, targets, z_loss=0.1)
    assert isinstance(got, Losses)
    assert {each.dtype for each in got} == {torch.float32}
    expected = losses(logits.detach().float(), targets, z_loss=0.1)
    assert torch.equal(got.total, expected.total)
    got.total.backward()
    ignored = targets == -100
    assert logits.grad[ignored].abs().max() == 0
    assert logits.grad[~ignored].abs().amax(-1).min() > 0
