"""The real trainer of torchtitan on the CPU: α advances and resumes exactly, also compiled.

Needs `pip install torchtitan==0.2.2 triton`, which are not among the test dependencies. Run it on
its own: torchtitan decides for a device when it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import groundup as gu

with mock.patch("torch._utils._get_available_device_type", return_value="cpu"):
    pytest.importorskip("torchtitan")


class Rows:
    """Random tokens, the same at every step of every run."""

    def __init__(self) -> None:
        self.step = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            draw = torch.Generator().manual_seed(self.step)
            self.step += 1
            rows = torch.randint(2048, (2, 33), generator=draw)
            yield {"input": rows[:, :-1]}, rows[:, 1:]

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


SETTINGS = """
    --model.name llama3 --model.flavor debugmodel --training.seq_len 32
    --training.local_batch_size 2 --training.mixed_precision_param float32 --debug.seed 1
    --optimizer.implementation for-loop --lr_scheduler.warmup_steps 2 --metrics.log_freq 1
    --checkpoint.interval 3
"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs torchtitan's trainer, made to accept a CPU; returns the losses and the trainer."""
    variables = {
        "RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "localhost",
        "MASTER_PORT": 29500 + os.getpid() % 1000,
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    from torchtitan.components import metrics
    from torchtitan.config import ConfigManager
    from torchtitan.distributed import utils
    from torchtitan.models.llama3 import get_train_spec
    from torchtitan.protocols import train_spec

    from groundup.integrations.torchtitan import residual_warmup

    class NoMonitor:
        device_name = "cpu"

        def get_peak_stats(self) -> Any:
            return metrics.DeviceMemStats(0, 0, 0, 0, 0, 0)

        def reset_peak_stats(self) -> None: ...

    losses: list[float] = []
    monkeypatch.setattr(metrics, "build_device_memory_monitor", NoMonitor)
    monkeypatch.setattr(
        metrics.MetricsProcessor, "log", lambda self, step, loss, *a, **k: losses.append(loss)
    )
    monkeypatch.setattr(utils, "set_pg_timeouts", lambda *a, **k: None)
    import torchtitan.train

    def run(schedule: Any, steps: int, *flags: str, **options: Any) -> tuple[list[float], Any]:
        spec = replace(
            get_train_spec(), build_tokenizer_fn=None, build_dataloader_fn=lambda **_: Rows()
        )
        if schedule is not None:
            spec = residual_warmup(spec, schedule, **options)
        monkeypatch.setitem(train_spec._extra_train_specs, "llama3", spec)
        base = SETTINGS.split()
        arguments = ["--training.steps", str(steps), "--job.dump_folder", str(tmp_path), *flags]
        trainer = torchtitan.train.Trainer(ConfigManager().parse_args(base + arguments))
        losses.clear()
        try:
            trainer.train()
        finally:
            trainer.close()
            torch.distributed.destroy_process_group()
        return list(losses), trainer

    return run


def updates(trainer: Any) -> list[int]:
    return [group["residual_warmup_step"] for o in trainer.optimizers for group in o.param_groups]


SCHEDULE = gu.depth.linear(T=2)
COMPILE = ["--compile.enable", "--compile.backend", "eager"]
PARALLELIZED = {
    "eager": [],
    "activation checkpointing": ["--activation_checkpoint.mode", "full"],
    "compiled": ["--activation_checkpoint.mode", "none", *COMPILE],
    "both": ["--activation_checkpoint.mode", "full", *COMPILE],
}


@pytest.mark.parametrize("flags", PARALLELIZED.values(), ids=PARALLELIZED)
def test_alpha_advances(train: Any, flags: list[str]) -> None:
    losses, trainer = train(SCHEDULE, 4, *flags)
    assert updates(trainer) == [4]
    assert losses != pytest.approx(train(None, 4, *flags)[0], rel=1e-3)
    assert losses == pytest.approx(train(SCHEDULE, 4)[0], rel=1e-4)
    assert train(gu.depth.none(), 4)[0] == pytest.approx(train(None, 4)[0], rel=1e-6)


def test_resuming_goes_on_exactly(train: Any, tmp_path: Path) -> None:
    whole, _ = train(SCHEDULE, 6, "--checkpoint.enable")
    (tmp_path / "checkpoint" / "step-6").rename(tmp_path / "away")
    again, trainer = train(SCHEDULE, 6, "--checkpoint.enable")
    assert again == whole[3:]
    assert updates(trainer) == [6]


def test_a_stage_of_a_pipeline_counts_among_all_layers(train: Any) -> None:
    from torchtitan.config.job_config import Optimizer
    from torchtitan.models.llama3 import get_train_spec

    from groundup.integrations.torchtitan import residual_warmup

    spec = get_train_spec()
    stage = spec.model_cls(spec.model_args["debugmodel"])  # 6 layers, of which it holds 0 to 2
    for number in ("3", "4", "5"):
        del stage.layers[number]
    with torch.no_grad():
        stage.init_weights()
    settings = Optimizer(implementation="for-loop")
    built = residual_warmup(spec, gu.depth.linear(total=6)).build_optimizers_fn(
        [stage], settings, None
    )
    tokens = torch.randint(2048, (1, 8))
    for _ in range(2):
        stage(tokens).sum().backward()
        built.step()
    # T = 1, as of six layers (of three it were 2): the first two are at 1 and let go.
    ends = [layer.attention.wo for layer in stage.layers.values()]
    assert [getattr(end, "residual_alpha", 1) for end in ends] == pytest.approx([1, 1, 2 / 3])


def test_an_optimizer_for_every_parameter_is_refused(train: Any) -> None:
    with pytest.raises(ValueError, match="early_step_in_backward=True is not valid"):
        train(SCHEDULE, 2, "--optimizer.early_step_in_backward")
