"""Opening the model of a run from its folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.data import open_data, prepare_all
from groundup.model import Transformer
from groundup.train import OptimizerConfig, Recipe, checkpoint, train
from groundup.train.evaluate import HeldOutTexts
from groundup.train.folder import FolderError
from groundup.train.trained import open_trained
from tests.train.runs import changed, metrics


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    train(replace(recipe, name="trained"), out)
    return out


def _held_out_loss(recipe: Recipe, model: torch.nn.Module) -> float:
    """As training evaluates."""
    config = recipe.train
    opened = open_data(recipe.data, prepare_all(recipe.data), config.batch, 0, config.steps)
    held_out = HeldOutTexts(opened.held_out, recipe.data.length, config.batch, config.eval_tokens)
    found = held_out.evaluate(model, torch.device("cpu"), "float32")
    return found.losses()["eval_loss"]


def test_the_final_model_has_the_loss_that_training_found(run: Path, recipe: Recipe) -> None:
    trained = open_trained(run, device="cpu")
    assert trained.step == recipe.train.steps
    assert trained.alphas == (1.0, 1.0, 1.0)
    assert not trained.model.training
    loss = _held_out_loss(recipe, trained.model)
    assert loss == pytest.approx(metrics(run)[-1]["eval_loss"], rel=1e-6)


def test_alpha_of_a_checkpoint_is_in_force(recipe: Recipe, tmp_path: Path) -> None:
    slow = replace(recipe, residual=replace(recipe.residual, T=4))
    train(changed(slow, checkpoint_every=2, keep=10), tmp_path / "run")
    trained = open_trained(tmp_path / "run", step=6, device="cpu")
    # min(t/(T·l), 1), t = 6, T = 4
    assert trained.alphas == pytest.approx((1.0, 0.75, 0.5))
    assert trained.warmup is not None
    assert trained.warmup.alphas().tolist() == pytest.approx([1.0, 0.75, 0.5])
    plain = Transformer(trained.recipe.model)
    checkpoint.load(tmp_path / "run" / "checkpoints", 6, plain, None)
    state = plain.state_dict()
    for l, alpha in enumerate(trained.alphas):
        for end in ("attention.branch.output", "feed_forward.branch.down"):
            state[f"layers.{l}.{end}.weight"] *= alpha
    plain.load_state_dict(state)
    tokens = torch.arange(20).reshape(2, 10)
    torch.testing.assert_close(trained.model(tokens), plain(tokens))


def test_of_two_sets_of_weights_those_that_are_evaluated(recipe: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("pytorch_optimizer")
    free = replace(recipe, optimizer=OptimizerConfig("schedule-free-adamw"))
    train(free, tmp_path / "run")
    trained = open_trained(tmp_path / "run", device="cpu")
    loss = metrics(tmp_path / "run")[-1]["eval_loss"]
    assert _held_out_loss(recipe, trained.model) == pytest.approx(loss, rel=1e-6)
    raw = Transformer(trained.recipe.model)
    checkpoint.load(tmp_path / "run" / "checkpoints", trained.step, raw, None)
    assert _held_out_loss(recipe, raw) != pytest.approx(loss, rel=1e-6)


def test_the_folder_is_enough(run: Path, recipe: Recipe, tmp_path: Path) -> None:
    """Neither the text nor the prepared tokens are needed, nor the place where it was trained."""
    shutil.copytree(run, tmp_path / "moved")
    path = tmp_path / "moved" / "recipe.toml"
    text = path.read_text()
    for gone in (recipe.data.source, recipe.data.folder):
        assert gone in text
        text = text.replace(gone, str(tmp_path / "nowhere"))
    path.write_text(text)
    there, here = open_trained(run, device="cpu"), open_trained(tmp_path / "moved", device="cpu")
    assert here.tokenizer.hash == there.tokenizer.hash
    assert np.array_equal(here.tokenizer.encode("def x"), there.tokenizer.encode("def x"))


def test_errors_name_the_folder_and_what_there_is(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"no recipe\.toml"):
        open_trained(tmp_path)
    with pytest.raises(FolderError, match=r"step=7 .* after 8, 12 updates"):
        open_trained(run, step=7)
    shutil.copy(run / "recipe.toml", tmp_path)
    with pytest.raises(FolderError, match="no checkpoint yet"):
        open_trained(tmp_path)
