"""A run of Weights & Biases, under one id for as long as the folder lives."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup._atomic import atomic_write

if TYPE_CHECKING:
    from groundup.train.recipe import Recipe

# Seconds to upload the rest at the end; what is left then is in the folder, for `wandb sync`.
_FINISH = 120


class WeightsAndBiases:
    """One W&B run; its step is the update.

    W&B takes no step a second time. (`resume_from`, which cuts a run's history, is a preview, needs
    a server that offers it, and does not work offline.) What is computed again is the same to
    rounding, so updates that it has are passed over: those that the server knows of, or, offline,
    those that metrics.jsonl has held.
    """

    name = "Weights & Biases"

    def __init__(
        self, recipe: Recipe, folder: Path, start: int, note: Callable[[str], None]
    ) -> None:
        import wandb

        from groundup.train.toml import plain

        kept = folder / "wandb.json"
        # Not made from the folder's name: W&B would take another run there for this one.
        known: dict[str, Any] = {"id": secrets.token_hex(6), "logged": -1}
        if kept.exists():
            known |= json.loads(kept.read_text(encoding="utf-8"))
            known["logged"] = max(known["logged"], _last_step(folder / "metrics.jsonl"))
        atomic_write(kept, (json.dumps(known) + "\n").encode())

        config = recipe.log
        variant = recipe.variant or recipe.name
        self._run: Any = wandb.init(
            id=known["id"],
            resume="allow",
            dir=folder,
            project=config.project,
            entity=config.entity,
            group=config.group or (recipe.name if recipe.variant else None),
            name=f"{variant}-seed-{recipe.train.seed}",
            mode=config.mode,
            config=plain(recipe),
            allow_val_change=True,
            # Neither a run that somebody else has open in this process, nor the terminal, is ours.
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, finish_timeout=_FINISH),
        )
        self._last = self._run.starting_step - 1
        if self._run.offline:
            self._last = known["logged"]
        elif self._run.url:
            note(f"Weights & Biases: {self._run.url}")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if step > self._last:
            self._run.log(dict(values), step=step)
            self._last = step

    def flush(self) -> None:
        """The library writes by its own clock, every 15 seconds."""

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def _last_step(path: Path) -> int:
    """The last update in the file, or -1."""
    last = -1
    if path.exists():
        with open(path, "rb") as file:
            for raw in file:
                if raw.endswith(b"\n"):
                    last = json.loads(raw)["step"]
    return last
