"""A model of transformers as ours: what decides it, how it starts, what is refused."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from groundup.model import ModelConfig, Transformer, losses, resolved
from groundup.model.hugging_face import HuggingFace, check
from groundup.model.kinds import kind_of
from groundup.model.resolution import as_table, build, ready_for
from groundup.model.weights import read

pytest.importorskip("transformers")

GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32, "vocab_size": 50}
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 50,
}
SMALL = {"gpt2": GPT2, "llama": LLAMA, "qwen3": {**LLAMA, "head_dim": 8}}


def config_of(kind: str, **others: Any) -> ModelConfig:
    return ModelConfig(**resolved({"hf": kind, "hf_config": SMALL[kind], **others}))


def tokens() -> torch.Tensor:
    return torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------- what decides it


@pytest.mark.parametrize("kind", ["gemma2", "gpt2", "gpt_neox", "llama", "mixtral", "opt", "qwen3"])
def test_a_table_without_nulls_gives_an_equal_configuration_back(kind: str) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(kind)
    table = as_table(config)
    assert None not in table.values()
    again = AutoConfig.for_model(**json.loads(json.dumps(table)))
    assert again.to_dict() == config.to_dict()


def test_sizes_follow_the_configuration() -> None:
    found = ModelConfig(**resolved({"hf": "gpt2"}))
    assert (found.width, found.layers, found.heads, found.vocab_size) == (768, 12, 12, 50257)
    assert (found.feed_forward, found.tied, found.longest) == (3072, True, ("n_positions", 1024))
    small = config_of("qwen3")
    assert (small.kv_heads, small.head_dim, small.key_value_width) == (2, 8, 16)
    assert small.hf_config["layer_types"] == ["full_attention"] * 3


def test_a_type_a_folder_and_a_file_say_the_same(tmp_path: Path) -> None:
    build({"model_type": "gpt2", **GPT2}).save_pretrained(tmp_path)
    wanted = config_of("gpt2")
    for hf in (tmp_path, tmp_path / "config.json"):
        assert ModelConfig(**resolved({"hf": str(hf)})) == wanted
    whole = {"model_type": "gpt2", **GPT2}
    assert ModelConfig(**resolved({"hf_config": whole})) == wanted
    changed = resolved({"hf": str(tmp_path), "hf_config": {"hidden_size": 32}})
    assert changed["width"] == changed["hf_config"]["n_embd"] == 32


def test_what_is_resolved_stays_and_needs_no_transformers(monkeypatch: Any) -> None:
    table = resolved({"hf": "llama", "hf_config": LLAMA, "z_loss": 1e-4})
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert resolved(table) == table
    assert ModelConfig(**table).z_loss == 1e-4
    with pytest.raises(ValueError, match=r"pip install 'groundup\[export\]'"):
        resolved({"hf": "gpt2"})


def test_a_change_takes_away_what_followed_from_what_it_changes() -> None:
    """Left in, 4 key heads would make 8 heads grouped ones, and 3 kinds of layers too few."""
    own = {**LLAMA, "num_key_value_heads": 4}
    old = resolved({"hf": "qwen3", "hf_config": {**own, "head_dim": 8}, "z_loss": 1e-4})
    change = {"num_attention_heads": 8, "num_hidden_layers": 5, "num_key_value_heads": 8}
    left = ready_for(old, {"hf_config": change})
    new = resolved({**left, "hf_config": {**left["hf_config"], **change}})
    assert (new["layers"], new["heads"], new["z_loss"]) == (5, 8, 1e-4)
    assert len(new["hf_config"]["layer_types"]) == 5
    assert new["hf_config"]["head_dim"] == 8
    assert ready_for(old, {"hf": "gpt2"}) == {"z_loss": 1e-4}
    ours = {"width": 64, "z_loss": 0.1}
    for change in ({"hf": "gpt2"}, {"hf_config": {"model_type": "gpt2"}}, {"weights": "x"}):
        assert ready_for(ours, change) == {"z_loss": 0.1}
    assert ready_for(ours, {"layers": 3}) == ours
    assert ready_for(old, {"weights": "x"}) == old


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"hf": "gtp2"}, "hf='gtp2' is unknown: did you mean 'gpt2'"),
        ({"hf": "/nowhere/at/all"}, "hf='/nowhere/at/all' is unknown: valid are a folder"),
        ({"hf": 3}, "hf=3 is not valid: it must be a string"),
        ({"hf": "gpt2", "layers": 3}, "layers=3 would be ignored: hf='gpt2' decides it"),
        ({"hf_config": {"model_type": "gpt2"}, "width": 9}, "width=9 would be ignored: hf_config"),
        ({"hf": "gpt2", "hf_config": {"n_layr": 3}}, "key='n_layr' is unknown: did you mean 'n_la"),
        ({"hf_config": {"n_layer": 3}}, "it changes what hf says, so say hf"),
        ({"hf_config": 3}, "hf_config=3 is not valid: it must be a table"),
        ({"hf_config": {"model_type": "vit"}}, "hf_config.model_type='vit' is unknown"),
        ({"hf": "gpt2", "hf_config": {"model_type": "llama"}}, "hf='gpt2' is a gpt2"),
        ({"hf": "gpt2", "hf_config": {"n_layer": "x"}}, "hf_config is not valid for gpt2: "),
        ({"hf": "gpt2", "hf_config": {"n_embd": 8, "hidden_size": 8}}, "are one: say n_embd"),
        (
            {"hf": "gpt2", "hf_config": {"eos_token_id": 3}},
            "eos_token_id would be ignored: the tok",
        ),
        ({"hf": "llama", "hf_config": {"hidden_size": 10}}, "is not a multiple of the number of"),
        ({"weights": "/nowhere/at/all"}, "weights='/nowhere/at/all' is not valid: there is no"),
    ],
)
def test_what_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolved(table)


def test_damaged_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder has no config\.json"):
        resolved({"hf": str(tmp_path)})
    for text, message in (
        ("{", "is no JSON"),
        ("[]", "says no model_type"),
        ('{"model_type": "gpt2", "quantization_config": {}}', "its weights are quantized"),
        ('{"model_type": "own", "auto_map": {}}', "model_type='own' is unknown"),
    ):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            resolved({"hf": str(tmp_path)})


def test_fields_that_would_be_ignored_are_refused() -> None:
    table = resolved({"hf": "gpt2", "hf_config": GPT2})
    for name, value in (("placement", "post"), ("init_std", 0.1), ("rope_theta", 5e5)):
        with pytest.raises(ValueError, match=f"{name}={value!r} would be ignored: hf_config"):
            ModelConfig(**{**table, name: value})
    with pytest.raises(ValueError, match=r"layers=4 would be ignored: hf_config.n_layer=3"):
        ModelConfig(**{**table, "layers": 4})
    with pytest.raises(ValueError, match="init='ds' would be ignored: weights='x'"):
        ModelConfig(weights="x", init="ds")
    with pytest.raises(ValueError, match="model.hf='gpt2' is not resolved"):
        kind_of(ModelConfig(hf="gpt2"))
    bare = ModelConfig(hf_config={"model_type": "gpt2"})
    with pytest.raises(ValueError, match=r"model.width=64 would be ignored: hf_config says 768"):
        check(bare)


# ---------------------------------------------------------------------- the model


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_logits_and_losses(kind: str) -> None:
    model = HuggingFace(config_of(kind, z_loss=1e-3)).eval()
    logits = model.inner(tokens()).logits
    assert torch.equal(model(tokens()), logits)
    targets = tokens().roll(-1, 1)
    targets[:, -1] = -100
    found, expected = model(tokens(), targets), losses(logits, targets, 1e-3)
    assert torch.equal(found.cross_entropy, expected.cross_entropy)
    assert torch.equal(found.z, expected.z)
    assert found.z > 0
    assert [type(layer) for layer in model.layers] == [type(model.layers[0])] * 3


def test_the_start_is_that_of_transformers_and_of_the_seed() -> None:
    big = {"n_embd": 256, "n_layer": 2, "n_head": 2, "n_positions": 8, "vocab_size": 300}
    config = ModelConfig(**resolved({"hf": "gpt2", "hf_config": big}))
    before = torch.random.get_rng_state()
    model = HuggingFace(config)
    for name, p in model.named_parameters():
        if p.ndim == 1:
            assert torch.equal(p, torch.ones_like(p) * (".ln_" in name and "bias" not in name))
            continue
        # GPT-2: 0.02, and 0.02/√(2L) for what ends a branch.
        std = 0.02 / math.sqrt(4) if "c_proj" in name else 0.02
        assert p.std().item() == pytest.approx(std, rel=0.05), name
    other = HuggingFace(config)
    other.initialize(1)
    assert not torch.equal(other.embedding.weight, model.embedding.weight)
    other.initialize(0)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_from_the_meta_device(kind: str) -> None:
    with torch.device("meta"):
        model = HuggingFace(config_of(kind))
    assert all(p.is_meta for p in model.parameters())
    with pytest.raises(ValueError, match="is on the meta device"):
        model.initialize(0)
    model.to_empty(device="cpu")
    model.initialize(0)
    expected = HuggingFace(config_of(kind))
    assert torch.equal(model.eval()(tokens()), expected.eval()(tokens()))
    if kind == "llama":
        frequencies = 10000.0 ** (-torch.arange(0, 4, 2) / 4)
        assert torch.allclose(model.inner.model.rotary_emb.inv_freq, frequencies)


def test_tied_weights_stay_one_and_are_kept_once() -> None:
    with torch.device("meta"):
        model = HuggingFace(config_of("gpt2"))
    model.to_empty(device="cpu")
    model.initialize(3)
    assert model.head is None
    assert model.inner.lm_head.weight is model.inner.transformer.wte.weight
    state = model.state_dict()
    assert sorted(state) == sorted(name for name, _ in model.named_parameters())
    other = HuggingFace(config_of("gpt2"))
    other.load_state_dict(state)
    assert torch.equal(other.eval()(tokens()), model.eval()(tokens()))
    untied = HuggingFace(config_of("llama"))
    assert isinstance(untied.head, nn.Linear)


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_parameters_are_counted(kind: str) -> None:
    config = config_of(kind)
    model = HuggingFace(config)
    there = sum(p.numel() for p in model.parameters())
    assert config.parameters() == there
    # GPT-2's tied tokens are its head, its positions are looked up.
    looked_up = 32 * 16 if kind == "gpt2" else 50 * 16
    assert config.parameters(embedding=False) == there - looked_up
    attention = 12 * 3 * config.heads * config.head_dim * 9
    assert config.flops_per_token(9) == 6 * (there - looked_up) + attention


def test_gpt2_has_124_million() -> None:
    assert ModelConfig(**resolved({"hf": "gpt2"})).parameters() == 124_439_808


# ---------------------------------------------------------------------- weights


def test_weights_of_a_checkpoint(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    theirs = AutoModelForCausalLM.from_config(build({"model_type": "gpt2", **GPT2})).eval()
    theirs.to(torch.bfloat16).save_pretrained(tmp_path)
    model = HuggingFace(config_of("gpt2")).eval()
    model.read(str(tmp_path))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model(tokens()), theirs.float()(tokens()).logits)

    for changes, message in (
        ({"n_embd": 32}, "cannot be read into this model"),
        ({"n_layer": 4}, r"it lacks transformer\.h\.3"),
        ({"n_layer": 2}, r"it has besides transformer\.h\.2"),
    ):
        table = resolved({"hf": "gpt2", "hf_config": {**GPT2, **changes}})
        with pytest.raises(ValueError, match=message):
            HuggingFace(ModelConfig(**table)).read(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read into this model"):
        model.read(str(tmp_path))


def test_our_decoder_from_a_llama(tmp_path: Path) -> None:
    theirs = HuggingFace(config_of("llama")).eval()
    theirs.inner.save_pretrained(tmp_path)
    table = resolved({"weights": str(tmp_path), "z_loss": 1e-4})
    config = ModelConfig(**table)
    assert (config.width, config.layers, config.kv_heads, config.z_loss) == (16, 3, 2, 1e-4)
    assert not config.hf_config
    assert resolved({"weights": str(tmp_path), "layers": 3, "z_loss": 1e-4}) == table
    model = Transformer(config)
    read(model, str(tmp_path))
    found, wanted = model(tokens()), theirs(tokens())
    assert torch.allclose(found, wanted, atol=1e-5)
    loss = F.cross_entropy(found.flatten(0, 1), tokens().flatten())
    assert loss.isfinite()

    with pytest.raises(ValueError, match=r"layers=4 is not valid: weights=.* has 3"):
        resolved({"weights": str(tmp_path), "layers": 4})
    other = Transformer(ModelConfig(**{**table, "kv_heads": 4}))
    with pytest.raises(ValueError, match=r"model.kv_heads=None is not valid: weights=.* has 2"):
        read(other, str(tmp_path))
    shutil.copytree(tmp_path, tmp_path / "gpt2")
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="model_type='gpt2' is unknown.* with hf = "):
        resolved({"weights": str(tmp_path / "gpt2")})
