from __future__ import annotations

import contextlib
import glob
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
    # Not Path.glob, for which a folder that is removed meanwhile is an error.
    for path in map(Path, glob.glob(str(folder / "*/parts-*/*.json"))):
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
