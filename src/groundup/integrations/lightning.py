"""Residual warmup in Lightning's `Trainer`: a callback.

>>> from groundup.integrations.lightning import ResidualWarmup              # doctest: +SKIP
>>> Trainer(callbacks=[ResidualWarmup(gu.depth.linear(T=1000))])            # doctest: +SKIP
"""

from __future__ import annotations

from typing import Any

from groundup._check import count
from groundup.integrations._attaching import (
    Attaching,
    ScheduleOrLength,
    told,
    warn_of_an_early_end,
)
from groundup.residual import Warmup
from groundup.schedules import depth

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError:  # the same library under its older name
    from pytorch_lightning import Callback, LightningModule, Trainer  # type: ignore[assignment]


class ResidualWarmup(Callback):
    """Residual warmup of the model inside a `LightningModule`.

    It attaches when fitting begins and follows the optimizer; `fit(ckpt_path=…)` goes on at the
    right α, and so do `validate` and `test` of a checkpoint from mid-warmup. What is logged gains
    `residual_alpha_min`, `residual_alpha_mean` and `layers_awake` (layers at α = 1).

    Args:
        schedule: one of `groundup.depth`; or a function of the number of steps that returns one,
            such as ``lambda steps: gu.depth.linear(fraction=0.2, steps=steps)``; or None, for
            `gu.depth.linear` of the length that `gu.suggest` advises.
        optimizer: which one counts the updates, where `configure_optimizers` returns several.
        attach_options: what `groundup.attach` takes besides, such as ``branches=[…]`` (names as in
            the `LightningModule`).

    Attributes:
        warmup: the `groundup.Warmup`, from the beginning of fitting on.

    Example:
        >>> Trainer(callbacks=[ResidualWarmup()]).fit(module, loader)   # doctest: +SKIP
    """

    def __init__(
        self, schedule: ScheduleOrLength = None, *, optimizer: int = 0, **attach_options: Any
    ) -> None:
        self.warmup: Warmup | None = None
        self._attaching = Attaching(schedule, attach_options)
        self._which = count("optimizer", optimizer, least=0)
        self._module: LightningModule | None = None
        self._restored: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach and follow. The optimizers are there, and are restored after this."""
        if self._which >= len(trainer.optimizers):
            raise ValueError(
                f"optimizer={self._which} is not valid: {type(pl_module).__name__} has "
                f"{len(trainer.optimizers)}, counted from 0"
            )
        if self.warmup is None or pl_module is not self._module:
            step = 0 if self._restored is None else self._restored["step"]
            self.warmup = self._attaching.resumed(
                pl_module, lambda: int(trainer.estimated_stepping_batches), step
            )
            self._module = pl_module
        else:  # a second fit(), which makes new optimizers
            self.warmup.unfollow()
        self._apply_restored()
        self.warmup.follow(trainer.optimizers[self._which])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Strategies that restore late have done so by now; the optimizer has brought the step.
        self._restored = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        assert self.warmup is not None
        if trainer.loggers:
            pl_module.log_dict(told(self.warmup))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self.warmup is not None
        if trainer.is_global_zero:
            warn_of_an_early_end(self.warmup, "callback.warmup.folded_state_dict()")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where a checkpoint was restored, give its weights their α."""
        if self._restored is None:
            return
        if self.warmup is None or pl_module is not self._module:
            schedule = depth.from_json(self._restored["schedule"])
            step = self._restored["step"]
            self.warmup = self._attaching.trained(pl_module, schedule, step)
            self._module = pl_module
        self._apply_restored()

    on_test_start = on_validation_start
    on_predict_start = on_validation_start

    def state_dict(self) -> dict[str, Any]:
        """The step and its schedule, for the checkpoint."""
        return {} if self.warmup is None else self.warmup.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A checkpoint is being restored; the model may not be there yet."""
        self._restored = state_dict or None

    def _apply_restored(self) -> None:
        assert self.warmup is not None
        if self._restored is not None:
            self.warmup.load_state_dict(self._restored)
        self._restored = None
