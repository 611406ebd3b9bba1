"""A campaign: `python -m tests.fuzz --minutes 10 [--json FILE]`.

Each target gets an equal share of the time, in a process of its own, so that one that dies is a
defect like another. Case n of a target is the same in every campaign.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TARGETS
from tests.fuzz.trial import attempt

KINDS = ("whole", "other", "refused", "defect")
_SHOWN = 12


def main() -> int:
    options = _options()
    if options.case is not None:
        return _one(options.target[0], options.case)
    names = options.target or list(TARGETS)
    if options.child:
        _child(names[0], options.minutes * 60, options.first)
        return 0
    found = {name: _campaign(name, options) for name in names}
    print(_table(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(result["outcomes"]["defect"] for result in found.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of the whole campaign")
    parser.add_argument("--target", action="append", choices=list(TARGETS))
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", type=int, help="only this one of --target, told in full")
    parser.add_argument("--json", type=Path, help="the table's numbers and the defects")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None and len(options.target or []) != 1:
        parser.error("--case needs one --target")
    return options


def _one(name: str, number: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        outcome = _attempted(name, [number], Path(folder)).__next__()[1]
    print(f"{name} {number}: {outcome.kind} ({outcome.about})\n{outcome.said}\n{outcome.trace}")
    return int(outcome.kind == "defect")


def _attempted(name: str, numbers: Any, folder: Path) -> Any:
    target = TARGETS[name]
    (folder / "whole").mkdir()
    world = target.make(folder / "whole")
    for number in numbers:
        here = folder / "case"
        here.mkdir()
        yield number, attempt(target, world, number, here)
        shutil.rmtree(here, ignore_errors=True)


def _child(name: str, seconds: float, first: int) -> None:
    """Cases until the time is over, a line of JSON each; the line before says which one runs."""
    began = None
    with tempfile.TemporaryDirectory() as folder:

        def numbers() -> Any:
            nonlocal began
            began = time.monotonic()  # laying out whole files is not counted
            number = first
            while time.monotonic() - began < seconds:
                print(json.dumps({"begins": number}), flush=True)
                yield number
                number += 1

        for number, outcome in _attempted(name, numbers(), Path(folder)):
            trace = outcome.trace if outcome.kind == "defect" else ""
            line = {"case": number, "kind": outcome.kind, "about": outcome.about,
                    "said": outcome.said[:400], "cause": outcome.cause, "trace": trace}  # fmt: skip
            print(json.dumps(line), flush=True)


def _campaign(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What came of one target's cases: how many of each kind, and the defects by their cause."""
    share = options.minutes / len(options.target or TARGETS)
    left, first = share * 60, options.first
    outcomes: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    defects: dict[str, dict[str, Any]] = {}
    while left > 0:
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz", "--child", "--target", name,
                   "--minutes", str(left / 60), "--first", str(first)]  # fmt: skip
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None
        running = None
        for line in child.stdout:
            try:
                told = json.loads(line)
                number = told.get("case", told.get("begins"))
            except (ValueError, AttributeError):
                continue  # printed by what is tested
            running = number
            if "kind" not in told:
                continue
            outcomes[told["kind"]] += 1
            if told["kind"] == "defect":
                _add(defects, told["cause"], number, told)
            running = None
        if child.wait() == 0:
            break
        assert child.stderr is not None
        told = {"about": "", "said": f"the process ended with {child.returncode}",
                "trace": child.stderr.read()[-3000:]}  # fmt: skip
        if running is None:
            raise RuntimeError(f"{name}: {told}")
        outcomes["defect"] += 1
        _add(defects, told["said"], running, told)
        left, first = left - (time.monotonic() - began), running + 1
    return {
        "cases": outcomes.total(),
        "outcomes": dict(outcomes),
        "defects": list(defects.values()),
    }


def _add(defects: dict[str, dict[str, Any]], cause: str, number: int, told: dict[str, Any]) -> None:
    found = defects.setdefault(cause, {"cause": cause, "cases": [], "about": told["about"],
                                       "said": told["said"], "trace": told["trace"]})  # fmt: skip
    found["cases"].append(number)


def _table(found: dict[str, dict[str, Any]]) -> str:
    width = max(map(len, found))
    head = f"{'target':{width}}  {'cases':>7}" + "".join(f"  {kind:>7}" for kind in KINDS)
    lines = [head]
    for name, result in found.items():
        counts = "".join(f"  {result['outcomes'][kind]:7d}" for kind in KINDS)
        lines.append(f"{name:{width}}  {result['cases']:7d}{counts}")
    for name, result in found.items():
        for defect in sorted(result["defects"], key=lambda one: -len(one["cases"]))[:_SHOWN]:
            cases = ", ".join(map(str, defect["cases"][:5]))
            lines.append(f"\n{name}, {len(defect['cases'])} × ({defect['about']}; {cases}): "
                         f"{defect['cause']}")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
