"""What is evaluated: a run's model, or one in the format of Hugging Face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from groundup.data import Tokenizer
from groundup.evaluate.scoring import Scorer
from groundup.model.library import quiet
from groundup.report.runs import find_runs
from groundup.train.checkpoint import steps_in
from groundup.train.parallel.start import pick_device
from groundup.train.recipe import Recipe
from groundup.train.trained import open_trained
from groundup.train.world import ALONE, World

__all__ = ["Subject", "check_step", "find_subject", "find_subjects", "open_subject"]

_RUN, _HUGGING_FACE = "recipe.toml", "config.json"


@dataclass(frozen=True)
class Subject:
    """A model with all that evaluating it takes.

    Attributes:
        folder: where it was opened from.
        step: completed updates; None of a model that is no run's.
        tokens: that it was trained on until then, if known.
        model: tokens [B, T] int64 → logits [B, T, V], float32, in evaluation mode.
        device: where it is.
        tokenizer: its own.
        beginning: the token that a document's first is predicted from: what was before documents
            in training.
        length: tokens that it was trained to read at once.
        longest: tokens that it can read at once; None where that has no bound.
        precision: that it was trained in.
        recipe: of the run.
    """

    folder: Path
    step: int | None
    tokens: int | None
    model: nn.Module
    device: torch.device
    tokenizer: Tokenizer
    beginning: int
    length: int
    longest: int | None
    precision: str
    recipe: Recipe | None

    def scorer(
        self,
        length: int | None = None,
        batch: int = 16,
        precision: str | None = None,
        world: World = ALONE,
    ) -> Scorer:
        """What reads `length` tokens at once, in float32 on a CPU and as in training on a GPU,
        unless said otherwise; `world` shares the work.

        Raises:
            ValueError: if the model cannot read so many.
        """
        length = self.length if length is None else length
        if self.longest is not None and length > self.longest:
            raise ValueError(
                f"length={length} is not valid: {self.folder} reads at most {self.longest} tokens "
                "at once"
            )
        own = "float32" if self.device.type == "cpu" else self.precision
        return Scorer(self.model, self.device, length, batch, precision or own, world)


def find_subjects(place: Path) -> list[Path]:
    """The folder itself, or the runs below it, by path.

    Raises:
        ValueError: if there are none.
    """
    if any((place / name).is_file() for name in _OPENED):
        return [place]
    if not (found := find_runs(place)):
        raise ValueError(
            f"{place} is no run folder (none with a {_RUN}), holds none, and is no model of "
            f"Hugging Face's format (none with a {_HUGGING_FACE})"
        )
    return found


def find_subject(place: Path) -> Path:
    """The folder itself, or the one run below it.

    Raises:
        ValueError: if there is none, or several.
    """
    found = find_subjects(place)
    if len(found) > 1:
        raise ValueError(f"{place} holds several runs, say which: {', '.join(map(str, found))}")
    return found[0]


def check_step(folder: Path, step: int | None) -> None:
    """Of one of `find_subjects`, without opening it.

    Raises:
        ValueError: if it is a run without this checkpoint.
    """
    there = steps_in(folder / "checkpoints")
    if (folder / _RUN).is_file() and step is not None and step not in there:
        raise ValueError(
            f"step={step} is not valid: {folder} holds the checkpoints after "
            f"{', '.join(map(str, there)) or 'no'} updates"
        )


def open_subject(folder: Path, step: int | None = None, device: str = "auto") -> Subject:
    """Open one of `find_subjects`.

    Args:
        folder: of a run, or of a model in Hugging Face's format.
        step: of a run's checkpoint, the newest unless given.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: if it cannot be opened, or has no such step.
    """
    opening = next(open_ for name, open_ in _OPENED.items() if (folder / name).is_file())
    return opening(folder, step, device)


def _open_run(folder: Path, step: int | None, device: str) -> Subject:
    trained = open_trained(folder, step, device)
    recipe = trained.recipe
    return Subject(
        folder=folder,
        step=trained.step,
        tokens=trained.step * recipe.train.batch * recipe.data.length,
        model=trained.model,
        device=trained.device,
        tokenizer=trained.tokenizer,
        beginning=trained.tokenizer.eos_id,
        length=recipe.data.length,
        longest=_positions(trained.model),
        precision=recipe.train.precision,
        recipe=recipe,
    )


def _open_hugging_face(folder: Path, step: int | None, device: str) -> Subject:
    if step is not None:
        raise ValueError(f"step={step} would be ignored: {folder} is no run, and has no steps")
    try:
        import transformers

        import groundup.hf  # noqa: F401  (its classes are known to AutoModel from here on)
    except ImportError as error:
        raise ValueError(
            f"{folder}: reading models of Hugging Face's format needs the package transformers: "
            "pip install 'groundup[export]'"
        ) from error
    auto: Any = transformers.AutoModelForCausalLM
    where = pick_device(device)
    with quiet():
        model = auto.from_pretrained(folder, dtype=torch.float32).to(where).eval()
    words: Any = transformers.AutoTokenizer.from_pretrained(folder)
    backend = getattr(words, "backend_tokenizer", None)
    if backend is None or words.eos_token is None:
        raise ValueError(f"{folder}: its tokenizer is none of the fast ones with an eos_token")
    tokenizer = Tokenizer(backend.to_str(), eos=words.eos_token, name=str(folder))
    longest = _positions(model)
    # As the harness does: what begins a sequence, if the tokenizer has such a token.
    first = words.bos_token_id
    return Subject(
        folder=folder,
        step=None,
        tokens=None,
        model=_Logits(model),
        device=where,
        tokenizer=tokenizer,
        beginning=tokenizer.eos_id if first is None else first,
        length=longest or 1024,
        longest=longest,
        precision="bf16",
        recipe=None,
    )


def _positions(model: Any) -> int | None:
    """Tokens that a model of transformers can read at once, as it is or trained by us; None of
    others, which have no bound."""
    config = getattr(getattr(model, "inner", model), "config", None)
    return getattr(config, "max_position_embeddings", None)


class _Logits(nn.Module):
    """A model of transformers, of which nothing but the logits is wanted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits


# The file that tells what a folder holds, and how that is opened. A run comes first.
_OPENED: dict[str, Callable[[Path, int | None, str], Subject]] = {
    _RUN: _open_run,
    _HUGGING_FACE: _open_hugging_face,
}
