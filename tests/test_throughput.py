"""The comparison of trainers: who takes part, what is set against what, what is said. Peers' own
programs are not here; how fast anything is is not tested."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def test_ours_is_run_and_what_is_not_here_is_left_out(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    for number in range(10):
        words = " ".join(f"word {i * number % 97} and more" for i in range(200))
        (text / f"{number}.txt").write_text(words, encoding="utf-8")
    out = tmp_path / "throughput.json"
    command = [sys.executable, str(FOLDER / "throughput.py"), "--device", "cpu"]
    command += ["--size", "tiny:2x16", "--layers", "1", "--arms", "ours", "prores"]
    command += ["--seconds", "0", "--rounds", "2", "--updates", "2", "--profile", "ours"]
    command += ["--text", str(text), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert list(result["left_out"]) == ["prores"]
    assert "left out: prores: --peer prores=FOLDER" in done.stdout
    ours = result["arms"]["ours"]
    # New weights know nothing of 2048 tokens.
    assert ours["first_loss"] == pytest.approx(math.log(2048), abs=0.2)
    assert ours["times_ours"]["cpu"]["value"] == 1.0
    assert ours["of_product"] == pytest.approx(
        ours["flops_per_second"] / result["product_flops_per_second"]
    )
    assert ours["tokens_per_second"]["cpu"] * result["flops_per_token"] == pytest.approx(
        ours["flops_per_second"]
    )
    assert {"optimizer", "embedding, head, loss"} <= ours["profile"]["parts"].keys()
    # As many as it was asked for: the first, two to warm up, and turns of two in two rounds, of
    # which the last is begun ahead (timing.rounds), forth and back; then what is profiled.
    assert ours["updates"] >= 1 + 2 + 2 + 2 * 2 * 2


def test_an_arm_is_set_against_ours_with_the_same_options() -> None:
    from throughput import base_of

    arms = ["ours", "ours+compiled", "ours+warmup"]
    found = {arm: base_of(arm, arms) for arm in ("hf", "hf+compiled", "prores+warmup", *arms)}
    assert found == {
        "hf": "ours",
        "hf+compiled": "ours+compiled",
        "prores+warmup": "ours+warmup",
        "ours": "ours",
        "ours+compiled": "ours+compiled",
        "ours+warmup": "ours",
    }
    assert base_of("prores+warmup", ["ours"]) == "ours"
    assert base_of("hf+compiled", ["ours"]) is None


class Fake:
    """An arm whose updates take no time, and that ends after some."""

    def __init__(self, seconds: float, lives: int = 10**6) -> None:
        self.spent, self._seconds, self._lives = (0.0, 0.0), seconds, lives

    @property
    def ended(self) -> bool:
        return self._lives < 0

    def __call__(self) -> None:
        from peers import NotHere

        self._lives -= 1
        if self.ended:
            raise NotHere("out of memory")
        self.spent = (self.spent[0] + self._seconds, self.spent[1] + 2 * self._seconds)


def test_an_arm_that_ends_on_the_way_is_left_out_and_the_others_go_on() -> None:
    from throughput import PRODUCT, rounds

    arms = {"ours": Fake(1.0), "hf": Fake(3.0), "litgpt": Fake(1.0, lives=3)}
    args = argparse.Namespace(seconds=0.0, rounds=3, precision=0.5)
    left_out: dict[str, str] = {}
    found = rounds(arms, left_out, Fake(0.5), args)
    assert left_out == {"litgpt": "out of memory"}
    assert list(arms) == ["ours", "hf"]
    assert len(found) >= 3
    for one in found:
        assert one == {"ours": (1.0, 2.0), "hf": (3.0, 6.0), PRODUCT: (0.5, 1.0)}


@pytest.mark.parametrize("arm", ["theirs", "hf+warmup", "ours+quick"])
def test_an_arm_that_does_not_exist_is_refused(arm: str) -> None:
    from peers import module_of

    with pytest.raises(ValueError, match="is not valid"):
        module_of(arm)


def test_operations_are_told_apart_by_name_and_sizes() -> None:
    from peers.profile import group_of

    found = {
        (name, sizes): group_of(name, set(sizes), vocabulary=2048, feed_forward=176)
        for name, sizes in (
            ("aten::mm", (64, 256)),
            ("aten::addmm", (64, 256, 176)),
            ("aten::mm", (64, 256, 2048)),
            ("aten::_scaled_dot_product_flash_attention_for_cpu", (4, 4, 64, 16)),
            ("aten::_fused_adamw_", ()),
            ("aten::_foreach_norm", ()),
            ("aten::copy_", (64, 64)),
            ("aten::mul", (4, 64, 64)),
            ("aten::_log_softmax", (256, 2048)),
            ("graph_0_cpp_fused_mul_0", ()),
        )
    }
    assert list(found.values()) == [
        "attention: projections",
        "feed-forward: products",
        "embedding, head, loss",
        "attention: softmax(qkᵀ)v",
        "optimizer",
        "clip",
        "copies and casts",
        "norms, rotary, elementwise",
        "embedding, head, loss",
        "norms, rotary, elementwise",
    ]


def test_flops_of_gpt_2_are_those_of_its_weights() -> None:
    from peers import Task, flops_per_token

    sizes = {"width": 64, "layers": 3, "heads": 4, "vocab_size": 300}
    task = Task("nanogpt", None, "", "", sizes, {}, 2, 32, "float32", "cpu")
    # Two LayerNorms; queries, keys and values; the way out of attention; in and out of the GELU.
    block = [(64,), (64,), (64, 192), (64, 64), (64, 256), (256, 64)]
    weights = sum(math.prod(shape) for shape in [*block * 3, (64,), (300, 64)])
    attention = 3 * 3 * 2 * (2 * 64 * 32)  # forward and twice that backward, two products, FLOPs
    assert flops_per_token(task) == 6 * weights + attention
