"""A trained model, opened from the folder of its run: to evaluate it, to export it, to hear it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from groundup.data import Tokenizer, prepare_all
from groundup.data import load as load_tokenizer
from groundup.residual import Warmup, attach
from groundup.train import checkpoint, folder, recipe_file, setup
from groundup.train.parallel.start import pick_device
from groundup.train.recipe import Recipe


@dataclass(frozen=True)
class Trained:
    """A run's model after `step` completed updates.

    Attributes:
        folder: of the run.
        recipe: of the run, resolved.
        step: completed updates.
        model: float32, in evaluation mode, its branches scaled by `alphas`. Where the optimizer
            keeps two sets of weights (schedule-free), those that it evaluates.
        warmup: what scales the branches; None where nothing does.
        alphas: α of each layer after `step` updates.
        tokenizer: the one of its data.
    """

    folder: Path
    recipe: Recipe
    step: int
    model: nn.Module
    warmup: Warmup | None
    alphas: tuple[float, ...]
    tokenizer: Tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


def open_trained(run: Path, step: int | None = None, device: str = "auto") -> Trained:
    """Open the checkpoint of `step` updates in a run's folder, the newest unless given.

    Args:
        run: a folder that `groundup train` has written.
        step: completed updates.
        device: "auto", "cpu" or "cuda".

    Raises:
        FolderError: if the folder holds no run, or no such checkpoint.
        CheckpointError: if the checkpoint is damaged.
    """
    path = run / "recipe.toml"
    if not path.is_file():
        raise folder.FolderError(f"{run} is no run folder: it has no recipe.toml")
    recipe = recipe_file.read(path).recipe
    places = run / "checkpoints"
    steps = checkpoint.steps_in(places)
    if not steps:
        raise folder.FolderError(f"{run} holds no checkpoint yet")
    chosen = steps[-1] if step is None else step
    if chosen not in steps:
        raise folder.FolderError(
            f"step={step} is not valid: {run} holds the checkpoints after "
            f"{', '.join(map(str, steps))} updates"
        )
    tokenizer = _tokenizer(run, recipe)
    recipe = setup.with_vocabulary(recipe, tokenizer)
    model = setup.plain_model(recipe, pick_device(device))
    setup.part_documents(model, recipe, tokenizer.eos_id)
    optimizer = setup.build_optimizer(model, recipe)
    schedule = recipe.residual.resolve(recipe.train.steps)
    with warnings.catch_warnings():
        # Its advice, to load the optimizer or to say the step: the latter comes below.
        warnings.filterwarnings("ignore", message=".* look trained")
        warmup = None if schedule.name == "none" else attach(model, schedule)
    to_evaluate = getattr(optimizer, "eval", None)
    checkpoint.load(places, chosen, model, optimizer if to_evaluate else None)
    if to_evaluate:
        to_evaluate()
    if warmup is not None:
        warmup.at(chosen)
    return Trained(
        folder=run,
        recipe=recipe,
        step=chosen,
        model=model.eval(),
        warmup=warmup,
        alphas=tuple(schedule(chosen, recipe.model.layers)),
        tokenizer=tokenizer,
    )


def _tokenizer(run: Path, recipe: Recipe) -> Tokenizer:
    """That in the run's folder, or that of its data: older runs have none of their own."""
    kept = run / folder.TOKENIZER
    there = (kept / "tokenizer.json").is_file()
    return load_tokenizer(kept if there else prepare_all(recipe.data).tokenizer)
