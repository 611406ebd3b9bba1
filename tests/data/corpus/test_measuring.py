from __future__ import annotations

import os

from groundup.data.corpus import measuring
from groundup.data.corpus.measuring import measure, remembered
from groundup.data.corpus.sources import find


def test_measures_are_remembered_and_notice_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("hello")
    cache: dict[str, list] = {}
    first = measure(find(str(path)), cache)
    assert first.length == 5
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "_read", None)
        assert measure(find(str(path)), cache) == first
    path.write_text("HELLO")
    os.utime(path, ns=(1, 1))
    assert measure(find(str(path)), cache).fingerprint != first.fingerprint


def test_what_is_remembered_on_disk(tmp_path):
    path = tmp_path / "known.json"
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "new.txt").write_text("new")
    os.utime(tmp_path / "old.txt", ns=(1, 1))
    path.write_text("{damaged")
    with remembered(path) as known:
        measure(find(str(tmp_path / "old.txt")), known)
        measure(find(str(tmp_path / "new.txt")), known)
    # A file this young could change without its time stamp changing.
    with remembered(path) as known:
        assert list(known) == [str(tmp_path / "old.txt")]
