"""What a run is made of, and how it goes on from what is in its folder."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from groundup.data import Corpora, Opened, load, open_data
from groundup.measure import probing
from groundup.model import LanguageModel
from groundup.optim.rate import RateSchedule
from groundup.residual import Warmup, attach
from groundup.train import folder, origin, setup, toml
from groundup.train.checkpoint import Checkpoints
from groundup.train.evaluate import HeldOutTexts
from groundup.train.measuring import Measuring
from groundup.train.parallel import spread
from groundup.train.progress import Watcher
from groundup.train.recipe import Recipe
from groundup.train.spikes.rewinds import Rewinds
from groundup.train.summary import versions
from groundup.train.world import World

if TYPE_CHECKING:
    from groundup.evaluate.during import During


@dataclass
class Run:
    """One run in its folder `out`, in the process `world.rank` of it."""

    recipe: Recipe
    out: Path
    world: World
    data: Opened
    device: torch.device
    model: LanguageModel
    spread: spread.Whole
    optimizer: torch.optim.Optimizer
    rates: RateSchedule
    warmup: Warmup | None
    rewinds: Rewinds
    held_out: HeldOutTexts
    measuring: Measuring
    during: During | None
    checkpoints: Checkpoints

    def alphas(self, step: int) -> list[float]:
        """α of each layer after `step` updates."""
        schedule = self.recipe.residual.resolve(self.recipe.train.steps)
        return schedule(step, self.recipe.model.layers)

    @property
    def rests(self) -> bool:
        """Whether there are layers now that are not computed."""
        if self.warmup is None or self.recipe.residual.dormant == "run":
            return False
        return any(self.warmup.dormant())

    def state(self, step: int, seconds: float) -> dict[str, Any]:
        """What a checkpoint of `step` updates holds beside tensors."""
        self.rates.at(step)
        return {
            "data": self.data.identity,
            "batch": self.rewinds.batch(step),
            "passed": self.rewinds.passed(step),
            "rates": self.rates.state_dict(),
            "alphas": self.alphas(step),
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

    during = world.together(lambda: _during(recipe, data, config.micro_batch or rows))
    model, kind = setup.build_model(recipe, world, device)
    setup.part_documents(model, recipe, data.separator)
    optimizer = setup.build_optimizer(model, recipe)
    rates = setup.build_rates(optimizer, recipe)
    schedule = recipe.residual.resolve(config.steps)
    warmup = (
        None
        if schedule.name == "none"
        else attach(model, schedule, dormant=recipe.residual.dormant)
    )
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
        during=during,
        checkpoints=Checkpoints(out / "checkpoints", world, config.keep, config.keep_every),
    )


def _during(recipe: Recipe, data: Opened, batch: int) -> During | None:
    """What is evaluated on the way, if the recipe asks for it."""
    if not recipe.evaluate.every:
        return None
    # It stands on this package.
    from groundup.evaluate.during import During

    return During.make(recipe.evaluate, load(data.tokenizer), recipe.data.length, batch)


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
    for note in run.measuring.notes:
        watch.note(note)
    found = run.checkpoints.resume(run.model, run.optimizer, watch.note)
    if found is None:
        setup.read_weights(run.model, run.recipe, run.world)
        for note in origin.notes(run.recipe, run.data.tokenizer, run.alphas(0)):
            watch.note(note)
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
