"""The training loop. It reads from top to bottom: set the schedules, update, record, save."""

from __future__ import annotations

import gc
import json
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup._atomic import atomic_write
from groundup.data import Batches, Documents, Prepared, TokenFile, prepare
from groundup.data import load as load_tokenizer
from groundup.model import Transformer
from groundup.optim.rate import RateSchedule
from groundup.residual import Warmup, attach
from groundup.train import checkpoint, folder, setup
from groundup.train.advice import advice
from groundup.train.evaluate import HeldOut
from groundup.train.measuring import Measuring
from groundup.train.progress import Silent, Status, Watcher
from groundup.train.recipe import Recipe
from groundup.train.recorder import NonFiniteError, Recorder
from groundup.train.signals import Interrupted, StopRequests
from groundup.train.sinks import Sinks, check_installed, open_sinks
from groundup.train.spikes.actions import ACTIONS, TooManySpikes, Warn
from groundup.train.spikes.rewinds import GoBack, Rewinds
from groundup.train.spikes.suspects import Suspects
from groundup.train.spikes.words import Notes, Scene
from groundup.train.summary import summarize, versions


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says where, why and what is kept."""


@dataclass
class _Run:
    """What a run is made of."""

    recipe: Recipe
    out: Path
    data: str
    device: torch.device
    model: Transformer
    optimizer: torch.optim.Optimizer
    rates: RateSchedule
    warmup: Warmup | None
    batches: Batches
    documents: Documents
    rewinds: Rewinds
    held_out: HeldOut
    measuring: Measuring

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"


def train(
    recipe: Recipe,
    out: Path,
    watch: Watcher | None = None,
    command: str = "",
    *,
    change_rate: bool = False,
) -> dict[str, Any]:
    """Train one run in the folder `out`; goes on where a run that is there was stopped.

    Returns summary.json. A run that has finished is not touched. With `change_rate` the recipe may
    have another [rate] or number of updates than the run in the folder: it goes on from its last
    checkpoint, also if it had finished, from the old rate to the new one without a jump.

    Raises:
        ValueError: if the recipe, the data or what is in the folder does not fit, before any work.
        TrainingStopped: when loss or gradient become infinite or NaN, or the recipe's limit of
            spikes is passed.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint was written.
    """
    watch = watch or Silent()
    check_installed(recipe.log)
    with folder.locked(out):
        prepared = prepare(recipe.data)
        recipe = setup.with_vocabulary(recipe, load_tokenizer(prepared.tokenizer))
        changed = folder.refuse_another_run(out, recipe, change_rate)
        if (finished := folder.summary(out)) is not None and not changed:
            watch.note(f"{out} has finished already")
            return finished
        for warning in advice(recipe).warnings:
            watch.note(warning)
        with StopRequests() as stop:
            while (ended := _attempt(recipe, out, prepared, watch, stop)) is None:
                gc.collect()  # the model that was left, before there is another
        summary = summarize(recipe, out, ended.device, command, ended.seconds)
        atomic_write(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


@dataclass(frozen=True)
class _Ended:
    """A run that came to its end: where, and the seconds that it took."""

    device: torch.device
    seconds: float


def _attempt(
    recipe: Recipe, out: Path, prepared: Prepared, watch: Watcher, stop: StopRequests
) -> _Ended | None:
    """Go on from what is in the folder; None if a spike made the run go back.

    Then all is built anew, as after a kill: that a run goes on exactly holds for both or neither.
    """
    run = _build(recipe, out, prepared)
    start, spent = _resume(run, watch)
    if start:
        watch.note(f"going on after {start} updates")
    folder.write_recipe(out, recipe)
    with open_sinks(recipe, out, start, watch.note) as sinks:
        try:
            return _Ended(run.device, _loop(run, start, spent, watch, stop, sinks))
        except GoBack:
            return None


def _build(recipe: Recipe, out: Path, prepared: Prepared) -> _Run:
    config, length = recipe.train, recipe.data.length
    device = setup.pick_device(config.device)
    if config.deterministic:
        setup.make_deterministic(device)
    file = TokenFile.open(prepared.train)
    validation = TokenFile.open(prepared.validation).tokens
    batches = Batches(file.tokens, length, config.batch, config.seed)
    documents = Documents(file, load_tokenizer(prepared.tokenizer))
    micro = config.micro_batch or config.batch
    held_out = HeldOut(validation, length, micro, config.eval_tokens)

    model = setup.build_model(recipe.model, config.seed, device)
    optimizer = setup.build_optimizer(model, recipe)
    rates = setup.build_rates(optimizer, recipe)
    schedule = recipe.residual.resolve(config.steps)
    warmup = None if schedule.name == "none" else attach(model, schedule)
    if warmup is not None:
        # Now, and not in the first training step: a run that goes on must compute what one that
        # was never stopped computes.
        warmup.check(torch.zeros(1, min(length, 8), dtype=torch.int64, device=device))
    if config.compile:
        for block in model.layers:
            block.compile()
    # The folder of prepared data is named after the content of the data and of the tokenizer.
    data = prepared.folder.name
    inputs, targets = (part.to(device) for part in held_out.first(recipe.measure.sequences))
    measuring = Measuring.of(recipe, model, optimizer, inputs, targets)
    return _Run(
        recipe=recipe,
        out=out,
        data=data,
        device=device,
        model=model,
        optimizer=optimizer,
        rates=rates,
        warmup=warmup,
        batches=batches,
        documents=documents,
        rewinds=Rewinds(out),
        held_out=held_out,
        measuring=measuring,
    )


def _resume(run: _Run, watch: Watcher) -> tuple[int, float]:
    """Load the newest checkpoint, if there is one: completed updates and the seconds they took."""
    run.rewinds.discard_undone(run.checkpoints)
    steps = checkpoint.steps_in(run.checkpoints)
    if not steps:
        return 0, 0.0
    if steps[-1] > run.recipe.train.steps:
        raise folder.FolderError(
            f"{run.out}: train.steps={run.recipe.train.steps} is not valid: the run stands at "
            f"{steps[-1]} updates"
        )
    state = checkpoint.load(run.checkpoints, steps[-1], run.model, run.optimizer)
    if state["data"] != run.data:
        raise folder.FolderError(
            f"{run.out}: the data changed since the run began ({state['data']} then, {run.data} "
            "now). Use another folder with --out"
        )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run.rates.load_state_dict(state["rates"])
    for warning in said:
        watch.note(str(warning.message))
    return steps[-1], state["wall_seconds"]


def _loop(
    run: _Run, start: int, spent: float, watch: Watcher, stop: StopRequests, sinks: Sinks
) -> float:
    """Train from `start` to the end; the seconds of the whole run, `spent` included."""
    recipe, config = run.recipe, run.recipe.train
    schedule = recipe.residual.resolve(config.steps)
    tokens = recipe.tokens_per_step
    began = time.perf_counter() - spent

    def written(metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        alphas = schedule(metrics["step"], recipe.model.layers)
        sinks.updated(metrics, timing)
        watch.update(Status.of(metrics, timing, alphas, config.steps))
        spikes.written(metrics)

    def save(step: int) -> None:
        recorder.flush()
        sinks.flush()
        run.rates.at(step)
        seconds = time.perf_counter() - began
        state = {
            "data": run.data,
            "rates": run.rates.state_dict(),
            "versions": versions(),
            "wall_seconds": seconds,
            "passed": run.rewinds.passed(step),
        }
        needed = spikes.needed(step)
        checkpoint.save(run.checkpoints, step, run.model, run.optimizer, state, config.keep, needed)
        recorder.resume()

    with closing(Recorder(run.out, start, written, setup.fastest(recipe, run.device))) as recorder:
        spikes = _spikes(run, recorder, watch)
        try:
            for step in range(start, config.steps):
                spikes.begin(step)
                run.rates.at(step)
                if run.warmup is not None:
                    run.warmup.at(step)
                run.measuring.begin(step)
                loss, norm, made = _update(run, step, spikes)
                recorder.lap()
                found = run.measuring.end()

                done = step + 1
                alphas = schedule(step, recipe.model.layers)
                line = {
                    "step": step,
                    "rate": max(group["lr"] for group in run.rates.values(step)),
                    "alpha_mean": sum(alphas) / len(alphas),
                    "layers_awake": sum(alpha == 1.0 for alpha in alphas),
                    "tokens": done * tokens,
                }
                if not made:
                    line["skipped"] = True
                if done % config.eval_every == 0 or done == config.steps:
                    with setup.averaged_weights(run.optimizer):
                        held_out = run.held_out.evaluate(run.model, run.device, config.precision)
                    line["eval_loss"] = held_out.loss
                    if recipe.measure.covers("positions"):
                        found |= held_out.line()
                    recorder.resume()
                recorder.measured(step, found)
                sinks.measured(step, found)
                recorder.record(line, tokens, loss=loss, grad_norm=norm)

                if stop.received is not None:
                    save(done)
                    raise Interrupted(stop.received, done)
                if done % config.checkpoint_every == 0 or done == config.steps:
                    save(done)
            spikes.finish()
            if run.warmup is not None:
                run.warmup.at(config.steps)
            found = run.measuring.look(config.steps)
            recorder.measured(config.steps, found)
            sinks.measured(config.steps, found)
        except (NonFiniteError, TooManySpikes) as error:
            kept = checkpoint.steps_in(run.checkpoints)
            last = (
                f"The checkpoint after {kept[-1]} updates is kept"
                if kept
                else "No checkpoint was saved"
            )
            raise TrainingStopped(
                f"{run.out}: training stopped at {error}. {last}. Lower rate.peak, lengthen "
                "rate.warmup or the residual warmup, or look at the batch of that update"
            ) from None
    return time.perf_counter() - began


def _spikes(run: _Run, recorder: Recorder, watch: Watcher) -> Warn:
    """What is done about spikes from here on."""
    recipe = run.recipe
    notes = Notes(watch, apart=recipe.spikes.window_of(recipe.train.steps) // 20)
    precision = partial(setup.compute_precision, recipe.train.precision, run.device)
    suspects = Suspects(run.model, partial(_micro_batches, run), precision)
    scene = Scene(run.batches, run.documents, run.rewinds, suspects)
    kind = ACTIONS[recipe.spikes.action]
    return kind(recipe, run.out, scene, run.rewinds, recorder, notes)


def _update(run: _Run, step: int, spikes: Warn) -> tuple[Tensor, Tensor, bool]:
    """One optimizer update: mean cross-entropy of the batch, gradient norm before clipping, and
    whether the update was made."""
    config = run.recipe.train
    tokens = run.recipe.tokens_per_step
    cross_entropy, done = torch.zeros((), device=run.device), 0
    for inputs, targets in _micro_batches(run, run.rewinds.batch(step)):
        with setup.compute_precision(config.precision, run.device):
            losses = run.model(inputs, targets)
        (losses.total / tokens).backward()
        done += len(inputs)
        run.measuring.accumulated(done)
        cross_entropy += losses.cross_entropy.detach()
    clip = run.recipe.optimizer.clip or math.inf
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), clip)
    loss = cross_entropy / tokens
    made = spikes.allows(step, loss, norm)
    if made:
        run.optimizer.step()
    run.optimizer.zero_grad()
    return loss, norm, made


def _micro_batches(run: _Run, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of one batch of the data, [micro_batch, length] int64 each."""
    micro = run.recipe.train.micro_batch or run.batches.size
    for start in range(0, run.batches.size, micro):
        rows = torch.from_numpy(run.batches.rows(batch, start, start + micro))
        if run.device.type == "cuda":
            rows = rows.pin_memory().to(run.device, non_blocking=True)
        yield rows[:, :-1], rows[:, 1:]
