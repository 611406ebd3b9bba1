"""A run's own records, damaged: each is refused by its file and line, before anything is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from groundup.train import folder, records
from groundup.train.spikes.rewinds import Rewinds

WHOLE = '{"step": 0, "loss": 1.5, "grad_norm": null, "tokens": 64}\n'


def test_lines_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(WHOLE + WHOLE.replace("0", "1", 1))
    assert [line["step"] for line in records.lines(path)] == [0, 1]


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (b"\xff\xfe\n", "utf-8"),
        (b"\n", "Expecting value"),
        (b"[1]\n", "no JSON object"),
        (b"{}\n", "step=None"),
        (b'{"step": "1"}\n', "step='1'"),
        (b'{"step": 1.0}\n', "step=1.0"),
        (b'{"step": 1, "to": -1}\n', "to=-1"),
        (WHOLE.replace("1.5", '"1.5"').encode(), "no number loss"),
        (WHOLE.replace("tokens", "token").encode(), "no number tokens"),
        (b"[" * 100_000 + b"\n", "nested too deep"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, second: bytes, why: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(WHOLE.encode() + second)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is damaged") as said:
        list(records.lines(path))
    assert why in str(said.value)
    assert len(str(said.value)) < 600


@pytest.mark.parametrize(
    "content", ["[]", "{}", "null", "[" * 100_000, '{"steps": "a"}', '{"steps": 1}', "\ufffd"]
)
def test_a_summary_that_says_nothing_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(folder.FolderError, match=r"summary\.json is damaged .*remove it"):
        folder.summary(tmp_path)


REWIND = {"step": 9, "to": 4, "batches": 7, "events": [{"step": 9}]}


@pytest.mark.parametrize(
    "content",
    [
        {},
        [1],
        [[]],
        [{**REWIND, "batches": "7"}],
        [{**REWIND, "to": -1}],
        [{**REWIND, "step": 9.0}],
        [{**REWIND, "events": {"step": 9}}],
        [{**REWIND, "events": [9]}],
        [{**REWIND, "more": 1}],
        [{"step": 9}],
    ],
)
def test_damaged_rewinds_are_refused(tmp_path: Path, content: object) -> None:
    (tmp_path / "rewinds.json").write_text(json.dumps([REWIND]))
    assert Rewinds(tmp_path).passed(5) == 7
    (tmp_path / "rewinds.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"rewinds\.json is damaged"):
        Rewinds(tmp_path)


def test_no_rewinds_are_none(tmp_path: Path) -> None:
    (tmp_path / "rewinds.json").write_text("[]")
    assert len(Rewinds(tmp_path)) == 0
