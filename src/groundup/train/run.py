"""What a run is made of, and how it goes on from what is in its folder."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.data import Corpora, Opened, open_data
from groundup.measure import probing
from groundup.model import Transformer
from groundup.optim.rate import RateSchedule
from groundup.residual import Warmup, attach
from groundup.train import folder, setup, toml
from groundup.train.checkpoint import Checkpoints
from groundup.train.evaluate import HeldOutTexts
from groundup.train.measuring import Measuring
from groundup.train.parallel import spread
from groundup.train.progress import Watcher
from groundup.train.recipe import Recipe
from groundup.train.spikes.rewinds import Rewinds
from groundup.train.summary import versions
from groundup.train.world import World


@dataclass
class Run:
    """One run in its folder `out`, in the process `world.rank` of it."""

    recipe: Recipe
    out: Path
    world: World
    data: Opened
    device: torch.device
    model: Transformer
    spread: spread.Whole
    optimizer: torch.optim.Optimizer
    rates: RateSchedule
    warmup: Warmup | None
    rewinds: Rewinds
    held_out: HeldOutTexts
    measuring: Measuring
    checkpoints: Checkpoints

    def state(self, step: int, seconds: float) -> dict[str, Any]:
        """What a checkpoint of `step` updates holds beside tensors."""
        self.rates.at(step)
        schedule = self.recipe.residual.resolve(self.recipe.train.steps)
        return {
            "data": self.data.identity,
            "batch": self.rewinds.batch(step),
            "passed": self.rewinds.passed(step),
            "rates": self.rates.state_dict(),
            "alphas": schedule(step, self.recipe.model.layers),
            "recipe": toml.plain(self.recipe),
            "processes": self.world.size,
            "versions": versions(),
            "wall_seconds": seconds,
        }


def build(recipe: Recipe, out: Path, prepared: Corpora, world: World, device: torch.device) -> Run:
    """All of it anew, at the first update.

    Raises:
        ValueError: if something does not fit together.
    """
    config, length = recipe.train, recipe.data.length
    if config.deterministic:
        setup.make_deterministic(device)
    rows = setup.per_process(recipe, world.size)
    # Together: what only one machine lacks, all hear of before they wait for it.
    data = world.together(
        lambda: open_data(
            recipe.data, prepared, config.batch, config.seed, config.steps, recipe.warmup_end
        )
    )
    held_out = HeldOutTexts(data.held_out, length, config.micro_batch or rows, config.eval_tokens)

    model, kind = setup.build_model(recipe, world, device)
    optimizer = setup.build_optimizer(model, recipe)
    rates = setup.build_rates(optimizer, recipe)
    schedule = recipe.residual.resolve(config.steps)
    warmup = None if schedule.name == "none" else attach(model, schedule)
    if warmup is not None:
        # Now, and not in the first training step: a run that goes on must compute what one that
        # was never stopped computes.
        warmup.check(torch.zeros(1, min(length, 8), dtype=torch.int64, device=device))
        probing.reshard(model)
    inputs, targets = (part.to(device) for part in held_out.first(recipe.measure.sequences))
    return Run(
        recipe=recipe,
        out=out,
        world=world,
        data=data,
        device=device,
        model=model,
        spread=kind(model, world, recipe.parallel, device),
        optimizer=optimizer,
        rates=rates,
        warmup=warmup,
        rewinds=Rewinds(out, world),
        held_out=held_out,
        measuring=Measuring.of(recipe, model, optimizer, inputs, targets),
        checkpoints=Checkpoints(out / "checkpoints", world, config.keep, config.keep_every),
    )


def resume(run: Run, watch: Watcher) -> tuple[int, float]:
    """Load the newest whole checkpoint, if there is one: completed updates and the seconds they
    took."""
    run.rewinds.discard_undone(run.checkpoints)
    steps = run.checkpoints.steps()
    if steps and steps[-1] > run.recipe.train.steps:
        raise folder.FolderError(
            f"{run.out}: train.steps={run.recipe.train.steps} is not valid: the run stands at "
            f"{steps[-1]} updates"
        )
    found = run.checkpoints.resume(run.model, run.optimizer, watch.note)
    if found is None:
        return 0, 0.0
    step, state = found
    if state["data"] != run.data.identity:
        raise folder.FolderError(
            f"{run.out}: the data changed since the run began ({state['data']} then, "
            f"{run.data.identity} now). Use another folder with --out"
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run.rates.load_state_dict(state["rates"])
    for warning in said:
        watch.note(str(warning.message))
    return step, state["wall_seconds"]
