"""One run in a process of its own: ``python -m groundup.experiment.resnet FILE FOLDER``.

FILE is a configuration as `ResNetRun.to_json` writes it. The exit code is 0 when the folder holds
the run's summary, also of one that diverged, and 2 where something given was not valid.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from groundup.experiment.resnet.config import ResNetRun
from groundup.experiment.resnet.training import Line, train_resnet
from groundup.train.heap import keep_freed_memory


def main(arguments: Sequence[str]) -> int:
    try:
        if len(arguments) != 2:
            raise ValueError("give a configuration's file and a folder for the run")
        file, folder = map(Path, arguments)
        summary = train_resnet(ResNetRun.from_json(file.read_bytes()), folder, _show)
    except (ValueError, OSError) as error:
        print(f"groundup: {error}", file=sys.stderr)
        return 2
    print(f"{summary['status']}: test error {summary['test_error']:.4f}")
    return 0


def _show(line: Line) -> None:
    accuracy = line.get("test_accuracy")
    said = "not finite" if accuracy is None else f"accuracy {accuracy:.4f}"
    print(f"epoch {line['epoch']}: {said}", flush=True)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main(sys.argv[1:]))
