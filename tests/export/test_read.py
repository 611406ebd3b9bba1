"""Checkpoints of transformers become decoders with the same logits, or are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from groundup.export import as_hugging_face, from_hugging_face
from groundup.model import PLACEMENTS, Transformer
from tests.export.models import LAYERS, QK_NORMS, STOCK, decoder, difference, some_tokens

SIZES = {
    "vocab_size": 53, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "eos_token_id": 1, "bos_token_id": 1, "pad_token_id": None, "initializer_range": 0.2,
}  # fmt: skip
FULL = ["full_attention"] * 2
WHOLE = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}
THEIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"rms_norm_eps": 1e-3}),
    "llama tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "olmo2": ("Olmo2", {}),
    "exaone4": ("Exaone4", {"head_dim": 8, "sliding_window": None, "layer_types": FULL}),
    "glm4": ("Glm4", {"head_dim": 8, "attention_bias": False, "rope_parameters": WHOLE}),
}


def stock(name: str) -> Any:
    """A random model that transformers has made."""
    cls, settings = THEIRS[name]
    config = getattr(transformers, f"{cls}Config")(**SIZES | settings)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = getattr(transformers, f"{cls}ForCausalLM")(config).eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def ours(source: Any) -> Transformer:
    config, state = from_hugging_face(source)
    model = Transformer(config).eval().requires_grad_(False)
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize("name", THEIRS)
def test_models_that_transformers_made(name: str, tmp_path: Path) -> None:
    theirs, tokens = stock(name), some_tokens()
    wanted = theirs(tokens).logits
    assert difference(ours(theirs)(tokens), wanted) < 1e-5
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert difference(ours(tmp_path)(tokens), wanted) < 1e-5


@pytest.mark.parametrize("qk_norm", QK_NORMS)
@pytest.mark.parametrize("placement", sorted(PLACEMENTS))
def test_there_and_back(placement: str, qk_norm: Any, tmp_path: Path) -> None:
    model = decoder(placement, qk_norm, tied=qk_norm is True)
    as_hugging_face(model, [1.0] * LAYERS).save_pretrained(tmp_path)
    config, state = from_hugging_face(tmp_path)
    assert config.placement == ("pre" if placement == "lns" else placement)
    kept = ("vocab_size", "width", "layers", "heads", "kv_heads", "rope_theta", "norm_eps", "tied")
    assert config.qk_norm == qk_norm
    for field in kept:
        assert getattr(config, field) == getattr(model.config, field)
    assert config.feed_forward == model.config.feed_forward_width
    scales = model.stock_multipliers()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value * scales.get(name, 1.0)), name


def test_an_older_checkpoint_in_bfloat16(tmp_path: Path) -> None:
    """As transformers 4 wrote Llama's: the base of the rotation on top, its frequencies kept."""
    theirs = stock("llama")
    theirs.to(torch.bfloat16).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"], config["head_dim"], config["mlp_bias"], config["dtype"]
    config |= {"rope_theta": 123.0, "rope_scaling": None, "torch_dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = load_file(tmp_path / "model.safetensors")
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(state, tmp_path / "model.safetensors")
    found, weights = from_hugging_face(str(tmp_path))
    assert found.rope_theta == 123.0
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert torch.equal(weights["norm.weight"], theirs.model.norm.weight.float())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"model_type": "gpt2"}, "model_type='gpt2' is unknown"),
    "none": ({"model_type": None}, "model_type=None is unknown"),
    "biases": ({"attention_bias": True}, "attention_bias=True is not valid"),
    "biases in SwiGLU": ({"mlp_bias": True}, "mlp_bias=True is not valid"),
    "dropout": ({"attention_dropout": 0.1}, "attention_dropout=0.1 is not valid"),
    "scaled positions": (
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        "rope_parameters.rope_type='linear' is not valid",
    ),
    "activation": ({"hidden_act": "gelu"}, "hidden_act='gelu' is not valid"),
    "heads": ({"head_dim": 16}, "head_dim=16 is not valid: .* only with 8"),
    "odd heads": ({"num_attention_heads": 32, "head_dim": 1}, "heads=32 is not valid"),
    "quantized": ({"quantization_config": {"bits": 4}}, "quantized weights cannot be read"),
    "shape": ({"intermediate_size": 48}, r"gate_proj.weight has the shape \[40, 32\]"),
    "too few layers": ({"num_hidden_layers": 1}, "model.layers.1.* have no place"),
    "too many layers": ({"num_hidden_layers": 3}, "model.layers.2.* are not there"),
    "tied": ({"tie_word_embeddings": True}, "lm_head.weight is another matrix"),
    "windows": (
        {"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 8},
        "use_sliding_window=True is not valid",
    ),
    "hybrid": (
        {"model_type": "exaone4", "sliding_window": 8, "sliding_window_pattern": 2},
        "sliding_window=8 is not valid",
    ),
    "half rotated": ({"model_type": "glm4"}, "partial_rotary_factor=0.5 is not valid"),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("llama")
    stock("llama").save_pretrained(place)
    return place


def changed(llama: Path, place: Path, change: dict[str, Any]) -> Path:
    for path in llama.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    config = json.loads((llama / "config.json").read_text()) | change
    (place / "config.json").write_text(json.dumps(config))
    return place


NONSENSE: dict[str, Any] = {
    "hidden_size": "32", "num_attention_heads": None, "rope_parameters": [1], "vocab_size": -1,
    "num_key_value_heads": 3, "rms_norm_eps": "a", "num_hidden_layers": 1.5,
}  # fmt: skip


@pytest.mark.parametrize("field", NONSENSE)
def test_nonsense_is_a_value_error(field: str, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path / "config.json")):
        from_hugging_face(changed(llama, tmp_path, {field: NONSENSE[field]}))


@pytest.mark.parametrize("why", REFUSED)
def test_what_a_decoder_does_not_compute_is_refused(why: str, llama: Path, tmp_path: Path) -> None:
    change, message = REFUSED[why]
    with pytest.raises(ValueError, match=message) as error:
        from_hugging_face(changed(llama, tmp_path, change))
    assert str(tmp_path) in str(error.value)


def test_folders_that_hold_no_checkpoint(llama: Path, tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            from_hugging_face(tmp_path)

    refused("config.json: there is no such file")
    (tmp_path / "config.json").write_text("[1]")
    refused("it is no JSON object")
    changed(llama, tmp_path, {})
    whole = tmp_path / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:1000])
    refused("model.safetensors is damaged")
    whole.rename(tmp_path / "pytorch_model.bin")
    refused("read from safetensors only")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    refused("has no weight_map")
    for name, message in (("../other", "is not in the folder"), ("gone", "is not there")):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        refused(message)


def test_weights_that_have_no_place(llama: Path, tmp_path: Path) -> None:
    changed(llama, tmp_path, {})
    state = load_file(tmp_path / "model.safetensors")
    save_file(state | {"score.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"score.weight have no place"):
        from_hugging_face(tmp_path)
    eighth = state | {"model.norm.weight": state["model.norm.weight"].to(torch.float8_e4m3fn)}
    save_file(eighth, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.norm.weight has the dtype torch.float8"):
        from_hugging_face(tmp_path)


def test_the_table_of_stock_classes_is_read() -> None:
    assert {name.split()[0] for name in THEIRS} == {
        as_hugging_face(decoder(*one), [1.0] * LAYERS).config.model_type for one in STOCK
    }
