"""Runs of a million updates: the time and the memory that their files take."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Generator
from pathlib import Path

from faults.moments import cut_off
from faults.place import Folder, Place
from faults.processes import Ended
from faults.registry import demand, fault

_STEPS = 10**6
_LEFT = 5  # updates that are still to be made


@fault(
    "million-steps",
    "files of 10⁶ updates",
    f"a run that has {_LEFT} of 10⁶ updates before it: its checkpoint and its files are written "
    "by the injection; it goes on to its end, then `groundup report`",
    times=1,
)
def million_steps(place: Place, times: int) -> Generator[str, None, str | None]:
    folder = place.folder(
        train__steps=20, train__checkpoint_every=10, train__eval_every=1000, measure__every=7
    )
    cut_off(folder, 15)
    _stretch(folder)
    for _ in range(times):
        ended = folder.finish()
        demand(ended.code == 0, f"exit {ended.code}:\n{ended.said[-3000:]}")
        summary = json.loads((folder.run / "summary.json").read_text())
        demand(summary["steps"] == _STEPS, f"summary.json has {summary['steps']} steps")
        demand(folder.lines() == _STEPS, f"{folder.lines()} lines")
        yield f"goes on to the end: {_cost(ended)}"
        page = ("report", "run", "--out", "report.html")
        ended = folder.finish(command=page)
        demand(ended.code == 0, f"report: exit {ended.code}:\n{ended.said[-3000:]}")
        size = (folder.path / "report.html").stat().st_size / 2**20
        yield f"report: {_cost(ended)}, a page of {size:.1f} MB"
        (folder.run / "summary.json").unlink()
        shutil.rmtree(folder.run / "checkpoints" / f"step-{_STEPS:08d}")
    return None


def _cost(ended: Ended) -> str:
    return f"{ended.seconds:.0f} s of one core, {ended.peak_bytes / 2**30:.1f} GB"


def _stretch(folder: Folder) -> None:
    """As if the updates so far had been the last but five of a million."""
    recipe = folder.path / "recipe.toml"
    for path in (recipe, folder.run / "recipe.toml"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(?m)^steps = 20$", f"steps = {_STEPS}", text), encoding="utf-8")
    for name, every in (("metrics", 1), ("timing", 1), ("measurements", 100)):
        _lengthen(folder.run / f"{name}.jsonl", every)
    checkpoints = folder.run / "checkpoints"
    newest = max(checkpoints.glob("step-*"))
    place = newest.rename(checkpoints / f"step-{_STEPS - _LEFT:08d}")
    state = json.loads((place / "state.json").read_text(encoding="utf-8"))
    state["step"] = _STEPS - _LEFT
    (place / "state.json").write_text(json.dumps(state), encoding="utf-8")
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["state.json"] = _entry(place / "state.json")
    (place / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _lengthen(path: Path, every: int) -> None:
    """The lines that there are over and over, one for every so many updates, no two alike."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()[:10]]
    with open(path, "w", encoding="utf-8") as file:
        for step in range(0, _STEPS - _LEFT, every):
            line = lines[step % len(lines)] | {"step": step}
            if "loss" in line:
                line["loss"] += (step * 7919 % 1000) * 1e-4
                if step % 1000 == 999:
                    line["eval_loss"] = line["loss"] + 0.1
            file.write(json.dumps(line) + "\n")


def _entry(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
