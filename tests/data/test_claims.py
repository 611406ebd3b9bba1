from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from groundup.data import claims as module
from groundup.data.claims import Claims, Gone


def test_a_claim_counts_while_its_owner_lives(tmp_path):
    with Claims(tmp_path / "c") as first, Claims(tmp_path / "c") as second:
        assert first.take("a")
        assert first.take("a")  # it is still its own
        assert not second.take("a")
        assert second.take("b")
        with Claims(tmp_path / "c") as third:
            assert not third.take("a")
    with Claims(tmp_path / "c") as fourth, Claims(tmp_path / "c") as fifth:
        assert fourth.take("a")  # of an owner that has ended
        assert not fifth.take("a")
        assert sorted(p.name for p in (tmp_path / "c").iterdir() if p.is_symlink()) == [
            "a.0",
            "a.1",
            "b.0",
        ]


HOLD = """
import os, sys
from pathlib import Path
from groundup.data.claims import Claims
with Claims(Path(sys.argv[1])) as claims:
    claims.take("a")
    if len(sys.argv) > 2:
        child = os.fork()  # has the descriptor too
        if child == 0:
            sys.stdin.read()
            os._exit(0)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("child", [False, True])
def test_a_killed_owner_is_dead_at_once_but_not_before_its_children(tmp_path, child):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "c"), *(["child"] if child else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with Claims(tmp_path / "c") as claims:
        assert not claims.take("a")
        process.kill()
        process.wait()
        if child:
            assert not claims.take("a")
            process.stdin.close()
            process.stdout.read()  # until the child has ended as well
        assert claims.take("a")


@pytest.mark.parametrize("where", ["another machine", "no locks"])
def test_an_owner_that_no_lock_tells_of_lives_while_its_number_changes(
    tmp_path, monkeypatch, where
):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module, "_BEAT", 0.01)
    with Claims(tmp_path / "c") as far:
        assert far.take("a")
        if where == "another machine":
            monkeypatch.setattr(module, "_machine", lambda: "elsewhere")
        else:
            os.pwrite(far.descriptor, b"none", 0)
        with Claims(tmp_path / "c") as near:
            path = tmp_path / "c" / os.readlink(tmp_path / "c" / "a.0")
            for _ in range(3):
                assert not near.take("a")
                before = path.read_bytes()
                while path.read_bytes() == before:
                    pass
                now[0] += 10 * module.LEASE  # silence, as far as the clock here tells
            far._over.set()
            far._beating.join()
            assert not near.take("a")
            now[0] += 0.9 * module.LEASE
            assert not near.take("a")
            now[0] += 0.2 * module.LEASE
            assert near.take("a")


def test_everything_is_claimed_once_however_many_race(tmp_path):
    names = [f"{i:03d}" for i in range(60)]
    taken: Counter[str] = Counter()
    with Claims(tmp_path / "c") as dead:
        for name in names[::3]:
            dead.take(name)
    barrier = threading.Barrier(8)
    done = threading.Barrier(8)

    def race() -> None:
        with Claims(tmp_path / "c") as claims:
            barrier.wait()
            mine = [name for name in names if claims.take(name)]
            done.wait()
            taken.update(mine)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == Counter(names)


def test_one_makes_it_and_the_others_wait(tmp_path):
    path, made = tmp_path / "result", []

    def make(number: int) -> None:
        with Claims(tmp_path / "c") as claims:
            if claims.once("it", path.exists, lambda: None):
                made.append(number)
                path.touch()
            assert path.exists()

    threads = [threading.Thread(target=make, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_folder_that_was_removed(tmp_path):
    with Claims(tmp_path / "c") as first, Claims(tmp_path / "c") as second:
        assert first.take("a")
        first.remove()
        with pytest.raises(Gone):
            second.take("a")
    assert not (tmp_path / "c").exists()


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(target: str, path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    with Claims(tmp_path / "c") as claims, pytest.raises(OSError, match=r"a\.0: .*symbolic links"):
        claims.take("a")
