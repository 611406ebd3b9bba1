"""Numbers that are none: NaN in weights, gradients and activations."""

from __future__ import annotations

import json
import random
from collections.abc import Generator

from faults.ends import ends_the_same, says
from faults.place import CHECKPOINT_EVERY, STEPS, Place
from faults.registry import Act, demand, fault


@fault(
    "nan-weights",
    "NaN in the weights",
    "into one weight, after an update drawn at random (injected code)",
    times=5,
)
def nan_weights(place: Place, times: int) -> Generator[str, None, str]:
    draw = random.Random(0)
    for _ in range(times):
        folder = place.folder()
        step = draw.randint(CHECKPOINT_EVERY, STEPS - 20)
        ended = folder.finish(inject=f"nan-weights:{step}")
        kept = step // CHECKPOINT_EVERY * CHECKPOINT_EVERY
        says(ended, 1, "run: training stopped", f"checkpoint after {kept} updates is kept")
        yield "exit 1 before anything was saved with it: the checkpoint before it is kept, and said"
        ends_the_same(place, folder)
    return "without it, the same command ended as undisturbed"


def skipped(what: str, processes: int = 1) -> Act:
    """One update is skipped, and said; no number is lost."""

    def act(place: Place, times: int) -> Generator[str, None, str]:
        draw = random.Random(0)
        for _ in range(times):
            folder = place.folder(processes)
            step = draw.randint(2, STEPS - 20)
            ended = folder.finish(inject=f"{what}:{step}")
            demand(ended.code == 0, f"exit {ended.code}:\n{ended.said[-3000:]}")
            metrics = (folder.run / "metrics.jsonl").read_bytes()
            lines = [json.loads(line) for line in metrics.splitlines()]
            found = [line["step"] for line in lines if line.get("skipped")]
            demand(len(found) == 1, f"skipped: {found}")
            demand(f"update {found[0]}: " in ended.said, f"not said:\n{ended.said[-3000:]}")
            demand(all(line["loss"] for line in lines[found[0] + 1 :]), "the loss is lost")
            yield "that update is skipped, and said; the run goes on to its end"
        return None

    return act


fault(
    "nan-activations",
    "NaN in the data",
    "into what the embedding makes of one batch drawn at random (injected code)",
    times=3,
)(skipped("nan-activations"))
fault(
    "nan-gradients",
    "NaN in a gradient",
    "of one weight, in one backward drawn at random (injected code)",
    times=3,
)(skipped("nan-gradients"))
fault(
    "nan-gradients-of-one-rank",
    "NaN in a gradient of one rank",
    "of one weight, in one backward of rank 1 of 2 drawn at random (DDP, injected code)",
    times=3,
)(skipped("nan-gradients", processes=2))
