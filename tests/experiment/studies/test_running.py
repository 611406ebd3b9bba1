"""Runs of a study in processes of their own: how many at once, and what becomes of them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from groundup.experiment.studies import Setting, running
from groundup.experiment.studies.running import StudyStopped, train_all
from groundup.experiment.studies.trials import Trial, planned, wanted

from .made import LOSS, WAIT, Made, pids, setting

ROOT = Path(__file__).parents[3]
ONCE = """
if not os.path.exists(os.path.join(folder, 'again')):
    note('again')
    %s
"""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_POLL", 0.005)


def train(
    out: Path, arms: dict[str, Made], jobs: int = 2, how: Setting | None = None
) -> tuple[list[str], list[str]]:
    """The arms that failed, and what was said."""
    how = how or setting()
    said: list[str] = []
    failed = train_all(
        lambda: wanted(arms, how, out), jobs, said.append, lambda: planned(arms, how, out)
    )
    return [trial.name for trial in failed], said


def begun(out: Path, arm: str) -> int:
    """How often an arm's run was started."""
    return len((out / f"{arm}.peak-1" / "seed-1" / "begun").read_text().split())


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until, "it has not come true in a minute"
        time.sleep(0.005)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_as_many_at_once_as_were_asked_for(jobs: int, tmp_path: Path) -> None:
    # The first ones end when there are as many as there may be.
    script = f"""
open(os.path.join(out, told['variant'] + '.here'), 'w').close()
while len([name for name in os.listdir(out) if name.endswith('.here')]) < {jobs}:
    time.sleep(0.005)
time.sleep(0.02)
{LOSS}
"""
    arms = {name: Made(script) for name in "abc"}
    failed, said = train(tmp_path, arms, jobs, setting((1.0, 2.0), seeds=1))
    assert not failed
    assert [line.split("]")[0] for line in said] == [f"[{n}/9" for n in range(1, 10)]
    runs = [json.loads(path.read_bytes()) for path in tmp_path.glob("*/*/summary.json")]
    assert len(runs) == 9
    at_once = [sum(r["began"] <= run["began"] < r["ended"] for r in runs) for run in runs]
    assert max(at_once) == jobs


def test_while_one_goes_on_the_others_have_what_is_left(tmp_path: Path) -> None:
    long = Made("until(os.path.join(out, 'd.peak-1', 'seed-1', 'summary.json'))\n" + LOSS)
    short = Made("time.sleep(0.1)\n" + LOSS)
    train(tmp_path, {"a": long, "b": short, "c": short, "d": short})
    runs = [
        json.loads((tmp_path / f"{name}.peak-1" / "seed-1" / "summary.json").read_bytes())
        for name in "bcd"
    ]
    assert all(one["ended"] < next_one["began"] for one, next_one in itertools.pairwise(runs))


def test_one_that_is_killed_takes_no_other_with_it(tmp_path: Path) -> None:
    arms = {"a": Made(ONCE % "os.kill(os.getpid(), 9)" + LOSS), "b": Made(), "c": Made()}
    failed, said = train(tmp_path, arms)
    assert failed == ["a"]
    assert any("a, peak 1, seed 1: failed with exit code -9, see" in line for line in said)
    assert sorted(tmp_path.glob("*/*/summary.json")) == [
        tmp_path / f"{name}.peak-1" / "seed-1" / "summary.json" for name in "bc"
    ]
    assert train(tmp_path, arms)[0] == []
    assert [begun(tmp_path, name) for name in "abc"] == [2, 1, 1]


def test_one_that_cannot_go_on_is_a_result(tmp_path: Path) -> None:
    stopped = "print('groundup: the loss is not finite'); print('bye'); sys.exit(1)"
    arms = {"a": Made(stopped), "b": Made()}
    failed, said = train(tmp_path, arms)
    assert not failed
    assert any("a, peak 1, seed 1: the loss is not finite (0:00)" in line for line in said)
    path = tmp_path / "a.peak-1" / "seed-1.stopped.json"
    assert json.loads(path.read_bytes()) == {"why": "the loss is not finite"}
    assert train(tmp_path, arms) == ([], [])
    assert begun(tmp_path, "a") == 1


def test_an_error_of_the_program_is_no_result(tmp_path: Path) -> None:
    # Python exits with 1 as well: that a memory was full must not be told as divergence.
    error = "print('groundup: of an earlier start', flush=True); os.kill(os.getpid(), 9)"
    arms = {"a": Made(ONCE % error + "raise MemoryError('the device has no more')")}
    assert train(tmp_path, arms)[0] == ["a"]
    failed, (said,) = train(tmp_path, arms)
    assert failed == ["a"]
    assert "failed with exit code 1, see" in said
    assert not list(tmp_path.glob("*/*.stopped.json"))
    assert begun(tmp_path, "a") == 2


def test_one_that_ends_without_a_summary_has_failed(tmp_path: Path) -> None:
    assert train(tmp_path, {"a": Made("sys.exit(0)")})[0] == ["a"]


@pytest.mark.parametrize(
    ("prints", "said"),
    [
        ("print('groundup: rate.peak=-1 is not valid\\n')", "rate.peak=-1 is not valid"),
        ("print('no such file')", "no such file"),
        ("pass", "it printed nothing"),
    ],
)
def test_what_is_not_valid_stops_all(prints: str, said: str, tmp_path: Path) -> None:
    there = "until(os.path.join(out, 'b.peak-1', 'seed-1', 'begun'))\n"
    arms = {"a": Made(f"{there}{prints}\nsys.exit(2)"), "b": Made(WAIT)}
    with pytest.raises(ValueError, match=f"a.peak-1/seed-1: {said}$"):
        train(tmp_path, arms)
    assert (tmp_path / "b.peak-1" / "seed-1" / "saved").exists()


def test_each_has_its_share_of_the_cores_and_what_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    script = f"note('threads', os.environ['OMP_NUM_THREADS'])\n{LOSS}"
    for jobs, threads in ((2, "3"), (4, "1"), (9, "1")):
        train(tmp_path / str(jobs), {"a": Made(script)}, jobs)
        run = tmp_path / str(jobs) / "a.peak-1" / "seed-1"
        assert (run / "threads").read_text().split() == [threads]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    train(tmp_path, {"a": Made(script)})
    assert (tmp_path / "a.peak-1" / "seed-1" / "threads").read_text().split() == ["5"]


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains two runs, which have begun."""
    code = f"from tests.experiment.studies.made import wait_both; wait_both({str(tmp_path)!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        wait_until(lambda: len(pids(tmp_path)) == 2 or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.communicate()
        for pid in pids(tmp_path):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_stops_the_runs_which_save_themselves(
    number: int, driver: subprocess.Popen[str], tmp_path: Path
) -> None:
    driver.send_signal(number)
    out, err = driver.communicate(timeout=60)
    assert f"StudyStopped: stopped by {signal.Signals(number).name}" in err
    assert "as soon as the runs that had begun are saved: 2" in out
    assert len(list(tmp_path.glob("*/*/saved"))) == 2
    assert not any(map(alive, pids(tmp_path)))
    # And the same command goes on.
    (tmp_path / "go").touch()
    assert train(tmp_path, {"a": Made(WAIT), "b": Made(WAIT)})[0] == []


def test_runs_of_a_driver_that_was_killed_are_waited_for(
    driver: subprocess.Popen[str], tmp_path: Path
) -> None:
    driver.kill()
    driver.communicate()
    assert all(map(alive, pids(tmp_path)))
    asked: list[list[int]] = []
    said: list[str] = []

    def again() -> Sequence[Trial]:
        asked.append(pids(tmp_path))
        if len(asked) == 2:  # one of them dies and is begun again, the other is waited for
            os.kill(asked[0][0], signal.SIGKILL)
            wait_until(lambda: not alive(asked[0][0]))
        if len(asked) == 3:  # what could be begun beside them has ended
            (tmp_path / "go").touch()
        return wanted({"a": Made(WAIT), "b": Made(WAIT), "c": Made()}, setting(), tmp_path)

    assert train_all(again, 3, said.append) == []
    assert said[0].endswith("waited for: 2")
    assert [begun(tmp_path, name) for name in "abc"] == [2, 1, 1]


def test_where_signals_cannot_be_had_it_still_trains(tmp_path: Path) -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(train(tmp_path, {"a": Made()})[0]))
    thread.start()
    thread.join(60)
    assert found == [[]]


def test_the_exit_code_is_that_of_the_signal() -> None:
    assert (StudyStopped(signal.SIGTERM).code, StudyStopped(signal.SIGINT).code) == (143, 130)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(29, ""), (89, ", about 1 min left"), (7500, ", about 2 h 5 min left")],
)
def test_how_long_it_takes_is_said_in_minutes(seconds: float, said: str) -> None:
    assert running._about(seconds) == said
