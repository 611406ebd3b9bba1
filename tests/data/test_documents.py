"""Documents behind windows of the token stream, against a plain reading of the stream."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.data import documents
from groundup.data.documents import Document, Documents


def file_of(ids: list[int]) -> Any:
    return SimpleNamespace(tokens=np.array(ids, dtype=np.uint16), header=SimpleNamespace(eos_id=0))


class Letters:
    """A tokenizer of which token n is the n-th letter."""

    def decode(self, ids: Any) -> str:
        return "".join("_abcdefghij"[i] for i in ids)


def plain(ids: list[int], start: int, stop: int) -> dict[int, str]:
    """Number → text of each document with a token in start..stop-1."""
    found: dict[int, str] = {}
    number, text = 0, ""
    inside = False
    for place, token in enumerate([*ids, 0]):
        inside = inside or (start <= place < stop and place < len(ids))
        if token:
            text += Letters().decode([token])
            continue
        if inside:
            found[number] = text
        number, text, inside = number + 1, "", False
    return found


@given(st.lists(st.integers(0, 4), min_size=8, max_size=120), st.integers(1, 7), st.data())
def test_equal_a_plain_reading(ids: list[int], length: int, data: st.DataObject) -> None:
    count = (len(ids) - 1) // length
    chosen = data.draw(st.lists(st.integers(0, count - 1), max_size=4))
    expected: dict[int, str] = {}
    for window in chosen:
        expected |= plain(ids, window * length, window * length + length + 1)
    found, number = Documents(file_of(ids), Letters()).of_windows(chosen, length, 100)  # type: ignore[arg-type]
    assert {d.number: d.starts for d, _ in found} == {n: t[:80] for n, t in expected.items()}
    assert len(found) == number == len(expected)
    for document, place in found:
        holding = [
            document.number in plain(ids, window * length, window * length + length + 1)
            for window in chosen
        ]
        assert place == holding.index(True)


def test_blocks_and_long_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_BLOCK", 7)
    monkeypatch.setattr(documents, "_LOOK_BACK", 5)
    ids = ([1] * 30 + [0] + [2] * 3 + [0]) * 4 + [3] * 40
    names = Documents(file_of(ids), Letters(), characters=4)  # type: ignore[arg-type]
    for window in (13, 2, 9, 0, 17):  # numbers are counted as they are needed
        expected = plain(ids, window * 10, window * 10 + 11)
        found, _ = names.of_windows([window], 10, 100)
        assert found == [(Document(n, text[:4]), 0) for n, text in expected.items()]


def test_only_so_many_are_listed() -> None:
    ids = [1, 0] * 50
    found, number = Documents(file_of(ids), Letters()).of_windows(range(9), 10, limit=3)  # type: ignore[arg-type]
    assert [d.number for d, _ in found] == [0, 1, 2]
    assert number == 46


def test_documents_of_a_huge_file_have_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_COUNTED", 10)
    found, _ = Documents(file_of([1, 0] * 6), Letters()).of_windows([1], 4, 8)  # type: ignore[arg-type]
    assert found[0] == (Document(None, "a"), 0)
