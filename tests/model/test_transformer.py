from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.model import PLACEMENTS, Losses, ModelConfig, Transformer, initialize
from groundup.model.rotary import Rotary

TOKENS = torch.arange(24).reshape(2, 12) % 19
CONFIG = ModelConfig(vocab_size=19, width=32, layers=2)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_causal(placement: str) -> None:
    model = Transformer(
        ModelConfig(vocab_size=19, width=32, layers=3, kv_heads=2, placement=placement)
    )
    changed = TOKENS.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 19
    before, after = model(TOKENS), model(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert ((before - after)[:, 7:].abs().amax(-1) > 0).all()


def test_logits_or_losses() -> None:
    model = Transformer(CONFIG)
    logits = model(TOKENS)
    assert logits.shape == (2, 12, 19)
    both = model(TOKENS, TOKENS)
    assert isinstance(both, Losses)
    assert both.z == 0
    assert torch.equal(both.total, both.cross_entropy)
    assert both.cross_entropy.item() / 24 == pytest.approx(2.94, abs=0.1)  # ≈ ln 19


def test_rotary_is_float32_in_any_model() -> None:
    seen: list[Rotary] = []
    for dtype in (torch.bfloat16, torch.float32):
        model = Transformer(CONFIG).to(dtype)
        model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[1]))
        assert model(TOKENS).dtype == dtype
    low, full = seen
    assert low.cos.dtype == low.sin.dtype == torch.float32
    assert torch.equal(low.cos, full.cos)
    position, pair = 11, 3
    angle = position * 10000.0 ** (-2 * pair / 8)
    assert full.cos[position, pair + 4].item() == pytest.approx(torch.tensor(angle).cos().item())


def test_autocast_with_normalized_queries() -> None:
    model = Transformer(ModelConfig(vocab_size=19, width=32, layers=2, qk_norm=True, kv_heads=2))
    with torch.autocast("cpu", torch.bfloat16):
        both = model(TOKENS, TOKENS)
    assert both.total.dtype == torch.float32
    both.total.backward()
    torch.testing.assert_close(both.total, model(TOKENS, TOKENS).total, rtol=1e-2, atol=0)


def test_tied_matrix_is_one_parameter() -> None:
    config = ModelConfig(vocab_size=19, width=32, layers=2, tied=True)
    with torch.device("meta"):
        model = Transformer(config)
    initialize(model.to_empty(device="cpu"), seed=0)
    assert [n for n in model.state_dict() if "layers" not in n] == [
        "embedding.weight",
        "norm.weight",
    ]
    model.load_state_dict(Transformer(config).state_dict(), assign=True)
    hidden: list[Tensor] = []
    model.norm.register_forward_hook(lambda module, args, output: hidden.append(output))
    assert torch.equal(model(TOKENS), hidden[0] @ model.embedding.weight.T)


@pytest.fixture
def one_rank():
    import torch.distributed as dist

    if not dist.is_available() or dist.is_initialized():
        pytest.skip("needs a process group of its own")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_sharded_from_meta() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import DTensor

    config = ModelConfig(vocab_size=19, width=32, layers=2, placement="lns", tied=True)
    with torch.device("meta"):
        model = Transformer(config)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    mesh = init_device_mesh("cpu", (1,))
    for part in (*model.layers, model):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    initialize(model.to_empty(device="cpu"), seed=0)
    direct = Transformer(config)
    for parameter, expected in zip(model.parameters(), direct.parameters(), strict=True):
        assert isinstance(parameter, DTensor)
        assert torch.equal(parameter.full_tensor(), expected)
    seen: list[torch.dtype] = []
    model.layers[0].attention.register_forward_pre_hook(
        lambda module, args: seen.extend((args[0].dtype, args[1].cos.dtype))
    )
    both = model(TOKENS, TOKENS)
    assert seen == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(both.total, direct(TOKENS, TOKENS).total, rtol=1e-2, atol=0)
    both.total.backward()
