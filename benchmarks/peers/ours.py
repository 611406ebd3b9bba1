"""groundup.train.trainer.train, all of it: what ``groundup train`` runs, but for the display."""

from __future__ import annotations

from pathlib import Path

from peers import BETAS, CLIP, DECAY, RATE, STEPS, Task, Updated

ABOUT = "groundup train: data, guarded updates, recorder and all"
OPTIONS = ("compiled", "warmup", "measuring")


def train(task: Task, updated: Updated) -> None:
    from groundup.data import DataConfig
    from groundup.train.heap import keep_freed_memory
    from groundup.train.progress import Silent, Status
    from groundup.train.recipe import Recipe, TrainConfig
    from groundup.train.settings import MeasureConfig, OptimizerConfig, RateConfig, ResidualConfig
    from groundup.train.trainer import train as groundup_train

    keep_freed_memory()

    class Watch(Silent):
        def update(self, status: Status) -> None:
            updated(status.loss)

    warmup = ResidualConfig(schedule="linear", fraction=1.0)
    recipe = Recipe(
        name="throughput",
        model=task.config,
        data=DataConfig(**task.data),
        residual=warmup if task.has("warmup") else ResidualConfig(),
        optimizer=OptimizerConfig(name="adamw", betas=BETAS, weight_decay=DECAY, clip=CLIP),
        rate=RateConfig(peak=RATE),
        train=TrainConfig(
            steps=STEPS,
            batch=task.batch,
            precision=task.precision,
            compile=task.has("compiled"),
            device=task.device,
            eval_every=STEPS,
            checkpoint_every=STEPS,
        ),
        measure=MeasureConfig() if task.has("measuring") else MeasureConfig(every=0),
    )
    groundup_train(recipe, Path(task.folder) / "run", Watch())
