"""The benchmarks run and say what they measured. How long anything takes is not tested."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


def run(*flags: str, program: str = "overhead.py") -> str:
    command = [sys.executable, str(FOLDER / program), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_overhead_reports_every_state(tmp_path: Path) -> None:
    out = tmp_path / "overhead.json"
    said = run("--quick", "--device", "cpu", "--out", str(out))
    arms = ("without", "control", "warming", "half", "finished")
    assert [line.split()[0] for line in said.splitlines() if line.startswith("  ")][1:] == list(
        arms
    )
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["hardware"]
    assert found["setting"]["threads"] == "1"
    (result,) = found["results"]
    assert set(result["arms"]) == set(arms)
    assert set(result["arms"]["warming"]["ratio"]) == {"cpu", "wall"}
    assert result["seconds_per_step"]["cpu"] > 0


def test_warmup_keeps_no_activation_more(tmp_path: Path) -> None:
    out = tmp_path / "overhead.json"
    run("--quick", "--device", "cpu", "--states", "warming", "--out", str(out))
    arms = json.loads(out.read_text(encoding="utf-8"))["results"][0]["arms"]
    kept = {name: arm["kept_for_backward_bytes"] for name, arm in arms.items()}
    assert kept["without"] == kept["control"]
    assert 0 <= kept["warming"] - kept["without"] <= 4 * 2  # α of two layers


def test_ways_compute_the_same_and_are_all_listed(tmp_path: Path) -> None:
    out = tmp_path / "ways.json"
    said = run("--ways", "--quick", "--device", "cpu", "--out", str(out))
    (result,) = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert all(not branch["refused"] for branch in result["branches"].values())
    for way in ("output × α", "weight × α", "product's own factor", "addcmul with the addition"):
        assert way in said
        assert way in result["share_of_step"]


@pytest.mark.parametrize("flags", [["--size", "huge:8x128"], ["--size", "tiny"]])
def test_a_size_that_does_not_exist_is_refused(flags: list[str]) -> None:
    command = [sys.executable, str(FOLDER / "overhead.py"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "--size" in done.stderr


def test_optimizers_are_timed_against_fused_adamw(tmp_path: Path) -> None:
    out = tmp_path / "optimizers.json"
    run("--quick", "--device", "cpu", "--out", str(out), program="optimizers.py")
    (result,) = json.loads(out.read_text(encoding="utf-8"))["results"]
    arms = result["arms"]
    assert arms["torch AdamW fused"]["ratio"]["cpu"]["value"] == 1.0
    assert {"the same again", "LionAR", "AdamW inverse fused"} <= arms.keys()
    # One momentum, two, and one with the norms of rows.
    found = [arms[n]["state_bytes_per_parameter"] for n in ("LionA single", "torch AdamW fused")]
    assert found == pytest.approx([4, 8], abs=0.1)
    assert 4 < arms["LionAR"]["state_bytes_per_parameter"] < 5


def test_guarded_updates_are_timed_against_plain_ones(tmp_path: Path) -> None:
    out = tmp_path / "guard.json"
    run("--quick", "--device", "cpu", "--out", str(out), program="guard.py")
    results = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert [(r["optimizer"], r["waits"], r["timed"]) for r in results] == [
        ("adamw", False, "update"),
        ("adamw", False, "train"),
        ("lionar", True, "update"),
        ("lionar", True, "train"),
    ]
    for result in results:
        assert result["ratio"]["without"]["cpu"]["value"] == 1.0
        assert result["ratio"]["guarded"]["cpu"]["value"] > 0


def test_measuring_reports_each_word(tmp_path: Path) -> None:
    out = tmp_path / "measuring.json"
    quick = ("--size", "tiny:4x16", "--layers", "2", "--rounds", "2", "--seconds", "2")
    said = run(*quick, "--device", "cpu", "--out", str(out), program="measuring.py")
    (result,) = json.loads(out.read_text(encoding="utf-8"))["results"]
    words = {"updates", "stream", "attention", "similarity", "depth", "rank", "all at once"}
    assert words <= result["cost_in_updates"].keys()
    assert result["intervals"]["depth"] == 200
    assert "over the run" in said


def test_cost_is_given_against_each_size(tmp_path: Path) -> None:
    out, figure = tmp_path / "scaling.json", tmp_path / "scaling.png"
    axes = ("depth", "width", "length", "vocabulary")
    flags = ("--only", *axes, "--depth", "1", "2", "3", "--figure", str(figure))
    said = run("--quick", *flags, "--device", "cpu", "--out", str(out), program="scaling.py")
    results = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert [result["axis"] for result in results] == list(axes)
    assert figure.read_bytes().startswith(b"\x89PNG")
    depth, _, length, vocabulary = (result["points"] for result in results)
    # A layer's weights with AdamW's two moments, and a token's row in embedding and head.
    for points in (depth, vocabulary):
        steps = {b["held_bytes"] - a["held_bytes"] for a, b in itertools.pairwise(points)}
        assert len(steps) == 1
        assert all(a["held_bytes"] >= 12 * a["parameters"] for a in points)
    assert len({point["tokens"] for point in length}) == 1
    assert "for each layer" in said


def test_laws_find_what_times_were_made_of() -> None:
    code = """
from laws import Line, Power
sizes = (2, 4, 8, 16)
line = [{str(n): (k + 3 + 0.5 * n,) for n in sizes} for k in (-0.1, 0.0, 0.1, 0.0)]
found = Line().fit(sizes, line, 0)
assert abs(found["each"]["value"] - 0.5) < 1e-9 and abs(found["fixed"]["value"] - 3) < 1e-9
assert max(abs(one["value"]) for one in found["off_the_line"].values()) < 1e-12
bent = [{str(n): (3 + 0.1 * n**2,) for n in sizes}] * 4
assert not Line().fit(sizes, bent, 0)["linear_within_spread"]
power = Power().fit(sizes, [{str(n): (0.2 * n**1.5,) for n in sizes}] * 4, 0)
assert abs(power["exponent"]["value"] - 1.5) < 1e-9 and abs(power["at_one"]["value"] - 0.2) < 1e-9
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=FOLDER, timeout=300)


def test_the_way_to_the_first_update_is_told_in_parts(tmp_path: Path) -> None:
    out = tmp_path / "startup.json"
    run("--quick", "--device", "cpu", "--out", str(out), program="startup.py")
    (result,) = json.loads(out.read_text(encoding="utf-8"))["results"]["first update"]
    assert result["name"] == "cold"
    assert "tokenizer and tokens" in result["parts"]
    assert sum(result["parts"].values()) <= result["wall"]["median"]


def test_memory_is_planned_and_measured(tmp_path: Path) -> None:
    out = tmp_path / "memory.json"
    run("--quick", "--layers", "2", "--out", str(out), program="memory.py")
    results = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert len(results) == 2
    for result in results:
        assert result["planned"] == pytest.approx(result["measured"], rel=0.15)


def test_resting_times_what_is_skipped(tmp_path: Path) -> None:
    out = tmp_path / "resting.json"
    said = run("--quick", "--device", "cpu", "--out", str(out), program="resting.py")
    (result,) = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert list(result["ratio"]) == ["control", *(f"{n} of 3 awake" for n in (1, 2, 3))]
    assert "a run with S = 6% of it: " in said


def test_the_time_of_a_run_from_its_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three layers, S a fifth of the run: one is awake for a fifth, two for a fifth, then all."""
    monkeypatch.syspath_prepend(str(FOLDER))
    from resting import of_a_run

    assert of_a_run({1: 0.4, 3: 1.0}, 0.2, 3) == pytest.approx(0.2 * 0.4 + 0.2 * 0.7 + 0.6)
