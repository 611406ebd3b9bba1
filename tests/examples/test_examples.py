"""Every example runs as it stands, for a few steps, and prints what it promises."""

from __future__ import annotations

import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import tests.torchvision_shim  # noqa: F401

EXAMPLES = Path(__file__).parents[2] / "examples"

# Script → the libraries it needs, its arguments, and what its last line says.
PROMISES = {
    "plain_pytorch": ("", "--steps 10", r"warmup finished: True; a stock model .* the same"),
    "hf_trainer": (
        "transformers accelerate",
        "--steps 16",
        r"last loss (\d\.\d+); of the run resumed in mid-warmup: \1",
    ),
    "accelerate_loop": (
        "accelerate transformers",
        "--steps 10",
        r"update   10   loss \d\.\d+   layers at α = 1: 6 of 6",
    ),
    "lightning_module": (
        "lightning sklearn",
        "--steps 30",
        r"accuracy \d+\.\d% after 30 steps; <Warmup linear on Digits: .* step 30, finished, .*",
    ),
    "timm_vit": ("timm sklearn", "--steps 20", r"accuracy of the average: \d+\.\d%"),
    "torchtitan_llama": ("torchtitan", "--steps 4", r"step   3   loss \d\.\d+   updates 4"),
    "vit_digits": (
        "transformers sklearn",
        "--steps 20 --seeds 2",
        r"difference [+-]\d+\.\d% ± \d+\.\d% \(standard error over the seeds\)",
    ),
}


@pytest.mark.parametrize("name", PROMISES)
def test_it_keeps_its_promise(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    libraries, arguments, promise = PROMISES[name]
    if missing := [library for library in libraries.split() if find_spec(library) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    script = EXAMPLES / f"{name}.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script), *arguments.split()])
    runpy.run_path(str(script), run_name="__main__")
    last = capsys.readouterr().out.rstrip().rpartition("\n")[2]
    assert re.fullmatch(promise, last), last


def test_every_example_is_tested_short_and_says_how_to_run_it() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PROMISES)
    for path in EXAMPLES.glob("*.py"):
        text = path.read_text()
        assert f"python examples/{path.name} [--steps" in text
        assert len(text.splitlines()) <= 90, path.name
