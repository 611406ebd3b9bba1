"""A tiny Llama, a tokenizer, and rows of every task in the original and in the converted form."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.data import Tokenizer
from groundup.data.tokenizer import train
from groundup.evaluate.scoring import Scorer

LENGTH = 48  # tokens that the model reads: some prompts are longer
TEXT = """
a the one two dog cat bird stone river cloud runs sleeps falls jumps red blue warm cold and under
over with Why does When did Where is because therefore water light sound iron
"""
WORDS = TEXT.split()


class Drawn:
    """Random text."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self, low: int = 2, high: int = 9) -> str:
        return " ".join(self.random.choices(WORDS, k=self.random.randint(low, high)))

    def choices(self, number: int) -> list[str]:
        found: dict[str, None] = {}
        while len(found) < number:
            found[self.text(1, 6)] = None
        return list(found)

    def index(self, number: int) -> int:
        return self.random.randrange(number)


def labelled(draw: Drawn, question: str, number: int, labels: str = "ABCDE") -> dict[str, Any]:
    names = list(labels[:number])
    choices = {"text": draw.choices(number), "label": names}
    return {question: draw.text(), "choices": choices, "answerKey": names[draw.index(number)]}


def _piqa(draw: Drawn) -> dict[str, Any]:
    one, two = draw.choices(2)
    return {"goal": draw.text(), "sol1": one, "sol2": two, "label": draw.index(2)}


def _social_iqa(draw: Drawn) -> dict[str, Any]:
    answers = dict(zip(("answerA", "answerB", "answerC"), draw.choices(3), strict=True))
    texts = {"context": draw.text() + ".", "question": draw.text() + "?"}
    return {**texts, **answers, "label": str(1 + draw.index(3))}


def _hellaswag(draw: Drawn) -> dict[str, Any]:
    return {
        "activity_label": "Doing things",
        "ctx_a": draw.text() + ". [header] How [title] " + draw.text(),
        "ctx_b": draw.text(),
        "endings": [one + " [substeps]  x." for one in draw.choices(4)],
        "label": str(draw.index(4)),
    }


def _winogrande(draw: Drawn) -> dict[str, Any]:
    one, two = draw.choices(2)
    sentence = f"{draw.text()} _ {draw.text()}."
    return {"sentence": sentence, "option1": one, "option2": two, "answer": str(1 + draw.index(2))}


def _race(draw: Drawn) -> dict[str, Any]:
    problems = [
        {
            "question": draw.text() + ("?" if at % 2 else "  _  ."),
            "answer": "ABCD"[draw.index(4)],
            "options": draw.choices(4),
        }
        for at in range(1 + draw.index(3))
    ]
    return {"article": draw.text(5, 30), "problems": str(problems)}


def _mmlu(draw: Drawn) -> dict[str, Any]:
    subject = ("anatomy", "astronomy", "world_religions")[draw.index(3)]
    choices = draw.choices(4)
    return {
        "question": draw.text(),
        "subject": subject,
        "choices": choices,
        "answer": draw.index(4),
    }


def _sciq(draw: Drawn) -> dict[str, Any]:
    names = ("distractor1", "distractor2", "distractor3", "correct_answer")
    answers = dict(zip(names, draw.choices(4), strict=True))
    return {"question": draw.text() + "?", "support": draw.text(), **answers}


def _copa(draw: Drawn) -> dict[str, Any]:
    one, two = (choice.capitalize() + "." for choice in draw.choices(2))
    asked = {"premise": draw.text() + ".", "question": ("cause", "effect")[draw.index(2)]}
    return {**asked, "choice1": one, "choice2": two, "label": draw.index(2)}


ORIGINAL = {
    "arc_challenge": lambda draw: labelled(draw, "question", 3 + draw.index(3), "12345"),
    "arc_easy": lambda draw: labelled(draw, "question", 4),
    "boolq": lambda draw: {
        "question": draw.text(),
        "passage": draw.text(),
        "answer": bool(draw.index(2)),
    },
    "commonsense_qa": lambda draw: labelled(draw, "question", 5),
    "copa": _copa,
    "hellaswag": _hellaswag,
    "lambada_openai": lambda draw: {"text": draw.text(4, 40)},
    "mmlu": _mmlu,
    "openbookqa": lambda draw: labelled(draw, "question_stem", 4),
    "piqa": _piqa,
    "race": _race,
    "sciq": _sciq,
    "social_iqa": _social_iqa,
    "wikitext": lambda draw: {"page": f" = {draw.text()} = \n {draw.text(20, 90)} , x @-@ y . "},
    "winogrande": _winogrande,
}


def rows(task: str, number: int = 12) -> list[dict[str, Any]]:
    """Rows of a task as its data set has them; the same at every call."""
    draw = Drawn(sorted(ORIGINAL).index(task))
    return [ORIGINAL[task](draw) for _ in range(number)]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    draw = Drawn(99)
    return train((draw.text(5, 40) for _ in range(300)), 400)


class Logits(nn.Module):
    """Nothing but the logits of a model of transformers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits


@pytest.fixture(scope="session")
def llama(tokenizer: Tokenizer) -> Any:
    """With weights so large that answers differ by much more than rounding."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_id,
        bos_token_id=None,
        pad_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def scorer(llama: Any) -> Scorer:
    return Scorer(Logits(llama), torch.device("cpu"), LENGTH, batch=32)
