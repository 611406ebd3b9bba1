"""The training loop. It reads from top to bottom: set the schedules, step, record, save."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import groundup
from groundup._atomic import atomic_write
from groundup.data import Batches, Prepared, TokenFile, prepare
from groundup.data import load as load_tokenizer
from groundup.measure import run_spike_score
from groundup.residual import attach
from groundup.train import checkpoint, folder, setup
from groundup.train.evaluate import HeldOut
from groundup.train.progress import Silent, Status, Watcher
from groundup.train.recipe import Recipe
from groundup.train.recorder import NonFiniteError, Recorder
from groundup.train.signals import Interrupted, StopRequests


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says where, why and what is kept."""


def train(recipe: Recipe, out: Path, watch: Watcher | None = None, command: str = "") \
        -> dict[str, Any]:  # fmt: skip
    """Train one run in the folder `out`; goes on where a run that is there was stopped.

    Returns summary.json. A run that has finished is not touched.

    Raises:
        ValueError: if the recipe, the data or what is in the folder does not fit, before any work.
        TrainingStopped: when loss or gradient become infinite or NaN.
        Interrupted: on SIGINT or SIGTERM, after a checkpoint was written.
    """
    watch = watch or Silent()
    with folder.locked(out):
        prepared = prepare(recipe.data)
        recipe = setup.with_vocabulary(recipe, load_tokenizer(prepared.tokenizer))
        folder.refuse_another_run(out, recipe)
        if (finished := folder.summary(out)) is not None:
            watch.note(f"{out} has finished already")
            return finished
        with StopRequests() as stop:
            return _run(recipe, out, prepared, watch, command, stop)


def _run(
    recipe: Recipe, out: Path, prepared: Prepared, watch: Watcher, command: str, stop: StopRequests
) -> dict[str, Any]:
    config, length = recipe.train, recipe.data.length
    device = setup.pick_device(config.device)
    if config.deterministic:
        setup.make_deterministic(device)
    tokens = TokenFile.open(prepared.train).tokens
    held_out = TokenFile.open(prepared.validation).tokens
    batches = Batches(tokens, length, config.batch, config.seed)
    micro = config.micro_batch or config.batch
    evaluation = HeldOut(held_out, length, micro, config.eval_tokens)

    model = setup.build_model(recipe.model, config.seed, device)
    optimizer = setup.build_optimizer(model, recipe.optimizer, recipe.rate.peak)
    schedule = recipe.residual.resolve(config.steps)
    warmup = None if schedule.name == "none" else attach(model, schedule)
    if warmup is not None:
        warmup.check(torch.zeros(1, min(length, 8), dtype=torch.int64, device=device))
    if config.compile:
        for block in model.layers:
            block.compile()

    saved = out / "checkpoints"
    start, spent = 0, 0.0
    if steps := checkpoint.steps_in(saved):
        start = steps[-1]
        state = checkpoint.load(saved, start, model, optimizer)
        # The folder is named after the content of the data and of the tokenizer.
        if state["data"] != prepared.folder.name:
            raise folder.FolderError(
                f"{out}: the data changed since the run began ({state['data']} then, "
                f"{prepared.folder.name} now). Use another folder with --out"
            )
        spent = state["wall_seconds"]
        watch.note(f"going on after {start} updates")
    folder.write_recipe(out, recipe)

    factor, clip = recipe.rate.factor(), recipe.optimizer.clip or math.inf
    tokens_per_update = config.batch * length
    began = time.perf_counter()
    watching = _Watching(watch, recipe)
    peak = setup.peak_flops(device) if config.precision == "bf16" else None
    fastest = peak / recipe.model.flops_per_token(length) if peak else None

    def save(step: int) -> None:
        recorder.flush()
        state = {
            "data": prepared.folder.name,
            "versions": versions(),
            "wall_seconds": spent + time.perf_counter() - began,
        }
        checkpoint.save(saved, step, model, optimizer, state, config.keep)
        recorder.resume()

    with closing(Recorder(out, start, watching, fastest)) as recorder:
        try:
            for step in range(start, config.steps):
                rate = recipe.rate.peak * factor(step, config.steps)
                setup.set_rate(optimizer, rate)
                if warmup is not None:
                    warmup.at(step)

                cross_entropy = torch.zeros((), device=device)
                for inputs, targets in _micro_batches(batches, step, micro, device):
                    with setup.compute_precision(config.precision, device):
                        losses = model(inputs, targets)
                    (losses.total / tokens_per_update).backward()
                    cross_entropy += losses.cross_entropy.detach()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
                recorder.lap()

                done = step + 1
                alphas = schedule(step, recipe.model.layers)
                line = {
                    "step": step,
                    "rate": rate,
                    "alpha_mean": sum(alphas) / len(alphas),
                    "layers_awake": sum(alpha == 1.0 for alpha in alphas),
                    "tokens": done * tokens_per_update,
                }
                if done % config.eval_every == 0 or done == config.steps:
                    line["eval_loss"] = evaluation.loss(model, device, config.precision)
                    recorder.resume()
                loss = cross_entropy / tokens_per_update
                recorder.record(line, tokens_per_update, loss=loss, grad_norm=norm)
                if stop.received is not None:
                    save(done)
                    raise Interrupted(stop.received, done)
                if done % config.checkpoint_every == 0 or done == config.steps:
                    save(done)
        except NonFiniteError as error:
            kept = checkpoint.steps_in(saved)
            last = f"the checkpoint after {kept[-1]} updates is kept" if kept else "none was saved"
            raise TrainingStopped(
                f"{out}: training stopped at {error}. {last}. Lower rate.peak, lengthen "
                "rate.warmup or the residual warmup, or look at the batch of that update"
            ) from None
        recorder.flush()
    summary = _summary(recipe, out, model.config.parameters(), device, command)
    summary["wall_seconds"] = round(spent + time.perf_counter() - began, 2)
    atomic_write(out / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    return summary


def _micro_batches(
    batches: Batches, step: int, micro: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of one update, [micro, length] int64 each."""
    for start in range(0, batches.size, micro):
        rows = torch.from_numpy(batches.rows(step, start, start + micro))
        if device.type == "cuda":
            rows = rows.pin_memory().to(device, non_blocking=True)
        yield rows[:, :-1], rows[:, 1:]


class _Watching:
    """Turns recorded lines into what a watcher is told."""

    def __init__(self, watch: Watcher, recipe: Recipe) -> None:
        self._watch, self._layers, self._steps = watch, recipe.model.layers, recipe.train.steps
        self._schedule = recipe.residual.resolve(recipe.train.steps)

    def __call__(self, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        self._watch.update(
            Status(
                step=metrics["step"] + 1,
                steps=self._steps,
                loss=math.nan if metrics["loss"] is None else metrics["loss"],
                rate=metrics["rate"],
                alphas=self._schedule(metrics["step"], self._layers),
                tokens_per_second=timing["tokens_per_second"],
                eval_loss=metrics.get("eval_loss"),
            )
        )


def versions() -> dict[str, str]:
    """What the run was computed with."""
    return {
        "groundup": groundup.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _summary(recipe: Recipe, out: Path, parameters: int, device: torch.device, command: str) \
        -> dict[str, Any]:  # fmt: skip
    """What the two files of a finished run come to."""
    metrics = _lines(out / "metrics.jsonl")
    timing = _lines(out / "timing.jsonl")
    scores = {}
    for name in ("loss", "grad_norm"):
        score = run_spike_score([line[name] for line in metrics])
        scores[name] = {
            "percent": score.percent,
            "window": score.window,
            "scored": score.scored,
            "spikes": score.spikes,
        }
    eval_loss = metrics[-1]["eval_loss"]
    # The median: compilation makes the first updates slow.
    speeds = sorted(line["tokens_per_second"] for line in timing)
    return {
        "variant": recipe.variant or recipe.name,
        "seed": recipe.train.seed,
        "status": "finished",
        "steps": recipe.train.steps,
        "tokens": metrics[-1]["tokens"],
        "parameters": parameters,
        "layers": recipe.model.layers,
        "eval_loss": eval_loss,
        "eval_perplexity": math.exp(eval_loss) if eval_loss < 700 else None,
        "spike_score": scores,
        "tokens_per_second": speeds[len(speeds) // 2],
        "device": device.type,
        "hardware": setup.hardware(device),
        "versions": versions(),
        "command": command,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
