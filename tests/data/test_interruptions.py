from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.data import DataConfig, preparation, prepare
from groundup.data import workers as workers_module
from tests.data.prepared import RESULTS, config, contents


class Stop(Exception):
    pass


def interrupt(settings: DataConfig, after: int) -> int:
    """Prepare until `after` parts are there; return how many there are to be."""
    calls = []

    def progress(phase, done, total):
        if phase == "encode":
            calls.append(done)
            if len(calls) == after + 1:
                raise Stop

    with pytest.raises(Stop):
        prepare(settings, progress=progress, workers=1)
    return len(calls) - 1


def test_finished_parts_are_not_done_again(big_corpus, tmp_path, monkeypatch):
    whole = prepare(config(big_corpus, tmp_path / "whole"), workers=1)
    settings = config(big_corpus, tmp_path / "out")
    assert interrupt(settings, 3) == 3
    (parts,) = (tmp_path / "out").glob("*/parts-*")
    done = sorted(path.name for path in parts.glob("*.json"))
    assert done == ["000000.json", "000001.json", "000002.json"]
    # One of the three is damaged: it is done again, the other two are not.
    damaged = bytearray((parts / "000001.train.gtok").read_bytes())
    damaged[-1] ^= 1
    (parts / "000001.train.gtok").write_bytes(damaged)
    (parts / ".000009.train.gtok.1-ab.tmp").write_bytes(b"left over")
    encoded = []
    original = workers_module.encode_part

    def record(folder, job, tokenizer):
        encoded.append(job.index)
        return original(folder, job, tokenizer)

    monkeypatch.setattr(workers_module, "encode_part", record)
    seen = []
    prepared = prepare(settings, progress=lambda *call: seen.append(call), workers=1)
    assert encoded[0] == 1
    assert encoded[1:] == list(range(3, 3 + len(encoded) - 1))
    assert len(encoded) >= 8
    phases = [call for call in seen if call[0] == "encode"]
    assert phases[0][1] > 0  # the display starts where it was
    assert phases[-1][1] == phases[-1][2]
    assert not [call for call in seen if call[0] == "tokenizer"]  # nor is that trained again
    assert contents(prepared.folder) == contents(whole.folder)


def test_killed_while_cleaning_up(big_corpus, tmp_path, monkeypatch):
    settings = config(big_corpus, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *args, **settings: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(settings, workers=1)
    (folder,) = (tmp_path / "out").glob("*/")
    assert list(folder.glob("parts-*"))
    monkeypatch.setattr(preparation, "_make", None)
    prepared = prepare(settings, workers=1)
    assert set(contents(prepared.folder)) == RESULTS


SCRIPT = """
import sys
from groundup.data import DataConfig, prepare
settings = DataConfig(source=sys.argv[1], folder=sys.argv[2], vocab_size=300)
prepare(settings, workers=2)  # no main guard needed
print("done")
"""


def start(source: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(source), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.glob("*/parts-*/*.json"):
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        found[path.name] = (state.st_ino, state.st_mtime_ns)
    return found


def reached(folder: Path) -> int:
    """How far a preparation is, as seen from outside: parts, and the tokenizer before them."""
    return len(stamps(folder)) + len(list(folder.glob("*/tokenizer.json")))


def kill(process: subprocess.Popen[str], how: str) -> None:
    """The parent alone, whose workers then end by themselves, or all at once."""
    with contextlib.suppress(ProcessLookupError):
        if how == "all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.send_signal(signal.SIGKILL)


def test_killed_at_random_moments_it_continues_and_ends_the_same(big_corpus, tmp_path):
    process = start(big_corpus, tmp_path / "whole")
    assert process.communicate()[0] == "done\n"
    (whole,) = (tmp_path / "whole").glob("*/")
    source = random.Random(11)
    kills = kept = life = 0
    while kills < 6 or kept == 0:
        life += 1
        assert life < 20, f"{kills} kills, {kept} parts kept"
        out = tmp_path / f"out{life}"
        known: dict[str, tuple[int, int]] = {}
        while True:
            process = start(big_corpus, out)
            # Some progress further than the last time, and from there any moment.
            goal = reached(out) + source.randint(0, 3)
            while process.poll() is None and reached(out) < goal:
                time.sleep(0.002)
            time.sleep(source.uniform(0, 0.3))
            kill(process, source.choice(["all", "parent"]))
            output, errors = process.communicate()
            for name, stamp in stamps(out).items():
                assert known.setdefault(name, stamp) == stamp, f"{name} was done again"
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL, errors
            kills += 1
            kept = max(kept, len(known))
        assert output == "done\n"
        (folder,) = out.glob("*/")
        assert contents(folder) == contents(whole)


def test_two_at_the_same_time(big_corpus, tmp_path):
    processes = [start(big_corpus, tmp_path / "out") for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert (output, errors) == ("done\n", "")
    (folder,) = (tmp_path / "out").glob("*/")
    alone = prepare(config(big_corpus, tmp_path / "alone"), workers=2)
    assert contents(folder) == contents(alone.folder)


def test_a_dead_worker_is_reported(big_corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(RuntimeError, match=r"encoding process ended with status.*prepare again"):
        prepare(config(big_corpus, tmp_path / "out"), workers=2)
    monkeypatch.delenv("PYTHONHOME")
    assert prepare(config(big_corpus, tmp_path / "out"), workers=2).report["tokens"]["train"]


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

        def late(first, *rest, original=original, lost=lost):
            if not lost:
                (target,) = (p for p in out.iterdir() if p.is_dir())
                lost.append(target.rename(tmp_path / f"lost-{target.name}-{out.name}"))
            return original(first, *rest)

        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            patch.setattr(preparation, name, late)
            done = prepare(config(corpus, out), workers=1)
        assert lost
        assert contents(done.folder) == expected


def test_parts_stay_when_a_later_file_fails(big_corpus, tmp_path):
    (big_corpus / "zz.jsonl").write_text('{"text": 3}\n')
    train([SENTENCE], 300).save(tmp_path / "tokenizer.json")
    given = {"tokenizer": str(tmp_path), "vocab_size": 2048}
    with pytest.raises(DataError, match=r"zz\.jsonl, line 1"):
        prepare(config(big_corpus, tmp_path / "out", **given), workers=1)
    assert stamps(tmp_path / "out")
