"""docs/studies.md: the study that it adds is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from groundup.cli import main
from groundup.train import recipe_file

GUIDE = Path(__file__).parents[3] / "docs" / "studies.md"


def test_the_study_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    text = GUIDE.read_text()
    blocks = dict(re.findall(r"^```(toml|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "warm.toml").write_text(blocks["toml"])
    monkeypatch.setattr(recipe_file, "_shipped", lambda: tmp_path)
    found: dict[str, object] = {}
    exec(blocks["python"], found)
    monkeypatch.setattr("groundup.commands.reproduce.named", lambda name: found["STUDY"])
    assert main(["reproduce", "warm", "--list", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.split("\n")
    assert [line.strip() for line in said[:-2]] == [
        f"{tmp_path}/out/{arm}.peak-{peak}/seed-0"
        for arm in ("cold", "warm")
        for peak in (0.002, 0.004, 0.008)
    ]
    assert said[-2] == "and 6 more, at the best of each arm's rates"
    assert "shows 6 runs and says\nthat 6 more follow" in text
