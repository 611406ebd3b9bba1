"""Text to token ids and back: a thin wrapper around a Hugging Face `tokenizers` tokenizer.

Documents are raw text: an end-of-document token that is spelled out in one ("<|endoftext|>") is
encoded as the characters that it consists of, never as the EOS id, and nothing is truncated,
padded or framed with other special tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup._atomic import atomic_write
from groundup._check import count
from groundup._json import parse
from groundup.data.config import MIN_VOCABULARY

__all__ = ["Tokenizer", "load", "train"]

CONFIG = "tokenizer_config.json"
EOS = "<|endoftext|>"
# Tried in this order when no tokenizer_config.json names the token.
_EOS_NAMES = (
    EOS,
    "</s>",
    "<eos>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<｜end▁of▁sentence｜>",
    "[EOS]",
    "<|eos|>",
)

_BYTE = re.compile("<0x[0-9A-F]{2}>")


class Tokenizer:
    """Encodes documents and decodes tokens.

    `text`: the content of a tokenizer.json; `eos`: the end-of-document token's content (None:
    the first well-known one in the vocabulary); `name`: what to call it in errors.
    Errors: `ValueError` if the JSON is no tokenizer or has no end-of-document token.
    """

    def __init__(self, text: str, *, eos: str | None = None, name: str = "the tokenizer") -> None:
        values = _parse(text, name)
        # Limits that a tokenizer.json may carry would cut documents silently.
        values["truncation"] = None
        values["padding"] = None
        self._text = json.dumps(values, ensure_ascii=False, sort_keys=True)
        self._inner = _build(json.dumps(values, ensure_ascii=False), name)
        vocabulary: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        self.eos = _find_eos(vocabulary, eos, name)
        self.eos_id: int = vocabulary[self.eos]
        self.vocab_size: int = max(vocabulary.values()) + 1
        """One more than the largest id (ids may have gaps)."""
        self.hash: str = hashlib.sha256(self._text.encode()).hexdigest()
        """SHA-256 of the canonical JSON: equal for tokenizers that encode alike."""
        for token in values.get("added_tokens") or []:
            if token.get("content") == self.eos and not token.get("special"):
                # Only tokens marked special are left alone by `encode_special_tokens`.
                token["special"] = True
                self._inner = _build(json.dumps(values, ensure_ascii=False), name)
        self._inner.encode_special_tokens = True

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """The ids of each text, uint32 [tokens], without EOS."""
        encoded = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(item.ids, dtype=np.uint32) for item in encoded]

    def encode(self, text: str) -> NDArray[np.uint32]:
        """The ids of one text, uint32 [tokens], without EOS."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Iterable[int] | NDArray[np.integer]) -> str:
        """The text of `ids`, special tokens included."""
        values = ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]
        return str(self._inner.decode(values, skip_special_tokens=False))

    def is_byte(self, token: int) -> bool:
        """Whether an id stands for one byte, as `<0xE2>` does in Llama 2's byte fallback."""
        return _BYTE.fullmatch(self._inner.id_to_token(token) or "") is not None

    def save(self, path: str | Path) -> None:
        """Write a tokenizer.json, atomically, and tokenizer_config.json with the EOS beside it."""
        path = Path(path)
        atomic_write(path.with_name(CONFIG), config(self.eos))
        atomic_write(path, self._text.encode())


def load(path: str | Path) -> Tokenizer:
    """The tokenizer in `path`: a tokenizer.json, or a folder with one (as Hugging Face saves it).

    The end-of-document token is `eos_token` of a tokenizer_config.json or
    special_tokens_map.json in the same folder, else a well-known name such as "</s>".
    Errors: `ValueError` naming the path and what is missing.
    """
    path = Path(path).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"tokenizer={str(path)!r} is not valid: there is no file {file}; valid are 'train', "
            "a tokenizer.json, or a folder with one"
        )
    eos = None
    for name in (CONFIG, "special_tokens_map.json"):
        eos = eos or _configured_eos(file.with_name(name))
    return Tokenizer(_read(file), eos=eos, name=str(file))


def config(eos: str) -> bytes:
    """The tokenizer_config.json of a tokenizer with this end-of-document token."""
    values = {"eos_token": eos, "tokenizer_class": "PreTrainedTokenizerFast"}
    return (json.dumps(values, indent=2) + "\n").encode()


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of `vocab_size` tokens, trained on `texts`; any Unicode text round-trips.

    Deterministic. The vocabulary is smaller than asked where the texts have too few different
    pairs; see `Tokenizer.vocab_size`. Errors: `ValueError` if `vocab_size` is below 257.
    """
    vocab_size = count("vocab_size", vocab_size, MIN_VOCABULARY)
    tokenizers = _library()
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return Tokenizer(inner.to_str(), eos=EOS)


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError as error:
        raise ImportError(
            "tokenizing needs the package tokenizers: pip install 'groundup[train]'"
        ) from error
    return tokenizers


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        values = parse(text)
    except ValueError as error:
        raise ValueError(f"{name} is not valid: it is no JSON: {error}") from error
    if not isinstance(values, dict) or "model" not in values:
        raise ValueError(f"{name} is not valid: it is no tokenizer.json: it has no field 'model'")
    return values


def _build(text: str, name: str) -> Any:
    library = _library()
    try:
        return library.Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # it raises bare Exception, and for a panic not even that
        said = " ".join(str(error).split())
        raise ValueError(f"{name} is not valid: tokenizers cannot read it: {said:.500}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _configured_eos(path: Path) -> str | None:
    """`eos_token` of a tokenizer_config.json: a string, or an object with `content`."""
    if not path.is_file():
        return None
    try:
        token = parse(_read(path)).get("eos_token")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not valid: {error}") from error
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _find_eos(vocabulary: dict[str, int], eos: str | None, name: str) -> str:
    if eos is not None:
        if eos not in vocabulary:
            raise ValueError(f"{name} is not valid: its eos_token {eos!r} is not in its vocabulary")
        return eos
    for candidate in _EOS_NAMES:
        if candidate in vocabulary:
            return candidate
    raise ValueError(
        f"{name} has no end-of-document token: none of {', '.join(_EOS_NAMES)} is in its "
        "vocabulary; name it as eos_token in a tokenizer_config.json beside the file"
    )
