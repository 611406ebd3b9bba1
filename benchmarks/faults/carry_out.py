"""Carrying out faults one after the other, each to a plain record."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from faults.place import Place
from faults.processes import Hangs
from faults.registry import Fault, NotAsPromised, NotHere


def carry_out(faults: Sequence[Fault], times: int | None, scratch: Path) \
        -> Iterator[dict[str, Any]]:  # fmt: skip
    """The record of each fault, as it stands after each injection and at its end."""
    place = Place(scratch)
    for fault in faults:
        print(f"{fault.name}: {fault.title}", flush=True)
        for record in _carry_out(fault, times or fault.times, place):
            yield record
        _say(record)


def _carry_out(fault: Fault, times: int, place: Place) -> Iterator[dict[str, Any]]:
    happened: Counter[str] = Counter()
    record = {"name": fault.name, "times": 0, "complete": False, "problem": None, "then": ""}
    began = time.monotonic()
    acting = fault.act(place, times)
    while not record["complete"]:
        try:
            happened[place.without_paths(next(acting))] += 1
        except StopIteration as end:
            record |= {"complete": True, "then": end.value or ""}
        except NotHere as error:
            record |= {"complete": True, "not_here": str(error)}
        except Exception as error:  # whatever it is, it is not what was promised
            what = "" if isinstance(error, NotAsPromised | Hangs) else f"{type(error).__name__}: "
            text = place.without_paths(f"{what}{error}")
            record |= {"complete": True, "problem": text}
        record |= {"times": happened.total(), "happened": dict(happened.most_common())}
        record["seconds"] = round(time.monotonic() - began)
        yield record
    place.clear()


def _say(record: dict[str, Any]) -> None:
    for what, number in record["happened"].items():
        print(f"  {number:>3} × {what}")
    print(f"  {record['then']} ({record['seconds']} s)")
    if record["problem"]:
        print(f"  NOT AS PROMISED: {record['problem']}", file=sys.stderr)
    if "not_here" in record:
        print(f"  not here: {record['not_here']}")
    sys.stdout.flush()
