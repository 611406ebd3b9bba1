"""groundup export RUN OUT"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from groundup.cli import main
from groundup.export import tokenizer


def test_it_says_what_it_wrote(warming: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert main(["export", str(warming), str(out), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    parameters = AutoModelForCausalLM.from_pretrained(out).num_parameters()
    assert f"{out}: LlamaForCausalLM, {parameters:,} parameters, float32" in said
    assert "α, from 1 in the first layer to 0.5 in the last" in said
    lines = said.splitlines()[-3:]
    assert lines[0] == "from transformers import AutoModelForCausalLM, AutoTokenizer"
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    assert type(names["model"]).__name__ == "LlamaForCausalLM"


def test_an_earlier_step_in_another_dtype(warming: Path, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "out")
    options = ["export", str(warming), out, "--step", "2", "--dtype", "bfloat16"]
    assert main([*options, "--device=cpu"]) == 0
    assert "After 2 updates α, from 0.5 in the first layer" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert main([*options, "--device=cpu"]) == 2
    assert "holds an export already" in capsys.readouterr().err
    (tmp_path / "out" / "evaluations").mkdir()
    (tmp_path / "out" / "evaluations" / "model.json").write_text("{}")
    capsys.readouterr()
    assert main([*options, "--device=cpu", "--overwrite"]) == 0
    assert "\nRemoved with the earlier export: evaluations.\n" in capsys.readouterr().out
    assert not (tmp_path / "out" / "evaluations").exists()
    short = ["export", str(warming), out, "--step", "2", "--dtype", "bf16", "--device=cpu"]
    assert main([*short, "--overwrite"]) == 0
    again = capsys.readouterr().out
    assert "parameters, bfloat16" in again
    assert "Removed" not in again


def test_the_one_run_below_a_folder(warming: Path, tmp_path: Path, capsys) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(warming, runs / "a" / "seed-0")
    assert main(["export", str(runs), str(tmp_path / "out"), "--device=cpu"]) == 0
    assert (tmp_path / "out" / "config.json").is_file()
    shutil.copytree(warming, runs / "b")
    assert main(["export", str(runs), str(tmp_path / "other"), "--device=cpu"]) == 2
    assert f"holds several runs, say which: {runs}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say which run, and the folder to write"),
        (["{run}"], "say which run, and the folder to write"),
        (["{tmp}", "{tmp}/out"], "is no run folder"),
        (["{run}", "{tmp}/out", "--step", "3"], "step=3 is not valid"),
        (["{run}", "{run}"], "is not empty, and no export of groundup"),
    ],
)
def test_refused(arguments: list[str], message: str, warming: Path, tmp_path: Path, capsys) -> None:
    given = [one.format(run=warming, tmp=tmp_path) for one in arguments]
    assert main(["export", *given]) == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_killed_export_leaves_no_half_folder(
    warming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are written, and then it is killed. Forked: a process of its own would be busy
    for ten seconds with importing."""
    told, tell = os.pipe()
    command = ["export", str(warming), str(tmp_path / "out"), "--device", "cpu"]

    def slow(*arguments: object) -> None:
        os.write(tell, b"there")
        time.sleep(100)

    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "save", slow)
        child = os.fork()
        if not child:
            try:
                torch.set_num_threads(1)  # those of the parent are not there
                main(command)
            finally:
                os._exit(3)
    try:
        assert select.select([told], [], [], 60)[0]
        (beside,) = tmp_path.iterdir()
        assert (beside / "model.safetensors").is_file()
    finally:
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
