from __future__ import annotations

from pathlib import Path

from groundup.data import DataConfig, TokenFile, load

RESULTS = {
    "prepared.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "train.gtok",
    "validation.gtok",
    ".groundup-lock",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def config(source: Path, folder: Path, **settings) -> DataConfig:
    return DataConfig(source=str(source), folder=str(folder), **{"vocab_size": 300, **settings})


def decoded(path: Path, tokenizer: Path) -> list[str]:
    """The documents of a token file, by cutting at EOS."""
    file, coder = TokenFile.open(path), load(tokenizer)
    result, current = [], []
    for token in file.tokens.tolist():
        if token == coder.eos_id:
            result.append(coder.decode(current))
            current = []
        else:
            current.append(token)
    assert not current
    return result
