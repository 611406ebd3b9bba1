"""Sources that evaluations read: those of training, with nothing left behind."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from groundup.data import DataError
from groundup.evaluate.texts import Texts

DOCUMENTS = ["one document", "a second\none", "the third"]


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """The same documents in many forms: what to call each, by its name."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, text in enumerate(DOCUMENTS):
        (folder / f"{number}.txt").write_text(text)
    lines = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in DOCUMENTS)
    (tmp_path / "lines.jsonl").write_text(lines)
    with gzip.open(tmp_path / "packed.jsonl.gz", "wt") as file:
        file.write(lines)
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"text": DOCUMENTS}), tmp_path / "table.parquet")
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": DOCUMENTS}).save_to_disk(tmp_path / "saved")
    return {
        "folder": str(folder),
        "lines": str(tmp_path / "lines.jsonl"),
        "packed": str(tmp_path / "packed.jsonl.gz"),
        "table": str(tmp_path / "table.parquet"),
        "saved": f"dataset:{tmp_path / 'saved'}",
    }


def test_every_kind_of_source(sources: dict[str, str], tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    for name, source in sources.items():
        texts = Texts.find(source, "text")
        texts.check()
        assert list(texts.documents()) == DOCUMENTS
        assert texts.name == name
        assert texts.source == source
        some = Texts.find(source, "text", limit=2)
        assert list(some.documents()) == DOCUMENTS[:2]
    assert list(Texts.find(str(tmp_path / "folder" / "[12].txt"), "text").documents()) == [
        *DOCUMENTS[1:]
    ]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("packed", [False, True])
def test_the_files_of_wikitext_by_their_own_name(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("wiki.test.raw.gz" if packed else "wiki.test.raw")
    with gzip.open(path, "wt") if packed else path.open("w") as file:
        file.write("some words")
    texts = Texts.find(str(path), "wikitext")
    assert (texts.name, list(texts.whole())) == ("wiki.test", ["some words"])
    with pytest.raises(DataError, match=r"wikitext='nowhere.raw' is not valid"):
        Texts.find("nowhere.raw", "wikitext")
    with pytest.raises(DataError, match="holds no text"):
        Texts.find(str(tmp_path), "text")


def test_a_long_text_is_cut_into_sections(tmp_path: Path) -> None:
    lines = [f"{number:07d}" * 8 + "\n" for number in range(20_000)]
    path = tmp_path / "long.txt"
    path.write_text("".join(lines))
    documents = list(Texts.find(str(path), "text").documents())
    assert len(documents) == -(-path.stat().st_size // (1 << 16))
    assert "".join(documents) == "".join(lines)


def test_passages_are_lines_or_documents(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("a passage \n\n another one\nlast")
    assert list(Texts.find(str(plain), "lambada").lines()) == ["a passage", " another one", "last"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "two\\nlines "}\n{"text": "one"}\n')
    assert list(Texts.find(str(rows), "lambada").lines()) == ["two\nlines ", "one"]
    assert list(Texts.find(str(rows), "lambada", limit=1).lines()) == ["two\nlines "]


def test_whole_files_are_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "wiki.test.tokens.gz"
    with gzip.open(path, "wt") as file:
        file.write(" \n = A = \n" * 300_000)
    (content,) = Texts.find(str(path), "wikitext").whole()
    assert content == " \n = A = \n" * 300_000
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl: it must be a file of plain text"):
        list(Texts.find(str(tmp_path / "rows.jsonl"), "wikitext").whole())


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="text='nowhere.txt' is not valid: there is no such file"):
        Texts.find("nowhere.txt", "text")
    path = tmp_path / "rows.jsonl"
    path.write_text('{"body": "one"}\n')
    with pytest.raises(DataError, match=r"line 1: there is no text_field 'text'"):
        Texts.find(str(path), "text").check()
    Texts.find(str(path), "text", "body").check()
    path.write_text("")
    with pytest.raises(DataError, match="holds no text"):
        Texts.find(str(path), "text").check()
    with pytest.raises(ValueError, match="limit=0 is not valid"):
        Texts.find(str(path), "text", limit=0)
    (tmp_path / "bytes.txt").write_bytes(b"good\n\xff")
    for read in (Texts.lines, Texts.whole):
        with pytest.raises(DataError, match=r"bytes\.txt: not UTF-8"):
            list(read(Texts.find(str(tmp_path / "bytes.txt"), "lambada")))
