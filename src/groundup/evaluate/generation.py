"""What a trained model writes: text that goes on from a prompt, by transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup._check import count, positive, within
from groundup.data import Tokenizer
from groundup.evaluate.subject import find_subject, open_subject
from groundup.export import as_hugging_face
from groundup.model import Transformer
from groundup.train.setup import compute_precision
from groundup.train.trained import open_trained

__all__ = ["Sampling", "Speaker", "Written", "open_speaker"]


@dataclass(frozen=True)
class Sampling:
    """How each token is chosen; the names are those of transformers' `GenerationConfig`.

    Attributes:
        greedy: the likeliest token, always; otherwise one is drawn.
        temperature: what the logits are divided by before drawing.
        top_k: draw from so many of the likeliest; None: from all.
        top_p: draw from the likeliest that together have this probability.
        min_p: draw from those that have this share of the likeliest one's probability.
        repetition_penalty: what the logits of tokens that are in the text already are divided by
            (multiplied, where negative); above 1 they become less likely.

    Raises:
        ValueError: if one is out of range.
    """

    greedy: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)
        positive("repetition_penalty", self.repetition_penalty)
        if self.top_k is not None:
            count("top_k", self.top_k)
        within("top_p", positive("top_p", self.top_p), 0.0, 1.0)
        within("min_p", self.min_p, 0.0, 1.0)

    def settings(self) -> dict[str, Any]:
        """The fields of a `GenerationConfig`: all of them, since its own draws from 50 tokens."""
        penalty = {"repetition_penalty": self.repetition_penalty}
        if self.greedy:
            return penalty | {"do_sample": False}
        return penalty | {
            "do_sample": True,
            "temperature": self.temperature,
            "top_k": self.top_k or 0,
            "top_p": self.top_p,
            "min_p": self.min_p,
        }


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        text: what comes after the prompt.
        tokens: its ids, with the end-of-document token where the model wrote it.
        ended: whether it did.
        left_out: tokens at the beginning of the prompt that the model did not read.
    """

    text: str
    tokens: tuple[int, ...]
    ended: bool
    left_out: int


@dataclass(frozen=True)
class Speaker:
    """A model that goes on from a prompt.

    Attributes:
        model: of transformers, one that generates; in evaluation mode.
        tokenizer: its own.
        beginning: the token before a document's first.
        length: tokens that it reads at once, at least 2.
    """

    model: Any
    tokenizer: Tokenizer
    beginning: int
    length: int

    def __post_init__(self) -> None:
        count("length", self.length, least=2)

    def write(
        self,
        prompt: str,
        tokens: int,
        sampling: Sampling | None = None,
        *,
        seed: int = 0,
        precision: str = "float32",
        hear: Callable[[str], None] = lambda text: None,
    ) -> Written:
        """At most `tokens` tokens that follow the prompt, up to the end of the document.

        The prompt is the beginning of a document; an empty one leaves that to the model. What no
        longer fits into what the model reads at once is left out from the left, half of it at
        most, as often as it is full. The same seed gives the same text (on the same machine and
        versions); torch's random state stays as it is.

        Args:
            precision: "float32" or "bf16", as in a recipe.
            hear: is given the text, piece by piece as it comes.

        Raises:
            ValueError: if tokens or seed is out of range.
        """
        count("tokens", tokens)
        count("seed", seed, least=0)
        asked = self.tokenizer.encode(prompt).tolist()
        heard = _Hearing(self.tokenizer, asked, hear)
        text, first = [self.beginning, *asked], 1 + len(asked)
        settings = (sampling or Sampling()).settings()
        device = self.model.device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), compute_precision(precision, device):
            torch.manual_seed(seed)
            while (left := tokens + first - len(text)) > 0 and text[first:][-1:] != [self._end]:
                window = text[-(self.length - min(left, self.length // 2)) :]
                room = min(left, self.length - len(window))
                text += self._more(window, room, settings, heard)
        window_of_prompt = self.length - min(tokens, self.length // 2)
        return Written(
            text=heard.finish(),
            tokens=tuple(text[first:]),
            ended=text[-1] == self._end and len(text) > first,
            left_out=max(0, len(asked) - window_of_prompt),
        )

    @property
    def _end(self) -> int:
        return self.tokenizer.eos_id

    def _more(
        self, window: list[int], room: int, settings: dict[str, Any], heard: _Hearing
    ) -> list[int]:
        from transformers import GenerationConfig

        inputs = torch.tensor([window], device=self.model.device)
        made = self.model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            streamer=heard,
            generation_config=GenerationConfig(
                max_new_tokens=room,
                use_cache=True,
                bos_token_id=self.beginning,
                eos_token_id=self._end,
                pad_token_id=self._end,
                **settings,
            ),
        )
        return made[0, len(window) :].tolist()


class _Hearing:
    """A streamer of transformers: says the text of the tokens as soon as it can no longer change.

    Unlike the library's `TextStreamer` it decodes what is new together with all before it, so that
    the pieces are the whole: some tokenizers drop the space in front of what they decode.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int], hear: Callable[[str], None]
    ) -> None:
        self.tokenizer = tokenizer
        self.hear = hear
        self.ids = list(prompt)
        self.before = len(tokenizer.decode(self.ids))
        self.said = ""
        self.prompt_comes = True

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompt [1, T], then each token [1]."""
        if self.prompt_comes:
            self.prompt_comes = False
            return
        self.ids += [token for token in value.tolist() if token != self.tokenizer.eos_id]
        # A run of single bytes is decoded as a whole: one that is wrong takes back those before.
        if self.ids and not self.tokenizer.is_byte(self.ids[-1]):
            # Bytes of a character whose others are still to come are decoded as that.
            self._say(self._text().rstrip("\N{REPLACEMENT CHARACTER}"))

    def end(self) -> None:
        """The next that comes is a prompt again."""
        self.prompt_comes = True

    def finish(self) -> str:
        """Says what is left, and returns all that was said."""
        self._say(self._text())
        return self.said

    def _text(self) -> str:
        return self.tokenizer.decode(self.ids)[self.before :]

    def _say(self, text: str) -> None:
        piece = text[len(self.said) :]
        if piece:
            self.said += piece
            self.hear(piece)


def open_speaker(place: Path, step: int | None = None, device: str = "auto") -> Speaker:
    """The model of a run, α in force, or one in Hugging Face's format.

    Args:
        place: its folder, or one with a single run below it.
        step: of a run's checkpoint, the newest unless given.
        device: "auto", "cpu" or "cuda".

    Raises:
        ValueError: if it cannot be opened, if there are several runs, or without transformers.
    """
    folder = find_subject(place)
    if (folder / "recipe.toml").is_file():
        return _of_run(folder, step, device)
    subject = open_subject(folder, step, device)
    return Speaker(subject.model.model, subject.tokenizer, subject.beginning, subject.length)


def _of_run(folder: Path, step: int | None, device: str) -> Speaker:
    trained = open_trained(folder, step, device)
    model: Any = trained.model
    model = as_hugging_face(model, trained.alphas) if isinstance(model, Transformer) else model
    model = getattr(model, "inner", model)  # what trains one of transformers wraps it
    return Speaker(model, trained.tokenizer, trained.tokenizer.eos_id, trained.recipe.data.length)
