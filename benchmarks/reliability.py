"""Inject faults into real runs, many times, and write down what came of each.

    python benchmarks/reliability.py [--only NAME …] [--times N]

The numbers go to benchmarks/results/reliability.json after each fault, and from there into the
table of docs/reliability.md. Stopped, it keeps what is done; --only carries out some faults again
and leaves the other lines. Exits with 1 if something did not end as promised.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from faults.carry_out import carry_out
from faults.processes import kill_all
from faults.registry import FAULTS
from faults.table import Results, write_table

from groundup.train.setup import hardware

FAMILIES = ("kills", "signals", "storage", "inputs", "nonfinite", "circumstances", "ranks", "long")
REPOSITORY = Path(__file__).parents[1]


def own_mounts(arguments: list[str]) -> None:
    """Start again where folders can be mounted that nobody else sees, if the system lets us: full
    and read-only disks are real ones."""
    unshare = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    if shutil.which("unshare") and not subprocess.run([*unshare, "true"], check=False).returncode:
        program = [sys.executable, os.path.abspath(__file__), *arguments, "--mounts-are-own"]
        os.execvp("unshare", [*unshare, *program])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=list(FAULTS), metavar="NAME", default=list(FAULTS),
        help=f"some of: {', '.join(FAULTS)}")  # fmt: skip
    add("--times", type=int, help="how often each; default: each its own number")
    add("--scratch", type=Path, help="where the runs are made; default: a folder in /tmp")
    add("--results", type=Path, default=REPOSITORY / "benchmarks/results/reliability.json")
    add("--out", type=Path, default=REPOSITORY / "docs/reliability.md")
    add("--mounts-are-own", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    for family in FAMILIES:
        importlib.import_module(f"faults.{family}")  # enters its faults into the table
    args = parse()
    if not args.mounts_are_own:
        own_mounts(sys.argv[1:])
    circumstances = {
        "hardware": hardware(torch.device("cpu")),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }
    results = Results(args.results, circumstances)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="reliability-", dir=args.scratch) as scratch:
        try:
            wanted = [FAULTS[name] for name in args.only]
            for found in carry_out(wanted, args.times, Path(scratch)):
                results.add(found)
                write_table(args.out, results, list(FAULTS.values()))
        finally:
            kill_all()
    return 0 if results.as_promised(args.only) else 1


if __name__ == "__main__":
    raise SystemExit(main())
