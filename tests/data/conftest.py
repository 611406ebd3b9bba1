"""Small made-up corpora, the same every time."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

SENTENCE = "the quick brown fox jumps over lazy dogs while naïve 東京 readers 🙂 count α β γ"
WORDS = SENTENCE.split()


def make_documents(count: int, seed: int = 0, words: int = 40) -> list[str]:
    source = random.Random(seed)
    return [
        " ".join(source.choice(WORDS) for _ in range(source.randint(1, words))) + f"\n{number}"
        for number in range(count)
    ]


def write_jsonl(path: Path, documents: list[str]) -> Path:
    lines = [json.dumps({"id": i, "text": text}) for i, text in enumerate(documents)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A JSONL file of 600 documents in a folder of its own."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    return write_jsonl(folder / "text.jsonl", make_documents(600))


@pytest.fixture
def big_corpus(tmp_path: Path) -> Path:
    """A folder of about 2 MB in ten shards: JSONL, a long text file, and short ones."""
    folder = tmp_path / "big"
    folder.mkdir()
    write_jsonl(folder / "lines.jsonl", make_documents(2500, seed=1, words=80))
    long = "\n".join(make_documents(6900, seed=2, words=60))
    (folder / "long.txt").write_text(long, encoding="utf-8")
    assert len(long.encode()) > 1 << 20
    for number, text in enumerate(make_documents(30, seed=3)):
        (folder / f"short{number}.md").write_text(text, encoding="utf-8")
    return folder
