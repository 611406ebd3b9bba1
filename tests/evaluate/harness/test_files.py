"""Which file of a folder is a task's, and what is in it."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
from pathlib import Path

import pytest

from groundup.data.errors import DataError
from groundup.evaluate.harness import check
from groundup.evaluate.harness.files import find, read

ROWS = [{"text": "ein Wort"}, {"text": "日本\u2028語"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def folder_of(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).write_bytes(LINES)
    return path


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("arc_easy_test.jsonl.gz", "arc_easy"),
        ("hellaswag_valid_1000.jsonl.gz", "hellaswag"),
        ("piqa-dev.json", "piqa"),
        ("piqa.jsonl", "piqa"),
        ("piqa.validation.jsonl.zst", "piqa"),
        ("winogrande_xl_valid.jsonl.xz", "winogrande"),
    ],
)
def test_files_are_named_after_tasks(name: str, task: str, tmp_path: Path) -> None:
    others = ("arc_challenge_test.jsonl", "piqad.jsonl", "mmlu_pro.jsonl", f"{task}.txt")
    folder = folder_of(tmp_path, name, *others)
    assert find(folder, task, "validation") == folder / name


def test_of_several_the_exact_name_or_the_split_decides(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "arc_easy_test.jsonl", "arc_easy_valid.jsonl")
    assert find(folder, "arc_easy", "test").name == "arc_easy_test.jsonl"
    assert find(folder, "arc_easy", "validation").name == "arc_easy_valid.jsonl"
    folder_of(tmp_path, "arc_easy.json")
    assert find(folder, "arc_easy", "test").name == "arc_easy.json"


def test_another_task_with_a_longer_name_has_its_own_files(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "mmlu_pro_test.jsonl")
    with pytest.raises(DataError, match="no file for task 'mmlu'"):
        find(folder, "mmlu", "test", ["mmlu", "mmlu_pro"])
    assert find(folder, "mmlu", "test").name == "mmlu_pro_test.jsonl"


def test_none_and_too_many_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "piqa_a.jsonl", "piqa_b.jsonl")
    with pytest.raises(DataError, match=r"'piqa': piqa_a.jsonl, piqa_b.jsonl; .* validation split"):
        find(folder, "piqa", "validation")
    with pytest.raises(DataError, match=r"'race': it must be called race.jsonl .* piqa_a.jsonl"):
        find(folder, "race", "test")
    with pytest.raises(DataError, match="no folder"):
        find(folder / "piqa_a.jsonl", "piqa", "test")


def test_files_by_task(tmp_path: Path) -> None:
    given = {"piqa": tmp_path / "mine.jsonl"}
    assert find(given, "piqa", "test") == tmp_path / "mine.jsonl"
    with pytest.raises(DataError, match="no file is given for task 'race': there are piqa"):
        find(given, "race", "test")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS).encode()),
        ("a.json", LINES),
        ("a.jsonl", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n\n")),
        ("a.jsonl.bz2", bz2.compress(LINES)),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("a.jsonl.xz", lzma.compress(LINES)),
    ],
    ids=["json", "lines", "byte-order-mark", "bz2", "gz", "xz"],
)
def test_rows_are_read(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert [row for _, row in read(tmp_path / name)] == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": ', r"a\.jsonl, line 2: not a JSON value"),
        (b'{"a": 1}\n\n[1]\n', r"a\.jsonl, line 3: a JSON list; it must be an object"),
        (b'[{"a": 1}, 2]', r"a\.jsonl, row 2: a JSON int"),
        (b"[1", r"a\.jsonl: not a JSON value"),
        (b'{"a": "\xff"}', r"a\.jsonl, line 1: not a JSON value"),
        (b"\n \n", r"a\.jsonl is empty"),
        (b"[]", r"a\.jsonl is empty"),
    ],
)
def test_damaged_files_name_the_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.jsonl")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read"):
        read(tmp_path / "a.jsonl")


def test_without_lm_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(ImportError, match=r"needs lm-eval: pip install 'groundup\[eval\]'"):
        check(["piqa"])
