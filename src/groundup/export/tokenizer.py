"""A tokenizer for transformers that encodes as training did."""

from __future__ import annotations

import json
from pathlib import Path

from groundup._atomic import atomic_write
from groundup._json import parse
from groundup.data import Tokenizer
from groundup.model.library import transformers

_FILE = "tokenizer.json"
_CONFIG = "tokenizer_config.json"


def save(tokenizer: Tokenizer, folder: Path, length: int) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    No token is added to a text. Unlike in training, the end-of-document token spelled out in a text
    is that token, as users of transformers expect.

    Args:
        tokenizer: the run's.
        folder: an existing one.
        length: of the sequences that the model has seen, in tokens.
    """
    tokenizer.save(folder / _FILE)
    values = parse((folder / _FILE).read_bytes())
    values["post_processor"] = None  # it would add tokens, which training does not
    for token in values.get("added_tokens") or []:
        if token["content"] == tokenizer.eos:
            token["special"] = True
    atomic_write(folder / _FILE, json.dumps(values, ensure_ascii=False).encode())
    fast = transformers().PreTrainedTokenizerFast(
        tokenizer_file=str(folder / _FILE),
        eos_token=tokenizer.eos,
        bos_token=tokenizer.eos,
        pad_token=tokenizer.eos,
        model_max_length=length,
        padding_side="left",  # that of texts to go on from
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    # The name that all versions know; newer ones write another.
    config = parse((folder / _CONFIG).read_bytes()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    atomic_write(folder / _CONFIG, (json.dumps(config, indent=2, ensure_ascii=False)).encode())
