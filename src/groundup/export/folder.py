"""A run's model as a folder that transformers loads: written whole, then looked at once more."""

from __future__ import annotations

import copy
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from groundup._atomic import sync_folder
from groundup._check import unknown
from groundup.export import card, tokenizer
from groundup.export.convert import as_hugging_face, built
from groundup.model.library import quiet, transformers
from groundup.train.trained import Trained

DType = Literal["float32", "bfloat16", "float16"]
RECIPE = "groundup_recipe.toml"
"""The recipe in an exported folder; also what tells it from other folders."""

_SHARD = "5GB"
_ROUNDING = {"float32": 1e-3, "float16": 0.1, "bfloat16": 0.5}
"""Difference of logits, relative to the largest, that is still put down to rounding: a hundred
times what it usually makes, and less than a forgotten factor does."""


class ExportError(ValueError):
    """What was to be written does not compute what the run's model does."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        architecture: its class.
        stock: whether transformers has it; else `import groundup.hf` comes first.
        parameters: how many, a tied matrix once.
        dtype: of the weights.
        difference: largest absolute difference of a logit between the folder, loaded again, and
            the run's model.
        largest: the largest absolute logit.
        tokens: the tokens after which logits were compared.
        removed: what was in the earlier export and is not in this one: results of its weights in
            evaluations, files that were put there.
    """

    folder: Path
    architecture: str
    stock: bool
    parameters: int
    dtype: DType
    difference: float
    largest: float
    tokens: int
    removed: tuple[str, ...] = ()


def save(
    trained: Trained, out: Path, dtype: DType = "float32", *, overwrite: bool = False
) -> Exported:
    """Write a run's model for transformers: weights, configuration, generation configuration,
    tokenizer, model card, recipe.

    α and other fixed factors are multiplied in, see `as_hugging_face`; a model that is one of
    transformers already is written as its own class. The folder is written beside `out`, loaded
    and compared with the run's model, and renamed, so that under its name it is whole or not there.

    Args:
        trained: as `groundup.train.trained.open_trained` opens it; nothing of it is changed.
        out: the new folder.
        dtype: "float32", "bfloat16" or "float16".
        overwrite: take the place of an earlier export; nothing of it is kept.

    Raises:
        ValueError: if something else is at `out`, or an export and not `overwrite`; if transformers
            is not installed.
        ExportError: if logits differ by more than rounding (also where weights do not fit into
            float16), or the folder does not hold what was written. Nothing is left of it then.
    """
    if dtype not in get_args(DType):
        raise unknown("dtype", dtype, get_args(DType))
    out = out.absolute()
    require_place(out, overwrite)
    transformers()
    tokens = _tokens(trained)
    model = _converted(trained)
    with torch.no_grad():
        wanted = trained.model(tokens)
        _compare(model(tokens).logits, wanted, "float32")
    stock = not type(model).__module__.startswith("groundup.")
    parameters = sum(p.numel() for p in model.parameters())
    model.to(getattr(torch, dtype))
    with _beside(out, overwrite) as place:
        with quiet():
            model.save_pretrained(place, max_shard_size=_SHARD)
        tokenizer.save(trained.tokenizer, place, trained.recipe.data.length)
        difference = _compare(_read_again(model, place, tokens), wanted, dtype)
        exported = Exported(
            folder=out,
            architecture=type(model).__name__,
            stock=stock,
            parameters=parameters,
            dtype=dtype,
            difference=difference,
            largest=wanted.abs().max().item(),
            tokens=tokens.numel(),
        )
        (place / RECIPE).write_text(card.recipe(trained), encoding="utf-8")
        (place / "README.md").write_text(card.text(trained, exported, model), encoding="utf-8")
        written = {path.name for path in place.iterdir()}
        before = {path.name for path in out.iterdir()} if out.is_dir() else set()
    return replace(exported, removed=tuple(sorted(before - written)))


# ---------------------------------------------------------------------- the model


def _converted(trained: Trained) -> Any:
    """The run's model as one of transformers, float32."""
    eos = trained.tokenizer.eos_id
    # Every document was read after an end-of-document token.
    special = {"bos_token_id": eos, "eos_token_id": eos}
    inner = getattr(trained.model, "inner", None)
    if inner is None:
        length = {"max_position_embeddings": trained.recipe.data.length}
        model = as_hugging_face(trained.model, trained.alphas, **special, **length)  # type: ignore[arg-type]
    else:
        state = trained.model.state_dict()
        if trained.warmup is not None:
            state = trained.warmup.folded_state_dict()
        configuration = copy.deepcopy(inner.config)
        for name, value in special.items():
            setattr(configuration, name, value)
        own = {name.removeprefix("inner."): value for name, value in state.items()}
        model = built(type(inner), configuration, own)
    # Here, not in the model: there it would keep the row of the embedding from being trained.
    model.generation_config = transformers().GenerationConfig(**special, pad_token_id=eos)
    return model


def _tokens(trained: Trained) -> Tensor:
    """Two sequences to compare logits on."""
    length = min(trained.recipe.data.length, 64)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(trained.tokenizer.vocab_size, (2, length), generator=generator)
    # A document each: what is written does not keep several apart.
    end = trained.tokenizer.eos_id
    drawn[drawn == end] = 1 if end == 0 else 0
    return drawn.to(trained.device)


def _compare(found: Tensor, wanted: Tensor, dtype: DType) -> float:
    """The largest absolute difference of a logit."""
    difference, largest = (found - wanted).abs().max().item(), wanted.abs().max().item()
    if not difference <= _ROUNDING[dtype] * largest:  # also if it is not a number
        raise ExportError(
            f"in {dtype}, logits differ from the run's by {difference:.3g} (its largest is "
            f"{largest:.3g}), which is more than rounding. Of float32, please report this"
        )
    return difference


def _read_again(model: Any, place: Path, tokens: Tensor) -> Tensor:
    """Logits of the model in the folder, which must hold what it was given."""
    with quiet():
        loaded = type(model).from_pretrained(place, dtype="auto", local_files_only=True)
    state = loaded.state_dict()
    for name, value in model.state_dict().items():
        if name not in state or not torch.equal(state[name], value.to(state[name].device)):
            raise ExportError(f"{name}, read again from {place.name}, is not what was written")
    with torch.no_grad():
        return loaded.to(tokens.device).eval()(tokens).logits.float()


# ---------------------------------------------------------------------- the folder


def require_place(out: Path, overwrite: bool) -> None:
    """Raises: ValueError if `save` would not write there."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder for a model")
    if not any(out.iterdir()):
        return
    if not (out / RECIPE).is_file():
        raise ValueError(f"{out} is not empty, and no export of groundup: name another folder")
    if not overwrite:
        raise ValueError(f"{out} holds an export already: name another folder, or --overwrite it")


@contextmanager
def _beside(out: Path, overwrite: bool) -> Iterator[Path]:
    """A folder that takes the name `out` when the block ends, complete and on disk; if it raises,
    nothing is left of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    mark = f"{os.getpid()}-{secrets.token_hex(4)}.tmp"
    place, old = (out.with_name(f".{out.name}.{kind}-{mark}") for kind in ("new", "old"))
    place.mkdir()
    try:
        yield place
        for path in place.iterdir():
            shutil.copymode(place / "config.json", path)  # safetensors are for their owner only
            _sync(path)
        sync_folder(place)
        require_place(out, overwrite)  # somebody may have written there meanwhile
        replaced = out.exists()
        if replaced:
            out.rename(old)
        try:
            place.rename(out)
        except BaseException:
            if replaced:
                old.rename(out)
            raise
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
