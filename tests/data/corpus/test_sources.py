from __future__ import annotations

import pytest

from groundup.data import DataError
from groundup.data.corpus.sources import find
from groundup.data.lock import LOCK_NAME
from tests.data.corpus.reader import read


def test_a_folder_counts_what_it_leaves_out(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.txt").write_text("b")
    (tmp_path / "a.md").write_text("a")
    (tmp_path / "image.png").write_bytes(b"png")
    (tmp_path / "table.csv").write_bytes(b"p")
    (tmp_path / "README").write_text("no suffix")
    (tmp_path / ".hidden.txt").write_text("h")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("g")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / LOCK_NAME).touch()
    (tmp_path / "done" / "prepared.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    texts, skipped = read(tmp_path)
    assert texts == ["a", "b"]
    assert skipped == {
        "files of unknown kind (.png)": 1,
        "files of unknown kind (.csv)": 1,
        "files of unknown kind (no suffix)": 1,
        "hidden files": 1,
        "hidden folders": 1,
        "folders of prepared tokens": 1,
        "linked folders": 1,
    }


def test_nothing_to_read(tmp_path):
    with pytest.raises(DataError, match=r"source=.*missing.*no such file.*'python'"):
        find(str(tmp_path / "missing"))
    with pytest.raises(DataError, match="holds no text.*empty"):
        find(str(tmp_path))
    (tmp_path / "x.png").write_bytes(b"1")
    with pytest.raises(DataError, match=r"holds no text.*1 files of unknown kind \(\.png\)"):
        find(str(tmp_path))
    with pytest.raises(DataError, match=r"unknown kind; valid are \.txt"):
        find(str(tmp_path / "x.png"))


def test_builtin_corpus_is_python_source():
    listing = find("python")
    assert listing.name.startswith("python3.")
    paths = [file.path for file in listing.files]
    assert paths == sorted(paths)
    assert {"argparse.py", "json/decoder.py", "asyncio/tasks.py"} <= set(paths)
    unwanted = {"site-packages", "__pycache__", "test", "tests", "idlelib", "encodings"}
    assert not any(unwanted & set(path.split("/")) for path in paths)
    assert find("python") == listing
