"""groundup generate RUN"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from groundup._check import count
from groundup.commands._options import parse
from groundup.evaluate.generation import Sampling, Speaker, open_speaker


@dataclass(frozen=True)
class Generate:
    """Let a trained model go on from a prompt, up to the end of the document. The text is printed
    as it comes, after the prompt. Without a prompt the model begins a document of its own.
    """

    run: tyro.conf.Positional[Path | None] = None
    """A run's folder, or a model in Hugging Face's format."""

    prompt: str | None = None
    """How the document begins."""

    prompt_file: Path | None = None
    """A file with the prompt, as it is, its last line break included; - for standard input."""

    tokens: int = 100
    """Tokens to write, at most."""

    temperature: float | None = None
    """What the logits are divided by before a token is drawn; 1 unless given."""

    top_k: int | None = None
    """Draw from so many of the likeliest tokens."""

    top_p: float | None = None
    """Draw from the likeliest tokens that together have this probability."""

    min_p: float | None = None
    """Draw from the tokens that have this share of the likeliest one's probability."""

    repetition_penalty: float | None = None
    """Above 1: tokens that are in the text already become less likely."""

    greedy: bool = False
    """Always the likeliest token."""

    samples: int = 1
    """Texts to write, of the seeds SEED, SEED + 1, …"""

    seed: int | None = None
    """The same seed writes the same text; 0 unless given."""

    step: int | None = None
    """Completed updates of the checkpoint; the newest unless given."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    precision: Literal["float32", "bf16"] = "float32"
    """What to compute in."""


# Of no use where nothing is drawn.
_DRAWING = ("temperature", "top_k", "top_p", "min_p", "seed")


def main(arguments: list[str]) -> int:
    options = parse(Generate(), "generate RUN", arguments)
    _refuse(options)
    sampling = _sampling(options)
    prompt = _prompt(options)
    assert options.run is not None
    speaker = open_speaker(options.run, options.step, options.device)
    for number in range(options.samples):
        if options.samples > 1:
            # Apart from the text, which may go into a file.
            print(f"=== {number + 1} of {options.samples}", file=sys.stderr, flush=True)
        _write(speaker, prompt, sampling, options, (options.seed or 0) + number)
    return 0


def _write(speaker: Speaker, prompt: str, sampling: Sampling, options: Generate, seed: int) -> None:
    print(prompt, end="", flush=True)
    written = speaker.write(
        prompt,
        options.tokens,
        sampling,
        seed=seed,
        precision=options.precision,
        hear=lambda text: print(text, end="", flush=True),
    )
    if not (prompt + written.text).endswith("\n"):
        print(flush=True)
    if written.left_out:
        print(
            f"groundup: the model reads {speaker.length} tokens at once: the first "
            f"{written.left_out} of the prompt were left out",
            file=sys.stderr,
        )


def _refuse(options: Generate) -> None:
    """ValueError for what is not valid, or would be ignored."""
    if options.run is None:
        raise ValueError("say which run: its folder, or that of a model in Hugging Face's format")
    for name, least in (("tokens", 1), ("samples", 1), ("seed", 0), ("step", 0)):
        if (value := getattr(options, name)) is not None:
            count(name, value, least)
    if options.prompt is not None and options.prompt_file is not None:
        raise ValueError("--prompt and --prompt-file are both given: the prompt is one of them")
    if options.temperature == 0:
        raise ValueError("temperature=0 is not valid: say --greedy for the likeliest token, always")
    if not options.greedy:
        return
    for name in _DRAWING:
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise ValueError(f"--{flag} would be ignored: with --greedy nothing is drawn")
    if options.samples > 1:
        raise ValueError(f"--samples {options.samples} with --greedy would be one text repeated")


def _sampling(options: Generate) -> Sampling:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return Sampling(greedy=options.greedy, **given)


def _prompt(options: Generate) -> str:
    file = options.prompt_file
    if file is None:
        return options.prompt or ""
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"prompt_file={str(file)!r} is not valid: {error}") from error
