"""The training loop. It reads from top to bottom: set the schedules, update, record, save."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup._atomic import atomic_write
from groundup.data import Batches, Prepared, TokenFile, prepare
from groundup.data import load as load_tokenizer
from groundup.measure import Observer
from groundup.model import Transformer
from groundup.optim.rate import RateSchedule
from groundup.residual import Warmup, attach
from groundup.train import checkpoint, folder, setup
from groundup.train.advice import advice
from groundup.train.evaluate import HeldOut
from groundup.train.progress import Silent, Status, Watcher
from groundup.train.recipe import Recipe
from groundup.train.recorder import NonFiniteError, Recorder
from groundup.train.signals import Interrupted, StopRequests
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
    held_out: HeldOut
    observer: Observer | None

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
        TrainingStopped: when loss or gradient become infinite or NaN.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint was written.
    """
    watch = watch or Silent()
    with folder.locked(out):
        prepared = prepare(recipe.data)
        recipe = setup.with_vocabulary(recipe, load_tokenizer(prepared.tokenizer))
        changed = folder.refuse_another_run(out, recipe, change_rate)
        if (finished := folder.summary(out)) is not None and not changed:
            watch.note(f"{out} has finished already")
            return finished
        with StopRequests() as stop:
            run = _build(recipe, out, prepared)
            start, spent = _resume(run, watch)
            if start:
                watch.note(f"going on after {start} updates")
            for warning in advice(recipe).warnings:
                watch.note(warning)
            folder.write_recipe(out, recipe)
            seconds = _loop(run, start, spent, watch, stop)
        summary = summarize(recipe, out, run.device, command, seconds)
        atomic_write(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _build(recipe: Recipe, out: Path, prepared: Prepared) -> _Run:
    config, length = recipe.train, recipe.data.length
    device = setup.pick_device(config.device)
    if config.deterministic:
        setup.make_deterministic(device)
    tokens = TokenFile.open(prepared.train).tokens
    validation = TokenFile.open(prepared.validation).tokens
    batches = Batches(tokens, length, config.batch, config.seed)
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
    probe = held_out.inputs().to(device)
    observer = setup.build_observer(model, optimizer, recipe, probe)
    return _Run(
        recipe, out, data, device, model, optimizer, rates, warmup, batches, held_out, observer
    )


def _resume(run: _Run, watch: Watcher) -> tuple[int, float]:
    """Load the newest checkpoint, if there is one: completed updates and the seconds they took."""
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


def _loop(run: _Run, start: int, spent: float, watch: Watcher, stop: StopRequests) -> float:
    """Train from `start` to the end; the seconds of the whole run, `spent` included."""
    recipe, config = run.recipe, run.recipe.train
    schedule = recipe.residual.resolve(config.steps)
    tokens = recipe.tokens_per_step
    began = time.perf_counter() - spent

    def written(metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        alphas = schedule(metrics["step"], recipe.model.layers)
        watch.update(Status.of(metrics, timing, alphas, config.steps))

    def save(step: int) -> None:
        recorder.flush()
        run.rates.at(step)
        seconds = time.perf_counter() - began
        state = {
            "data": run.data,
            "rates": run.rates.state_dict(),
            "versions": versions(),
            "wall_seconds": seconds,
        }
        checkpoint.save(run.checkpoints, step, run.model, run.optimizer, state, config.keep)
        recorder.resume()

    with closing(Recorder(run.out, start, written, setup.fastest(recipe, run.device))) as recorder:
        try:
            for step in range(start, config.steps):
                run.rates.at(step)
                if run.warmup is not None:
                    run.warmup.at(step)
                if run.observer is not None:
                    run.observer.begin(step)
                loss, norm = _update(run, step)
                recorder.lap()
                if run.observer is not None and (found := run.observer.end()) is not None:
                    recorder.measured({"step": step} | found)

                done = step + 1
                alphas = schedule(step, recipe.model.layers)
                line = {
                    "step": step,
                    "rate": max(group["lr"] for group in run.rates.values(step)),
                    "alpha_mean": sum(alphas) / len(alphas),
                    "layers_awake": sum(alpha == 1.0 for alpha in alphas),
                    "tokens": done * tokens,
                }
                if done % config.eval_every == 0 or done == config.steps:
                    with setup.averaged_weights(run.optimizer):
                        loss_now = run.held_out.loss(run.model, run.device, config.precision)
                    line["eval_loss"] = loss_now
                    recorder.resume()
                recorder.record(line, tokens, loss=loss, grad_norm=norm)

                if stop.received is not None:
                    save(done)
                    raise Interrupted(stop.received, done)
                if done % config.checkpoint_every == 0 or done == config.steps:
                    save(done)
        except NonFiniteError as error:
            kept = checkpoint.steps_in(run.checkpoints)
            last = f"the checkpoint after {kept[-1]} updates is kept" if kept else "none was saved"
            raise TrainingStopped(
                f"{run.out}: training stopped at {error}. {last}. Lower rate.peak, lengthen "
                "rate.warmup or the residual warmup, or look at the batch of that update"
            ) from None
    return time.perf_counter() - began


def _update(run: _Run, step: int) -> tuple[Tensor, Tensor]:
    """One optimizer update: mean cross-entropy of the batch, gradient norm before clipping."""
    config = run.recipe.train
    tokens = run.recipe.tokens_per_step
    cross_entropy, done = torch.zeros((), device=run.device), 0
    for inputs, targets in _micro_batches(run, step):
        with setup.compute_precision(config.precision, run.device):
            losses = run.model(inputs, targets)
        (losses.total / tokens).backward()
        done += len(inputs)
        if run.observer is not None and run.recipe.measure.covers("noise"):
            run.observer.accumulated(done)
        cross_entropy += losses.cross_entropy.detach()
    clip = run.recipe.optimizer.clip or math.inf
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), clip)
    run.optimizer.step()
    run.optimizer.zero_grad()
    return cross_entropy / tokens, norm


def _micro_batches(run: _Run, step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of one update, [micro_batch, length] int64 each."""
    micro = run.recipe.train.micro_batch or run.batches.size
    for start in range(0, run.batches.size, micro):
        rows = torch.from_numpy(run.batches.rows(step, start, start + micro))
        if run.device.type == "cuda":
            rows = rows.pin_memory().to(run.device, non_blocking=True)
        yield rows[:, :-1], rows[:, 1:]
