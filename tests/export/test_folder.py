"""The folder that an export writes: what is in it, and that it is whole or not there."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from groundup.evaluate import results
from groundup.export import Exported, ExportError, from_hugging_face, save
from groundup.export.folder import RECIPE
from groundup.model import ModelConfig, Transformer, resolved
from groundup.train import Recipe, toml, train
from groundup.train.trained import Trained, open_trained
from tests.export.models import difference
from tests.train.runs import metrics


@pytest.fixture(scope="module")
def trained(warming: Path) -> Trained:
    return open_trained(warming, device="cpu")


@pytest.fixture(scope="module")
def exported(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return save(trained, tmp_path_factory.mktemp("export") / "parent" / "out")


def tokens_of(trained: Trained) -> torch.Tensor:
    ids = trained.tokenizer.encode("def x(self): return 1 + 2").astype("int64")
    return torch.from_numpy(ids)[None]


def test_what_was_written_computes_the_same(trained: Trained, exported: Exported) -> None:
    assert trained.alphas == pytest.approx((1.0, 0.75, 0.5))
    model = AutoModelForCausalLM.from_pretrained(exported.folder)
    with torch.no_grad():
        tokens = tokens_of(trained)
        assert difference(model(tokens).logits, trained.model(tokens)) < 1e-5
    assert (type(model).__name__, exported.architecture) == ("LlamaForCausalLM",) * 2
    assert (exported.stock, exported.dtype) == (True, "float32")
    assert exported.parameters == trained.recipe.model.parameters()
    assert 0 <= exported.difference < 1e-5 * exported.largest
    config = model.config
    eos = trained.tokenizer.eos_id
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (eos, eos, None)
    assert config.max_position_embeddings == trained.recipe.data.length
    generation = model.generation_config
    found = (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id)
    assert found == (eos, eos, eos)


def test_the_tokenizer_encodes_as_training_did(trained: Trained, exported: Exported) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exported.folder)
    for text in ("def x(self): return 1 + 2", "  zwei\n\tLeerzeichen, ärger — 東京", ""):
        ids = tokenizer(text)["input_ids"]
        assert ids == trained.tokenizer.encode(text).tolist()
        assert tokenizer.decode(ids) == text
    eos = trained.tokenizer.eos_id
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (eos,) * 3
    assert tokenizer(trained.tokenizer.eos + "x")["input_ids"][0] == eos
    assert tokenizer.model_max_length == trained.recipe.data.length
    batch = tokenizer(["x", "x = 1 + 2"], padding=True)
    assert batch["attention_mask"][0][0] == 0


def test_a_tokenizer_that_would_add_tokens(trained: Trained, tmp_path: Path) -> None:
    from groundup.data import Tokenizer, load
    from groundup.export import tokenizer as written

    trained.tokenizer.save(tmp_path / "tokenizer.json")
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    first = {"SpecialToken": {"id": trained.tokenizer.eos, "type_id": 0}}
    then = {"Sequence": {"id": "A", "type_id": 0}}
    ids = {"id": trained.tokenizer.eos, "ids": [trained.tokenizer.eos_id]}
    values["post_processor"] = {
        "type": "TemplateProcessing", "single": [first, then], "pair": [first, then],
        "special_tokens": {trained.tokenizer.eos: ids | {"tokens": [trained.tokenizer.eos]}},
    }  # fmt: skip
    adding = Tokenizer(json.dumps(values), eos=trained.tokenizer.eos)
    written.save(adding, tmp_path, 16)
    want = trained.tokenizer.encode("x = 1").tolist()
    assert AutoTokenizer.from_pretrained(tmp_path)("x = 1")["input_ids"] == want
    assert load(tmp_path).encode("x = 1").tolist() == want


def test_the_card_says_what_the_run_says(trained: Trained, tmp_path: Path, warming: Path) -> None:
    found = {"perplexity": 12.345678, "tokens": 10, "what": "text", "source": str(tmp_path)}
    harness = {"acc": 0.25, "acc_stderr": 0.04, "n": 100, "what": "task", "limit": 7}
    path = results.path_of(warming, trained.step)
    results.add(path, {"step": trained.step}, {"prose": found, "piqa": harness})
    try:
        out = save(trained, tmp_path / "out").folder
    finally:
        path.unlink()
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n")
    loss = metrics(warming)[-1]["eval_loss"]
    for words in (
        "- residual-warmup\n",
        "# warming",
        f"{trained.recipe.model.parameters():,} parameters",
        "| residual warmup | linear, every layer at 1 after 12 updates",
        "α, from 1 in the first layer to 0.5 in the last, is multiplied into the weights",
        "| starts from | scratch |",
        "| updates | 6 of 6 |",
        "| tokens | 768 |",
        f"| held-out text, in training | loss, nats per token | {loss:.4f} |",
        "| prose | perplexity | 12.35 |",
        "| piqa (first 7) | accuracy | 0.2500 ± 0.0400 |",
        f"| source | {Path(trained.recipe.data.source).name} |",
        'AutoModelForCausalLM.from_pretrained("out")',
        "`<|endoftext|>`",
    ):
        assert words in card, words
    assert "licen" not in card.lower()
    for path in out.iterdir():
        if path.suffix != ".safetensors":
            assert str(tmp_path.parent) not in path.read_text(), path.name
    recipe = toml.build(tomllib.loads((out / RECIPE).read_text()))
    assert toml.differences(recipe, trained.recipe).keys() == {"data.source", "data.folder"}
    assert recipe.data.folder == Path(trained.recipe.data.folder).name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes(dtype: str, trained: Trained, tmp_path: Path) -> None:
    written = save(trained, tmp_path / "out", dtype)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    assert 0 < written.difference < 0.1 * written.largest
    assert next(trained.model.parameters()).dtype == torch.float32


def test_a_class_of_ours(recipe: Recipe, tmp_path: Path) -> None:
    model = replace(recipe.model, placement="post")
    train(replace(recipe, model=model, train=replace(recipe.train, steps=6)), tmp_path / "run")
    trained = open_trained(tmp_path / "run", device="cpu")
    written = save(trained, tmp_path / "out")
    assert (written.architecture, written.stock) == ("GroundupForCausalLM", False)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "import groundup.hf" in card
    assert card.count("- groundup\n") == 1
    config, state = from_hugging_face(tmp_path / "out")
    again = Transformer(config).eval()
    again.load_state_dict(state)
    with torch.no_grad():
        tokens = tokens_of(trained)
        assert difference(again(tokens), trained.model(tokens)) < 1e-5


SMALL = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32, "vocab_size": 310}


def test_a_model_that_is_of_transformers_already(recipe: Recipe, tmp_path: Path) -> None:
    """Tied, with biases, in the middle of warmup; its own class."""
    model = ModelConfig(**resolved({"hf": "gpt2", "hf_config": SMALL}))
    short = replace(recipe.train, steps=6)
    slow = replace(recipe.residual, T=4)
    rate = replace(recipe.rate, decay=2)
    changed = replace(recipe, model=model, train=short, residual=slow, rate=rate)
    train(changed, tmp_path / "run")
    trained = open_trained(tmp_path / "run", device="cpu")
    assert trained.alphas == pytest.approx((1.0, 0.75, 0.5))
    written = save(trained, tmp_path / "out")
    assert (written.architecture, written.stock) == ("GPT2LMHeadModel", True)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        tokens = tokens_of(trained)
        wanted = trained.model(tokens)
        assert difference(again(tokens).logits, wanted) < 1e-5
        unfolded = trained.model.inner.state_dict()  # type: ignore[union-attr]
        again.load_state_dict(unfolded)
        assert difference(again(tokens).logits, wanted) > 1e-3
    assert again.config.n_positions == 32
    assert again.generation_config.eos_token_id == trained.tokenizer.eos_id
    assert "| class | GPT2LMHeadModel |" in (tmp_path / "out" / "README.md").read_text()


# ---------------------------------------------------------------------- whole or not there


def test_places_that_are_taken(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("")
    with pytest.raises(ValueError, match="out is a file"):
        save(trained, out)
    out.unlink()
    out.mkdir()
    save(trained, out)  # an empty one is free
    with pytest.raises(ValueError, match="holds an export already"):
        save(trained, out)
    (out / "mine").write_text("x")
    save(trained, out, "bfloat16", overwrite=True)
    assert not (out / "mine").exists()
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    (out / RECIPE).unlink()
    with pytest.raises(ValueError, match="no export of groundup"):
        save(trained, out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(ValueError, match="dtype='int8' is unknown"):
        save(trained, tmp_path / "other", "int8")  # type: ignore[arg-type]


@pytest.mark.parametrize("stands", [False, True])
def test_what_fails_leaves_nothing(
    stands: bool, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    if stands:
        save(trained, out)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("*"))
    there = PreTrainedModel.save_pretrained

    def full(model: PreTrainedModel, place: Path, **settings: object) -> None:
        there(model, place, **settings)
        assert sorted(path.name for path in out.glob("*")) == [name for name, _ in before]
        raise OSError("no space left")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        save(trained, out, overwrite=True)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in out.glob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * stands


def spoiled(change: Callable[[torch.Tensor], object]) -> Callable[..., None]:
    there = PreTrainedModel.save_pretrained

    def save_pretrained(model: PreTrainedModel, place: Path, **settings: object) -> None:
        change(model.model.norm.weight.data)
        there(model, place, **settings)

    return save_pretrained


def test_an_export_that_computes_something_else_is_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(trained, alphas=(1.0, 0.75, 0.52))
    with pytest.raises(ExportError, match="in float32, logits differ from the run's by"):
        save(wrong, tmp_path / "out")
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", spoiled(lambda w: w.mul_(1e6)))
    for dtype, by in (("float32", r"\d"), ("float16", "(nan|inf)")):
        with pytest.raises(ExportError, match=f"in {dtype}, logits differ from the run's by {by}"):
            save(trained, tmp_path / "out", dtype)
    assert not any(tmp_path.iterdir())
