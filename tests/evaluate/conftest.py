"""A small model in float64, a run of twelve updates, and a tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.data import Tokenizer
from groundup.data.tokenizer import train as train_tokenizer
from groundup.evaluate.scoring import Scorer
from groundup.model import ModelConfig, Transformer
from groundup.train import Recipe, train
from tests.evaluate.texts import PASSAGES, WIKITEXT

VOCABULARY = 300


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer([WIKITEXT, *PASSAGES], VOCABULARY)


@pytest.fixture(scope="session")
def model() -> Transformer:
    """Of random weights large enough that its predictions differ."""
    config = ModelConfig(layers=2, width=16, heads=2, vocab_size=VOCABULARY, init_std=0.3)
    return Transformer(config).double().eval()


@pytest.fixture(scope="session")
def scorer(model: Transformer) -> Scorer:
    return Scorer(model, torch.device("cpu"), length=24, batch=4)


@pytest.fixture(scope="session")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that write to it copy it."""
    out = tmp_path_factory.mktemp("runs") / "small"
    train(recipe, out)
    return out
