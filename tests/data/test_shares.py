from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.cli import main
from groundup.data import describe, preparation, prepare, train, workers
from groundup.data.parts import encode_part
from groundup.data.preparation import Share, prepare_share
from tests.data.conftest import SENTENCE
from tests.data.prepared import RESULTS, config, contents
from tests.data.test_interruptions import stamps


def test_shares_add_up_to_the_whole(big_corpus, tmp_path, monkeypatch):
    train([SENTENCE], 300).save(tmp_path / "tokenizer.json")
    given = {"tokenizer": str(tmp_path), "vocab_size": 2048}
    alone = prepare(config(big_corpus, tmp_path / "alone", **given), workers=1)
    settings = config(big_corpus, tmp_path / "shared", **given)
    before: dict[str, tuple[int, int]] = {}
    for number in (2, 3):
        done, total = prepare_share(settings, Share(number, 3), workers=1)
        expected = [i for i in range(total) if 0 < i % 3 < number]
        assert sorted(stamps(tmp_path / "shared")) == [f"{i:06d}.json" for i in expected]
        assert done == len(expected)
        assert before.items() <= stamps(tmp_path / "shared").items()
        before = stamps(tmp_path / "shared")
    (folder,) = (tmp_path / "shared").glob("*/")
    assert f"unfinished, {done} parts" in describe(folder)
    encoded = []

    def record(folder, job, tokenizer):
        encoded.append(job.index)
        return encode_part(folder, job, tokenizer)

    monkeypatch.setattr(workers, "encode_part", record)
    prepared = prepare(settings, workers=1)
    assert encoded == list(range(0, total, 3))
    assert contents(prepared.folder) == contents(alone.folder)
    assert prepare_share(settings, Share(1, 3)) == (total, total)
    assert set(contents(prepared.folder)) == RESULTS


def test_what_is_no_share():
    assert Share.parse("3/8") == Share(3, 8)
    for text in ("3", "a/8", "-1/8", "", "1/2/3"):
        with pytest.raises(ValueError, match=re.escape(f"part={text!r} is not valid")):
            Share.parse(text)
    for text in ("9/8", "0/8"):
        with pytest.raises(ValueError, match=rf"part='{text}' is not valid.* in 1\.\.8$"):
            Share.parse(text)
    with pytest.raises(ValueError, match="part='1/0' is not valid: it must be like 3/8"):
        Share.parse("1/0")
    with pytest.raises(ValueError, match=r"number=9 is not valid with of=8: .* in 1\.\.8$"):
        Share(9, 8)
    with pytest.raises(ValueError, match="number=0"):
        Share(0, 8)


def test_the_command(corpus, tmp_path, capsys):
    arguments = ["data", "prepare", "--source", str(corpus), "--folder", str(tmp_path / "out")]
    arguments += ["--vocab-size", "300", "--workers", "1", "--deduplicate", "True"]
    assert main([*arguments, "--part", "1/1"]) == 0
    assert "1 of 1 parts are there" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "train.gtok" in capsys.readouterr().out
    assert main([*arguments, "--part", "2/1"]) == 2
    assert "part='2/1'" in capsys.readouterr().err


SCRIPT = """
import sys, time
from groundup.data import DataConfig, prepare, workers
original = workers.encode_part
def encode_part(folder, job, tokenizer):
    print(job.index, flush=True)
    time.sleep(float(sys.argv[3]))
    return original(folder, job, tokenizer)
workers.encode_part = encode_part
settings = DataConfig(source=sys.argv[1], folder=sys.argv[2], vocab_size=300)
prepare(settings, workers=1)
print("done")
"""


def start(source: Path, folder: Path, pause: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(source), str(folder), str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_several_at_the_same_time_divide_the_work_and_a_killed_ones_is_taken_over(
    big_corpus, tmp_path
):
    alone = prepare(config(big_corpus, tmp_path / "alone"), workers=2)
    victim = start(big_corpus, tmp_path / "out", 600)
    assert victim.stdout is not None
    first = victim.stdout.readline()  # it has claimed this one, and will never do it
    others = [start(big_corpus, tmp_path / "out", 0.05) for _ in range(2)]
    deadline = time.monotonic() + 60
    while len(stamps(tmp_path / "out")) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(victim.pid, signal.SIGKILL)
    done: list[str] = []
    for process in others:
        output, errors = process.communicate(timeout=100)
        assert errors == ""
        *encoded, last = output.split()
        assert last == "done"
        done += encoded
    victim.communicate()
    assert first.strip() in done
    assert sorted(map(int, done)) == list(range(len(done)))  # each once
    (folder,) = (tmp_path / "out").glob("*/")
    assert contents(folder) == contents(alone.folder)


def test_claims_go_before_the_parts(corpus, tmp_path, monkeypatch):
    """Who finds a part gone, and could still claim it, would do it again."""
    original, removed = shutil.rmtree, []

    def record(path, *rest, **settings):
        removed.append(Path(path).name)
        assert not list((tmp_path / "out").glob("*/.claims"))
        original(path, *rest, **settings)

    monkeypatch.setattr(shutil, "rmtree", record)
    prepare(config(corpus, tmp_path / "out"), workers=1)
    assert [name.partition("-")[0] for name in removed] == [".claims", "parts"]


def test_a_folder_that_was_finished_meanwhile(corpus, tmp_path, monkeypatch):
    """Between looking and starting, somebody else has done it all, and cleaned up."""
    settings = config(corpus, tmp_path / "out")
    original, calls = preparation._claims, []

    def late(task):
        if not calls:
            calls.append(task)
            prepare(settings, workers=1)
        return original(task)

    monkeypatch.setattr(preparation, "_claims", late)
    monkeypatch.setattr(preparation, "_make", _once(preparation._make))
    prepared = prepare(settings, workers=1)
    assert set(contents(prepared.folder)) == RESULTS


def _once(function):
    calls = []

    def guarded(*arguments):
        assert not calls, "done twice"
        calls.append(arguments)
        return function(*arguments)

    return guarded
