"""What is said of a run that begins with the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup._json import parse
from groundup.train.recipe import Recipe


def notes(recipe: Recipe, tokenizer: Path, alphas: Sequence[float]) -> Iterator[str]:
    """Sentences for the reader, none for a run from scratch.

    Args:
        recipe: the run's.
        tokenizer: the tokenizer.json of its data.
        alphas: α of each layer before the first update.
    """
    if (weights := recipe.model.weights) is None:
        return
    if 0.0 in alphas:
        yield (
            "residual warmup starts at α = 0, which silences the layers that model.weights has "
            "trained"
        )
    theirs = Path(weights).expanduser() / "tokenizer.json"
    if theirs.is_file() and _tokens(theirs) != _tokens(tokenizer):
        yield (
            f"data.tokenizer={recipe.data.tokenizer!r} has other tokens than {theirs}, which came "
            "with model.weights: to the weights they mean something else"
        )


def _tokens(path: Path) -> Any:
    """The vocabulary of a tokenizer.json. Not all of the file: what a tokenizer puts around a text,
    and how versions of the library write it, changes no token's meaning."""
    found = parse(path.read_bytes())
    added = {token["content"]: token["id"] for token in found.get("added_tokens") or []}
    vocabulary = found["model"].get("vocab")
    if isinstance(vocabulary, dict):
        # Added tokens may stand in both.
        return vocabulary | added
    return vocabulary, added
