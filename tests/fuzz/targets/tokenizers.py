"""Tokenizers: tokenizer.json and the two files that may name its end-of-document token."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from groundup.data import load
from groundup.data.tokenizer import train
from tests.fuzz.damage import damage
from tests.fuzz.structure import damage_json
from tests.fuzz.trial import Target, Trial, Wrong

NAMES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
TEXTS = [
    "the cat sat on the mat",
    "def f(x):\n    return x + 1",
    "",
    "é 日本 \U0001f600 \0 <|endoftext|>",
]


def _make(folder: Path) -> dict[str, bytes]:
    train(TEXTS * 20, 280).save(folder / NAMES[0])
    eos = {"eos_token": {"content": "<|endoftext|>", "lstrip": False}}
    (folder / NAMES[2]).write_text(json.dumps(eos))
    return {name: (folder / name).read_bytes() for name in NAMES}


def _draw(files: dict[str, bytes], draw: Random, folder: Path) -> Trial:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    name = draw.choice((NAMES[0], NAMES[0], *NAMES))
    if name == NAMES[2]:
        (folder / NAMES[1]).unlink()  # else it is not looked at
    content = files[name]
    if draw.random() < 0.6:
        content = damage_json(content.decode(), draw).encode("utf-8", "surrogatepass")
    else:
        content = damage(content, draw, list(files.values()))
    (folder / name).write_bytes(content)
    return Trial(name, lambda: _read(folder), (str(folder),))


def _read(folder: Path) -> str:
    tokenizer = load(folder)
    try:
        ids = tokenizer.encode_batch(TEXTS)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    for one in ids:
        if len(one) and int(one.max()) >= tokenizer.vocab_size:
            raise Wrong("a token outside the vocabulary")
        if (one == tokenizer.eos_id).any():
            raise Wrong("a text is cut by an end of document within it")
        tokenizer.decode(one)
    return "whole" if [tokenizer.decode(one) for one in ids] == TEXTS else "other"


TARGET = Target("tokenizers", _make, _draw, few=60)
