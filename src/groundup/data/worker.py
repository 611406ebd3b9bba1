"""A process that encodes shards: `python -m groundup.data.worker`, started by `workers.py`.

It reads one JSON object per line from standard input — first {"tokenizer", "folder"}, then jobs,
as `Job.to_json` writes them — and answers each job with one line, {"part"} or {"error", "kind"}.
It ends when its input does, so it never outlives a killed parent by more than one shard.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    # Answers go to a private copy of standard output, which nothing else can print into.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    from groundup.data.parts import Job, encode_part
    from groundup.data.tokenizer import load

    setup = json.loads(sys.stdin.readline())
    tokenizer, folder = load(setup["tokenizer"]), Path(setup["folder"])
    for line in sys.stdin:
        job = json.loads(line)
        try:
            part = encode_part(folder, Job.from_json(job), tokenizer)
            answer: dict[str, Any] = {"part": asdict(part)}
        except ValueError as error:
            answer = {"error": str(error), "kind": "data"}
        except OSError as error:
            answer = {"error": str(error), "kind": "os"}
        except Exception:
            answer = {"error": traceback.format_exc(), "kind": "bug"}
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:  # the parent was killed
            os._exit(1)


if __name__ == "__main__":
    main()
