"""What a preparation that fails leaves behind, and what it leaves to others."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from groundup.data import DataError, preparation, prepare, train
from groundup.data.claims import Claims
from tests.data.conftest import SENTENCE, write_jsonl
from tests.data.prepared import config, contents
from tests.data.test_interruptions import stamps


def folders(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.is_dir())


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"validation_fraction": 1e-9}, "holds out none"), ({"text_field": "body"}, "'body'")],
)
def test_settings_that_fail_leave_no_folder(corpus, tmp_path, wrong, said, given):
    source = tmp_path / "in.jsonl"
    write_jsonl(source, [f"text {i}" for i in range(50)])
    train([SENTENCE], 300).save(tmp_path / "tokenizer.json")
    tokenizer = {"tokenizer": str(tmp_path), "vocab_size": 2048} if given else {}
    with pytest.raises(DataError, match=said):
        prepare(config(source, tmp_path / "out", **tokenizer, **wrong), workers=1)
    assert folders(tmp_path / "out") == []
    done = prepare(config(source, tmp_path / "out", **tokenizer, validation_fraction=0.3))
    assert folders(tmp_path / "out") == [done.folder.name]


def test_what_another_one_is_at_stays(corpus, tmp_path):
    """The folder of a failed attempt, in which somebody else has claimed work."""
    settings = config(corpus, tmp_path / "out", text_field="body")
    original, others = preparation._claims, ExitStack()

    @contextmanager
    def joined(task):
        with original(task) as claims:
            others.enter_context(Claims(task.target / preparation._CLAIMS))
            yield claims

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "_claims", joined)
        with others, pytest.raises(DataError, match="'body'"):
            prepare(settings, workers=1)
        (left,) = folders(tmp_path / "out")
        assert (tmp_path / "out" / left / ".claims").is_dir()
    with pytest.raises(DataError, match="'body'"):  # the other one has left
        prepare(settings, workers=1)
    assert folders(tmp_path / "out") == []


def test_who_loses_the_folder_to_a_failed_attempt_begins_again(corpus, tmp_path, monkeypatch):
    """Whatever it was at: before it claims, while it trains a tokenizer, while it encodes."""
    expected = contents(prepare(config(corpus, tmp_path / "alone"), workers=1).folder)
    for number, name in enumerate(("Claims", "_tokenizer", "plan", "encode", "join")):
        original, lost = getattr(preparation, name), []

        def late(first, *rest, original=original, lost=lost, out=tmp_path / str(number)):
            if not lost:
                (target,) = (p for p in out.iterdir() if p.is_dir())
                lost.append(target.rename(tmp_path / f"lost-{target.name}-{out.name}"))
            return original(first, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(preparation, name, late)
            done = prepare(config(corpus, tmp_path / str(number)), workers=1)
        assert lost
        assert contents(done.folder) == expected


def test_parts_stay_when_a_later_file_fails(big_corpus, tmp_path):
    (big_corpus / "zz.jsonl").write_text('{"text": 3}\n')
    train([SENTENCE], 300).save(tmp_path / "tokenizer.json")
    given = {"tokenizer": str(tmp_path), "vocab_size": 2048}
    with pytest.raises(DataError, match=r"zz\.jsonl, line 1"):
        prepare(config(big_corpus, tmp_path / "out", **given), workers=1)
    assert stamps(tmp_path / "out")
