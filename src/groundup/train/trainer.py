"""The training loop. It reads from top to bottom: set the schedules, update, record, save."""

from __future__ import annotations

import contextlib
import gc
import json
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from groundup._atomic import atomic_write
from groundup.data import Corpora, prepare_all
from groundup.data import load as load_tokenizer
from groundup.train import folder, setup, starts, update
from groundup.train import run as runs
from groundup.train.advice import advice
from groundup.train.checkpoint import CheckpointError
from groundup.train.errors import ProcessLost, TrainingStopped
from groundup.train.nonfinite import NonFinite, NonFiniteError
from groundup.train.parallel import start as processes
from groundup.train.parallel.stopping import Stopping
from groundup.train.parallel.watchdog import Watchdog
from groundup.train.progress import Silent, Status, Watcher
from groundup.train.recipe import Recipe
from groundup.train.recorder import Past, Recorder
from groundup.train.run import Run
from groundup.train.signals import Interrupted, StopRequests
from groundup.train.sinks import Sinks, check_installed, open_sinks
from groundup.train.soundness import first_broken
from groundup.train.spikes.actions import ACTIONS, TooManySpikes, Warn
from groundup.train.spikes.rewinds import GoBack
from groundup.train.spikes.suspects import Suspects
from groundup.train.spikes.words import Notes, Scene
from groundup.train.summary import summarize
from groundup.train.world import World, why_lost


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

    Under torchrun every process calls this with the same arguments; the folder is one that all of
    them see. Rank 0 alone writes in it, checkpoints apart, and tells `watch`.

    Raises:
        ValueError: if the recipe, the data or what is in the folder does not fit, before any work.
        TrainingStopped: when too many updates in a row are infinite or NaN, the recipe's limit of
            spikes is passed, or another process of the run is lost.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint was written.
    """
    check_installed(recipe.log)
    device = processes.pick_device(recipe.train.device)
    world = processes.join(recipe.parallel, device)
    world.together(partial(setup.check, recipe, world.size, out))
    watch = watch if watch is not None and world.main else Silent()
    with ExitStack() as held:
        world.on_main(partial(_hold, held, out))
        prepared = world.in_turn(lambda: prepare_all(recipe.data))
        recipe = setup.with_vocabulary(recipe, load_tokenizer(prepared.tokenizer))
        processes.agree(world, recipe, prepared.identity)
        changed = world.on_main(partial(folder.refuse_another_run, out, recipe, change_rate))
        finished = world.on_main(partial(folder.summary, out))
        if finished is not None and not changed:
            watch.note(f"{out} has finished already")
            if folder.evaluates_anew(out, recipe):
                watch.note(f"[evaluate] came too late for it: say groundup eval {out}")
            return finished
        for warning in advice(recipe).warnings:
            watch.note(warning)
        with StopRequests() as stop:
            attempt = partial(_attempt, recipe, out, prepared, world, device, watch, stop)
            while (seconds := attempt()) is None:
                gc.collect()  # the model that was left, before there is another
        return world.on_main(partial(_summary, recipe, out, device, command, seconds, world.size))


def _hold(held: ExitStack, out: Path) -> None:
    held.enter_context(folder.locked(out))


def _summary(recipe: Recipe, out: Path, *about: Any) -> dict[str, Any]:
    summary = summarize(recipe, out, *about)
    atomic_write(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _attempt(
    recipe: Recipe,
    out: Path,
    prepared: Corpora,
    world: World,
    device: torch.device,
    watch: Watcher,
    stop: StopRequests,
) -> float | None:
    """Go on from what is in the folder: the seconds of the whole run, or None if a spike made it go
    back.

    Then all is built anew, as after a kill: that a run goes on exactly holds for both or neither.
    """
    run = runs.build(recipe, out, prepared, world, device)
    with run.checkpoints:
        start, spent = runs.resume(run, watch)
        for note in run.data.notes:
            watch.note(note)
        if start:
            watch.note(f"going on after {start} updates")
        if world.main:
            folder.write_tokenizer(out, load_tokenizer(run.data.tokenizer))
            hardware = setup.hardware(device)
            for said in starts.begin(out, recipe, start, world.size, hardware):
                watch.note(said)
        with open_sinks(recipe, out, start, watch.note, world.main) as sinks:
            try:
                return _loop(run, start, spent, watch, stop, sinks)
            except GoBack:
                return None


def _loop(
    run: Run, start: int, spent: float, watch: Watcher, stop: StopRequests, sinks: Sinks
) -> float:
    """Train from `start` to the end; the seconds of the whole run, `spent` included."""
    recipe, config = run.recipe, run.recipe.train
    schedule = recipe.residual.resolve(config.steps)
    tokens = recipe.tokens_per_step
    began = time.perf_counter() - spent
    stopping = Stopping(stop, run.world, run.device)

    def written(metrics: dict[str, Any], timing: dict[str, Any], broken: dict[str, float]) -> None:
        alphas = schedule(metrics["step"], recipe.model.layers)
        sinks.updated(metrics, timing)
        watch.update(Status.of(metrics, timing, alphas, config.steps))
        spikes.written(metrics)
        nonfinite.written(metrics, broken)

    def save(step: int) -> None:
        recorder.flush()
        sinks.flush()
        if (broken := first_broken(run.model, run.optimizer, run.world)) is not None:
            raise NonFiniteError(
                f"the checkpoint of {step} updates, which is not saved: {broken} holds NaN or inf"
            )
        state = run.state(step, time.perf_counter() - began)
        run.checkpoints.save(step, run.model, run.optimizer, state, spikes.needed(step))
        recorder.resume()

    fastest = setup.fastest(recipe, run.device, run.world.size)
    recorder = Recorder(run.out, start, written, fastest, writes=run.world.main)
    watchdog = Watchdog(run.world, recipe.parallel.timeout, run.out)
    random = torch.random.fork_rng([run.device] if run.device.type == "cuda" else [])
    with closing(recorder), watchdog, random:
        spikes, nonfinite = _watchers(run, recorder, watch)
        try:
            for step in range(start, config.steps):
                watchdog.beat(step)
                spikes.begin(step)
                run.rates.at(step)
                if run.warmup is not None:
                    run.warmup.at(step)
                run.spread.expect(all_gradients=not run.rests)
                run.measuring.begin(step)
                made = update.make(run, step, spikes, stopping.word())
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
                if not made.allowed:
                    line["skipped"] = True
                if done % config.eval_every == 0 or done == config.steps:
                    watchdog.beat(step)
                    with setup.averaged_weights(run.optimizer):
                        held_out = run.held_out.evaluate(
                            run.model, run.device, config.precision, run.world
                        )
                    line |= held_out.losses()
                    if recipe.measure.covers("positions"):
                        found |= held_out.positions()
                    recorder.resume()
                every = recipe.evaluate.every
                if run.during is not None and (done % every == 0 or done == config.steps):
                    with setup.averaged_weights(run.optimizer):
                        numbers = run.during.evaluate(
                            run.model,
                            run.device,
                            config.precision,
                            run.world,
                            partial(watchdog.beat, step),
                        )
                    found |= numbers
                    watch.note(f"after {done} updates: {run.during.said(numbers)}")
                    recorder.resume()
                recorder.measured(step, found)
                sinks.measured(step, found)
                recorder.record(line, tokens, loss=made.loss, grad_norm=made.grad_norm)

                if (number := stopping.see(made.words)) is not None:
                    save(done)
                    run.checkpoints.wait()
                    raise Interrupted(number, done)
                if done % config.checkpoint_every == 0 or done == config.steps:
                    save(done)
            spikes.finish()
            if run.warmup is not None:
                run.warmup.at(config.steps)
            found = run.measuring.look(config.steps)
            recorder.measured(config.steps, found)
            sinks.measured(config.steps, found)
            run.checkpoints.wait()
        except (NonFiniteError, TooManySpikes) as error:
            raise TrainingStopped(
                f"{run.out}: training stopped at {error}. {_kept(run)}. Lower rate.peak, lengthen "
                "rate.warmup or the residual warmup, or look at the batch of that update"
            ) from None
        except RuntimeError as error:
            if not run.world.lost(error):
                raise
            raise ProcessLost(
                f"{run.out}: rank {run.world.rank} has lost another process of the run: "
                f"{why_lost(error)}. The same command goes on from the last checkpoint"
            ) from error
    return time.perf_counter() - began


def _kept(run: Run) -> str:
    with contextlib.suppress(CheckpointError):
        run.checkpoints.wait()
    kept = run.checkpoints.steps()
    return f"The checkpoint after {kept[-1]} updates is kept" if kept else "No checkpoint was saved"


def _watchers(run: Run, recorder: Recorder, watch: Watcher) -> tuple[Warn, NonFinite]:
    """What is done about spikes, and about what is not finite, from here on."""
    recipe = run.recipe
    notes = Notes(watch, apart=recipe.spikes.window_of(recipe.train.steps) // 20)
    precision = partial(setup.compute_precision, recipe.train.precision, run.device)
    suspects = Suspects(run.model, partial(update.micro_batches, run), precision, run.world)
    scene = Scene(run.data.batches, run.data.documents, run.rewinds, suspects)
    window = max(recipe.spikes.window_of(recipe.train.steps), recipe.train.nonfinite)
    past = run.world.on_main(lambda: Past.of(run.out, window))
    kind = ACTIONS[recipe.spikes.action]
    spikes = kind(recipe, run.checkpoints, scene, run.rewinds, recorder, notes, past)
    return spikes, NonFinite(recipe.train.nonfinite, past.lines, watch)
