"""Residual warmup in Hugging Face's `Trainer`: a callback.

>>> from groundup.integrations.transformers import ResidualWarmup             # doctest: +SKIP
>>> Trainer(..., callbacks=[ResidualWarmup(gu.depth.linear(T=1000))])         # doctest: +SKIP
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from groundup._atomic import atomic_write
from groundup.integrations._attaching import (
    Attaching,
    ScheduleOrLength,
    log,
    told,
    warn_of_an_early_end,
)
from groundup.residual import BranchError, Warmup
from groundup.schedules import depth

FILE = "residual_warmup.json"
"""What a checkpoint folder holds besides the weights when it was saved before every α was 1."""


class ResidualWarmup(TrainerCallback):
    """Residual warmup of the model that a `Trainer` trains.

    It attaches when training begins and follows the optimizer, so that a resumed run goes on at the
    right α. The training log gains `residual_alpha_min`, `residual_alpha_mean` and `layers_awake`
    (layers at α = 1). A checkpoint that is saved before the warmup is over holds its step in
    `residual_warmup.json`: `restore` reads it.

    Args:
        schedule: one of `groundup.depth`; or a function of the number of steps that returns one,
            such as ``lambda steps: gu.depth.linear(fraction=0.2, steps=steps)``; or None, for
            `gu.depth.linear` of the length that `gu.suggest` advises.
        attach_options: what `groundup.attach` takes besides, such as ``branches=[…]``.

    Attributes:
        warmup: the `groundup.Warmup`, from the beginning of training on.

    Example:
        >>> Trainer(model, args, callbacks=[ResidualWarmup()])   # doctest: +SKIP
    """

    def __init__(self, schedule: ScheduleOrLength = None, **attach_options: Any) -> None:
        self.warmup: Warmup | None = None
        self._attaching = Attaching(schedule, attach_options)
        self._model: Any = None
        self._optimizer: Any = None
        self._counted_by_trainer = False
        self._before = 0  # updates before the Trainer's step 0
        self._saved_at: dict[int, int] = {}  # the Trainer's step → ours, of each checkpoint

    # ------------------------------------------------------------------ the Trainer's events

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Attach and follow; in a second `train()` of the same model go on from where it was."""
        if self.warmup is None or model is not self._model:
            # Where the optimizer was resumed, too, it knows better than the Trainer: it does not
            # count the updates that a gradient scaler skipped. It says so when it is followed.
            self.warmup = self._attaching.resumed(model, lambda: state.max_steps, state.global_step)
        elif optimizer is not self._optimizer:
            self.warmup.unfollow()
        self._model = model
        if optimizer is not self._optimizer:
            self._optimizer = optimizer
            followed = _torch_optimizer(optimizer)
            self._counted_by_trainer = followed is None
            if followed is not None:
                self.warmup.follow(followed)
        self._before = 0 if state.global_step else self.warmup.updates  # resumed, or once more
        if self._counted_by_trainer:
            self.warmup.at(self._before + state.global_step)
        if args.torch_compile:
            _prove(self.warmup, train_dataloader, args.device)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._counted_by_trainer:
            self._attached.at(self._before + state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add α to the training log: to what is printed from here on, and to the history."""
        if self.warmup is None or logs is None or "loss" not in logs:
            return
        logs.update(told(self.warmup))
        state.log_history[-1].update(told(self.warmup))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say in the checkpoint's folder with which α its weights belong together."""
        assert args.output_dir is not None
        self._saved_at[state.global_step] = self._attached.updates
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        # A hyperparameter search saves elsewhere; its optimizers carry the step all the same.
        if not state.is_world_process_zero or not folder.is_dir():
            return
        if self._attached.finished:
            (folder / FILE).unlink(missing_ok=True)  # of an earlier run in the same folder
        else:
            content = json.dumps(self._attached.state_dict(), indent=2) + "\n"
            atomic_write(folder / FILE, content.encode())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the best checkpoint, where it was loaded, its α; warn in mid-warmup."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            best = state.best_global_step
            assert best is not None
            self._attached.at(self._saved_at.get(best, best))
        if state.is_world_process_zero:
            warn_of_an_early_end(
                self._attached,
                "model.save_pretrained(folder, state_dict=callback.warmup.folded_state_dict())",
            )

    # ------------------------------------------------------------------ inside

    @property
    def _attached(self) -> Warmup:
        assert self.warmup is not None, "on_train_begin comes first"
        return self.warmup


def restore(model: nn.Module, folder: str | Path, **attach_options: Any) -> Warmup | None:
    """Give a model that was loaded from a checkpoint's folder the α it was saved with.

    Returns:
        The `groundup.Warmup`, at the step of the checkpoint: for evaluation, or for
        `folded_state_dict()`, an export that needs no warmup. None where the folder holds no
        `residual_warmup.json`: it was saved after the warmup, and the model is a stock one.

    Raises:
        ValueError: if there is no such folder, or the model has another number of layers.

    Example:
        >>> model = AutoModelForCausalLM.from_pretrained("out/checkpoint-500")   # doctest: +SKIP
        >>> restore(model, "out/checkpoint-500")                                 # doctest: +SKIP
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"folder={str(folder)!r} is not valid: there is no such folder")
    if not (folder / FILE).exists():
        return None
    saved = json.loads((folder / FILE).read_text())
    schedule = depth.from_json(saved["schedule"])
    warmup = Attaching(schedule, attach_options).trained(model, schedule, saved["step"])
    warmup.load_state_dict(saved)  # refuses another depth
    return warmup


def _prove(warmup: Warmup, loader: Any, device: torch.device) -> None:
    """Run a model that is compiled as a whole on a row: when it is called, it cannot prove itself.

    Where that is not possible (a stream, a model with a loss function outside), `Warmup` warns
    after a few updates that nothing was proven.
    """
    try:
        row = send_to_device(loader.collate_fn([loader.dataset[0]]), device)
        warmup.check(**row)
    except BranchError:
        raise
    except Exception as error:
        log.info("residual warmup: not proven on a row of the training data: %s", error)


def _torch_optimizer(optimizer: Any) -> torch.optim.Optimizer | None:
    """What Accelerate wraps; None where it is no optimizer of torch's (DeepSpeed)."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return inner if isinstance(inner, torch.optim.Optimizer) else None
