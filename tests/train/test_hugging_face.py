"""Runs of models of transformers, and runs that go on from a checkpoint of Hugging Face."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from groundup.cli import main
from groundup.commands._options import parse
from groundup.commands.train import Train
from groundup.data import DataConfig, TokenFile, prepare, prepare_all
from groundup.model import ModelConfig, Transformer, initialize, resolved
from groundup.model.hugging_face import HuggingFace
from groundup.train import Recipe, ResidualConfig, recipe_file, train
from groundup.train import run as runs
from groundup.train.origin import notes
from groundup.train.progress import Silent
from groundup.train.settings import MeasureConfig
from groundup.train.setup import build_model
from groundup.train.toml import build_model as model_of
from groundup.train.toml import dumps
from groundup.train.trained import open_trained
from groundup.train.world import ALONE
from tests.residual.where import ranks
from tests.train.runs import changed, forget_the_end, lines, metrics

pytest.importorskip("transformers")

GPT2 = {"n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 16, "vocab_size": 300}
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 300,
}
SMALL = {"gpt2": GPT2, "llama": LLAMA, "qwen3": {**LLAMA, "head_dim": 8}}
CPU = torch.device("cpu")
TWO_RANKS = "tests.train.hugging_face_on_two_ranks"


def with_model(recipe: Recipe, **table: Any) -> Recipe:
    return replace(recipe, model=model_of(table))


def from_weights(recipe: Recipe, weights: Path, **table: Any) -> Recipe:
    """With the tokenizer that the weights are taken to know."""
    tokenizer = str(prepare_all(recipe.data).tokenizer)
    known = replace(recipe.data, tokenizer=tokenizer, vocab_size=DataConfig.vocab_size)
    return with_model(replace(recipe, data=known), weights=str(weights), **table)


def of(recipe: Recipe, kind: str, **changes: Any) -> Recipe:
    return with_model(recipe, hf=kind, hf_config={**SMALL[kind], **changes})


@pytest.fixture(scope="module")
def trained(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind, with residual warmup, dropout (GPT-2) and measurements."""
    folder = tmp_path_factory.mktemp("trained")
    for kind in SMALL:
        train(of(recipe, kind), folder / kind)
    return {kind: folder / kind for kind in SMALL}


# ---------------------------------------------------------------------- a run


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_it_goes_on_exactly(
    recipe: Recipe, trained: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    out = tmp_path / "run"
    train(of(recipe, kind), out)
    forget_the_end(out)
    train(of(recipe, kind), out)
    for name in ("metrics.jsonl", "measurements.jsonl"):
        assert (out / name).read_bytes() == (trained[kind] / name).read_bytes()


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_all_is_measured_in_every_layer(trained: dict[str, Path], kind: str) -> None:
    first, *_, last = lines(trained[kind], "measurements")
    words = ("stream_norm", "attention_entropy", "skip_loss", "grad_norm", "angle", "branch_norm")
    for word in words:
        found = {k: v for k, v in {**first, **last}.items() if k.startswith(word) and "/l" in k}
        assert found, word
        for values in found.values():
            assert len(values) == 3
    assert lines(trained[kind], "sketches")


def test_residual_warmup_holds_the_layers_back(
    recipe: Recipe, trained: dict[str, Path], tmp_path: Path
) -> None:
    alphas = [line["alpha_mean"] for line in metrics(trained["llama"])]
    assert alphas[0] == 0.0
    assert alphas[-1] == 1.0
    out = tmp_path / "none"
    train(changed(replace(of(recipe, "llama"), residual=ResidualConfig()), steps=6), out)
    assert metrics(out)[0]["loss"] != metrics(trained["llama"])[0]["loss"]


def test_the_recipe_of_a_run_is_whole(
    recipe: Recipe, trained: dict[str, Path], monkeypatch: Any
) -> None:
    """It is read, and compared with another, without transformers."""
    wanted = of(recipe, "gpt2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    path = trained["gpt2"] / "recipe.toml"
    found = recipe_file.read(path).recipe
    assert found == wanted
    table = tomllib.loads(path.read_text())["model"]
    assert "placement" not in table
    assert "hf" not in table
    assert table["hf_config"]["model_type"] == "gpt2"
    (variant,) = recipe_file.expand(found, [{"name": "a", "train": {"seed": 3}}]).values()
    assert variant.model == found.model


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_it_is_opened_again(recipe: Recipe, trained: dict[str, Path], kind: str) -> None:
    opened = open_trained(trained[kind])
    assert isinstance(opened.model, HuggingFace)
    loss = held_out_loss(recipe, opened.model)
    assert loss == pytest.approx(metrics(trained[kind])[-1]["eval_loss"], rel=1e-6)


def held_out_loss(recipe: Recipe, model: torch.nn.Module) -> float:
    """By hand: the mean over the first `eval_tokens` of the held-out text."""
    tokens = TokenFile.open(prepare(recipe.data).validation).tokens
    length = recipe.data.length
    number = recipe.train.eval_tokens // length
    rows = np.stack([tokens[i * length : i * length + length + 1] for i in range(number)])
    rows = torch.from_numpy(rows.astype(np.int64))
    with torch.no_grad():
        logits = model(rows[:, :-1])
    return F.cross_entropy(logits.double().flatten(0, 1), rows[:, 1:].flatten()).item()


def test_the_seed_decides_weights_and_dropout(recipe: Recipe, tmp_path: Path) -> None:
    small = changed(of(recipe, "gpt2"), steps=6)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(changed(small, seed=seed), tmp_path / name)
    a, b, c = (metrics(tmp_path / name) for name in "abc")
    assert a == b
    assert a[0]["loss"] != c[0]["loss"]
    still = changed(of(recipe, "gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), steps=6)
    train(still, tmp_path / "still")
    assert metrics(tmp_path / "still")[0]["loss"] != a[0]["loss"]


def test_recomputing_changes_nothing_but_rounding(
    recipe: Recipe, trained: dict[str, Path], tmp_path: Path
) -> None:
    """Dropout is drawn again as it was."""
    train(changed(of(recipe, "gpt2"), recompute="full"), tmp_path / "run")
    for a, b in zip(metrics(tmp_path / "run"), metrics(trained["gpt2"]), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


# ---------------------------------------------------------------------- from a checkpoint


@pytest.fixture(scope="module")
def checkpoint(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of transformers: the weights with which our decoder starts."""
    from groundup.export import as_hugging_face

    folder = tmp_path_factory.mktemp("checkpoint")
    config = replace(recipe.model, vocab_size=300, kv_heads=1)
    model = Transformer(config)
    initialize(model, recipe.train.seed)
    as_hugging_face(model, [1.0] * 3).save_pretrained(folder)
    return folder


def test_a_llama_of_transformers_trains_as_ours_does(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    """From scratch, from the same weights, and from them in the model of transformers."""
    scratch = replace(recipe, model=replace(recipe.model, kv_heads=1))
    ours = from_weights(recipe, checkpoint)
    theirs = from_weights(recipe, checkpoint, hf=str(checkpoint))
    assert not ours.model.hf_config
    assert theirs.model.hf_config["model_type"] == "llama"
    notes = Notes()
    train(scratch, tmp_path / "scratch")
    train(ours, tmp_path / "ours", notes)
    train(theirs, tmp_path / "theirs")
    assert any("which silences the layers that model.weights" in note for note in notes.said)
    expected = metrics(tmp_path / "scratch")
    assert metrics(tmp_path / "ours") == expected
    for line, other in zip(metrics(tmp_path / "theirs"), expected, strict=True):
        assert list(line) == list(other)
        assert line == pytest.approx(other, rel=2e-4), line["step"]


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("hf", [False, True])
def test_it_begins_where_the_checkpoint_stands(
    recipe: Recipe, checkpoint: Path, tmp_path: Path, hf: bool
) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    expected = held_out_loss(recipe, lambda rows: theirs(rows).logits)  # type: ignore[arg-type]
    table = {"hf": str(checkpoint)} if hf else {}
    start = replace(from_weights(recipe, checkpoint, **table), residual=ResidualConfig())
    run = runs.build(start, tmp_path, prepare_all(start.data), ALONE, CPU)
    with run.checkpoints:
        assert runs.resume(run, Silent()) == (0, 0.0)
        found = run.held_out.evaluate(run.model, CPU, "float32").losses()["eval_loss"]
    assert found == pytest.approx(expected, rel=1e-6)


def test_weights_are_read_at_the_beginning_only(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    there = tmp_path / "weights"
    shutil.copytree(checkpoint, there)
    start = from_weights(recipe, there, hf=str(there))
    train(start, tmp_path / "run")
    expected = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    shutil.rmtree(there)
    forget_the_end(tmp_path / "run")
    found = recipe_file.read(tmp_path / "run" / "recipe.toml").recipe
    train(found, tmp_path / "run")
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == expected
    with pytest.raises(ValueError, match=r"weights=.* is not valid: there is no such folder"):
        train(found, tmp_path / "anew")
    assert not (tmp_path / "anew").exists()


def test_another_tokenizer_than_that_of_the_weights_is_said(
    recipe: Recipe, checkpoint: Path, tmp_path: Path
) -> None:
    start = from_weights(recipe, checkpoint)
    own = Path(start.data.tokenizer)
    theirs = json.loads(own.read_text())
    there = shutil.copytree(checkpoint, tmp_path / "weights")

    def said() -> list[str]:
        moved = replace(start, model=replace(start.model, weights=str(there)))
        return [note for note in notes(moved, own, [1.0]) if "has other tokens than" in note]

    assert not said()  # the folder has none
    theirs["post_processor"] = None  # as an export has it: the same tokens
    (there / "tokenizer.json").write_text(json.dumps(theirs))
    assert not said()
    a, b = list(theirs["model"]["vocab"])[-2:]
    vocabulary = theirs["model"]["vocab"]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (there / "tokenizer.json").write_text(json.dumps(theirs))
    assert len(said()) == 1


# ---------------------------------------------------------------------- what is refused


def test_a_vocabulary_that_is_too_small(recipe: Recipe, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model.hf_config.vocab_size=99 is not valid: the token"):
        train(of(recipe, "gpt2", vocab_size=99), tmp_path)
    larger = replace(recipe, data=replace(recipe.data, vocab_size=310))
    with pytest.raises(ValueError, match=r"take that of the weights, data.tokenizer = '"):
        train(from_weights(larger, checkpoint), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_with_a_tokenizer_that_they_do_not_know(recipe: Recipe, checkpoint: Path) -> None:
    wanted = r"data.tokenizer='train' is not valid with model.weights='(.*)': .* = '\1' \(its"
    with pytest.raises(ValueError, match=wanted):
        with_model(recipe, weights=str(checkpoint))


def sizes_of(recipe: Recipe, **sizes: int) -> Recipe:
    return replace(recipe, model=replace(recipe.model, **sizes))


@pytest.mark.parametrize("hf", [False, True])
def test_what_cannot_be_is_refused_before_data_are_prepared(
    recipe: Recipe, checkpoint: Path, tmp_path: Path, hf: bool, capsys: Any
) -> None:
    """By the commands, which prepare data before they train."""
    start = from_weights(recipe, checkpoint)
    table = {"layers": 4, "width": 16, "heads": 2, "kv_heads": 1}
    if hf:
        table = {"hf": "llama", "hf_config": {**LLAMA, "num_hidden_layers": 4}}
    wrong = with_model(start, weights=str(checkpoint), **table)
    wrong = replace(wrong, data=replace(wrong.data, folder=str(tmp_path / "data")))
    (tmp_path / "recipe.toml").write_text(dumps(wrong))
    for command in (["train"], ["compare"], ["sweep", "--axes", "rate.peak=1e-3,2e-3"]):
        name, *rest = command
        out = ["--out", str(tmp_path / "run")]
        assert main([name, str(tmp_path / "recipe.toml"), *rest, *out]) == 2
        assert "model.layers=4 is not valid: weights=" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_sequences_that_are_too_long(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=r"data.length=16 is not valid: .* \(.*n_positions\)"):
        of(recipe, "gpt2", n_positions=8)


def test_a_model_that_sees_ahead(recipe: Recipe, tmp_path: Path) -> None:
    sizes = {key: value for key, value in LLAMA.items() if "key_value" not in key}
    with pytest.raises(ValueError, match=r"model_type='bert' is not valid.*\.is_decoder = true"):
        train(with_model(recipe, hf="bert", hf_config=sizes), tmp_path / "bert")
    assert not (tmp_path / "bert").exists()
    decoder = with_model(recipe, hf="bert", hf_config={**sizes, "is_decoder": True})
    assert isinstance(build_model(decoder, ALONE, CPU)[0], HuggingFace)


def test_sizes_that_are_not_those_of_the_configuration(recipe: Recipe, tmp_path: Path) -> None:
    table = resolved({"hf": "gpt2", "hf_config": GPT2})
    table["hf_config"] = {k: v for k, v in table["hf_config"].items() if k != "n_head"}
    with pytest.raises(ValueError, match=r"model.heads=2 would be ignored: hf_config says 12"):
        train(with_model(recipe, **table), tmp_path)


def test_layers_that_are_not_known_are_not_measured_and_it_is_said(
    recipe: Recipe, tmp_path: Path
) -> None:
    sizes = {"n_embd": 16, "n_layer": 3, "n_head": 4, "vocab_size": 300}
    small = with_model(recipe, hf="codegen", hf_config={**sizes, "rotary_dim": 4})
    notes = Notes()
    out = tmp_path / "run"
    train(changed(replace(small, residual=ResidualConfig()), steps=6), out, notes)
    assert sum("the layers of this model are not known" in note for note in notes.said) == 1
    assert "update_norm" in lines(out, "measurements")[0]
    with pytest.raises(ValueError, match="no residual branches are known"):
        train(small, tmp_path / "warmed")
    ends = ("transformer.h.{l}.attn.out_proj", "inner.transformer.h.{l}.mlp.fc_out")
    known = replace(small.model, branches=ends)
    train(replace(small, model=known), tmp_path / "known")
    stream = lines(tmp_path / "known", "measurements")[0]["stream_norm/layers"]
    assert len(stream) == 3
    again = open_trained(tmp_path / "known", step=8, device="cpu")
    assert again.recipe.model.branches == known.branches
    assert again.warmup is not None


def test_branches_are_of_models_that_are_not_ours() -> None:
    with pytest.raises(ValueError, match=r"branches=\('a',\) would be ignored"):
        ModelConfig(branches=("a",))


# ---------------------------------------------------------------------- commands


def test_flags_say_what_a_recipe_says(recipe: Recipe, checkpoint: Path) -> None:
    def flags(*words: str, of: Recipe = recipe) -> Recipe:
        return parse(Train(of), "train RECIPE", list(words)).recipe

    said = [f"{key}={value}" for key, value in GPT2.items()]
    found = flags("--model.hf", "gpt2", "--model.hf-config", *said, "--steps", "9")
    assert found == changed(of(recipe, "gpt2"), steps=9)
    fewer = flags("--model.hf-config", "n_layer=2", "activation_function=relu", of=found)
    assert fewer.model == of(recipe, "gpt2", n_layer=2, activation_function="relu").model
    assert flags("--model.z-loss", "1e-4", of=found).model == replace(found.model, z_loss=1e-4)
    theta = "--model.hf-config=rope_parameters.rope_theta=5e5"
    rope = flags("--model.hf", "llama", theta, of=found)
    assert rope.model.hf_config["rope_parameters"]["rope_theta"] == 5e5
    known = from_weights(recipe, checkpoint)
    mine = replace(known, model=recipe.model)
    assert flags("--model.weights", str(checkpoint), of=mine) == known
    for words, message in (
        (["--model.hf", "gpt2", "--model.layers", "4"], "layers=4 would be ignored: hf='gpt2'"),
        (["--model.hf-config", "n_layer"], "write it like n_layer=4"),
        (["--model.hf-config", "n_layer=2", "n_layer=3"], "model.hf_config: n_layer=2 n_layer=3"),
        (["--model.hf-config", "n_layer=2"], "so say hf"),
        (["--model.weights", str(checkpoint), "--model.layers", "4"], r"weights=.* has 3"),
    ):
        with pytest.raises(ValueError, match=message):
            flags(*words, of=mine)


def test_plan(capsys: Any) -> None:
    whole = ["plan", "quickstart", "--model.hf", "gpt2", "--train.precision", "bf16"]
    assert main(whole) == 0
    assert "Activations are those of a Llama of these sizes" in capsys.readouterr().out
    assert main([*whole, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == sum(found["parameters_by_kind"].values()) == 124_439_808
    # AdamW: two moments, in float32 as the weights and gradients are.
    kinds = found["memory"]["update"]
    assert kinds["weights"] == kinds["gradients"] == 4 * 124_439_808
    assert kinds["optimizer state"] == pytest.approx(8 * 124_439_808, rel=1e-4)


# ---------------------------------------------------------------------- two processes


@pytest.fixture(scope="module")
def outcomes(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("ranks")
    still = of(recipe, "gpt2", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    still = changed(replace(still, measure=MeasureConfig(every=6, what=("gradients",))), steps=6)
    (folder / "recipe.toml").write_text(dumps(still))
    train(still, folder / "one")
    return ranks.run(TWO_RANKS, folder)


@pytest.mark.parametrize("name", ranks.names(TWO_RANKS))
def test_two_ranks(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == ""
