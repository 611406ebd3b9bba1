"""groundup export RUN OUT"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import tyro

from groundup.commands._options import parse
from groundup.evaluate.subject import find_subject
from groundup.export import Exported, card, save
from groundup.export.folder import DType, require_place
from groundup.model.library import transformers
from groundup.train.trained import open_trained

_MISSING = Path()
_SHORT: dict[str, DType] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_DTYPES: dict[str, DType] = {name: name for name in get_args(DType)} | _SHORT


@dataclass(frozen=True)
class Export:
    """Write a trained run as a folder that Hugging Face transformers loads: weights (safetensors),
    configuration, tokenizer, model card.

    The class is one of transformers wherever one computes exactly the same, else that of
    groundup.hf. The factors of residual warmup are multiplied into the weights.
    """

    run: tyro.conf.Positional[Path] = _MISSING
    """The run's folder, or one with a single run below it."""

    out: tyro.conf.Positional[Path] = _MISSING
    """The new folder."""

    step: int | None = None
    """After so many updates; the newest checkpoint unless given."""

    dtype: DType | Literal["fp32", "bf16", "fp16"] = "float32"
    """Of the weights; fp32, bf16 and fp16 are short for them."""

    overwrite: bool = False
    """Take the place of an earlier export."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where logits are compared; auto takes a GPU if there is one."""


def main(arguments: list[str]) -> int:
    options = parse(Export(), "export", arguments)
    if _MISSING in (options.run, options.out):
        raise ValueError("say which run, and the folder to write: groundup export RUN OUT")
    require_place(options.out, options.overwrite)
    transformers()  # it says how to install what is missing
    trained = open_trained(find_subject(options.run), options.step, options.device)
    written = save(trained, options.out, _DTYPES[options.dtype], overwrite=options.overwrite)
    print(_said(written, options.out, card.folding(trained.alphas), trained.step))
    return 0


def _said(written: Exported, out: Path, folding: str, step: int) -> str:
    own = "" if written.stock else " (of groundup.hf)"
    return "\n".join(
        [
            f"{out}: {written.architecture}{own}, {written.parameters:,} parameters, "
            f"{written.dtype}",
            f"After {step:,} updates {folding}.",
            f"Loaded again, logits differ from the run's by {written.difference:.2g} at most; the "
            f"largest is {written.largest:.3g}.",
            *_removed(written),
            "",
            *card.loading(written, str(out)),
        ]
    )


def _removed(written: Exported) -> list[str]:
    if not written.removed:
        return []
    return [f"Removed with the earlier export: {', '.join(written.removed)}."]
