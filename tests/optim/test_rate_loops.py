"""A rate schedule in other people's loops: gradient scalers, accumulation, trainers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import groundup as gu
from groundup.optim import rate

PEAK = 1e-2
WSD = gu.factor.linear(4) >> gu.factor.hold() >> gu.factor.decay("linear", 5)


def wsd(step: int, steps: int) -> float:
    return PEAK * min(1.0, (step + 1) / 4, max(0.0, (steps - step) / 5))


def net() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 2)


def lr(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


class TestFollowing:
    @pytest.mark.parametrize("fused", [True, False])
    def test_an_update_that_a_scaler_skips_does_not_count(self, fused: bool) -> None:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, fused=fused)
        schedule = rate.schedule(optimizer, gu.factor.linear(8), follow=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        made = 0
        with warnings.catch_warnings(action="error"):
            for factor in (float("inf"), 1.0, 1.0, float("inf"), float("inf"), 1.0):
                before = model.weight.clone()
                scaler.scale(model(torch.ones(3, 4)).sum() * factor).backward()
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                optimizer.zero_grad()
                made += factor == 1.0
                assert torch.equal(model.weight, before) is (factor != 1.0)
                assert schedule.last_epoch == made
                assert lr(optimizer) == PEAK * (made + 1) / 8
                assert schedule.get_last_lr() == [PEAK * (made + 1) / 8]

    def test_steps_by_the_loop_do_nothing(self) -> None:
        """Once a micro-batch, or on each of several processes: the optimizer counts."""
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=PEAK)
        schedule = rate.schedule(optimizer, gu.factor.linear(8), follow=True)
        for batch in range(12):
            model(torch.ones(3, 4)).sum().backward()
            if batch % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
            for _ in range(3):
                schedule.step()
            assert schedule.last_epoch == (batch + 1) // 4
            assert optimizer.param_groups[0][rate.GROUP_KEY] == schedule.last_epoch

    def test_together_with_residual_warmup(self) -> None:
        model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 8, batch_first=True), 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
        warmup = gu.attach(model, gu.depth.linear(T=4))
        schedule = rate.schedule(optimizer, gu.factor.linear(4), follow=True)
        warmup.follow(optimizer)
        for _ in range(3):
            model(torch.ones(1, 2, 8)).sum().backward()
            optimizer.step()
        assert warmup.updates == schedule.last_epoch == 3
        warmup.unfollow()
        optimizer.step()
        assert schedule.last_epoch == 4

    def test_state_that_distributed_checkpoint_makes_is_no_update(self) -> None:
        from torch.distributed.checkpoint import state_dict as dcp

        def made() -> tuple[nn.Module, Any, rate.RateSchedule]:
            model = net()
            optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(PEAK))
            return model, optimizer, rate.schedule(optimizer, gu.factor.linear(8), follow=True)

        model, optimizer, schedule = made()
        for _ in range(3):
            model(torch.ones(3, 4)).sum().backward()
            optimizer.step()
        saved = dcp.get_optimizer_state_dict(model, optimizer)
        model, optimizer, schedule = made()
        held = optimizer.param_groups[0]["lr"]
        dcp.get_optimizer_state_dict(model, optimizer)
        assert schedule.last_epoch == 0
        dcp.set_optimizer_state_dict(model, optimizer, saved)
        assert schedule.last_epoch == 3
        assert optimizer.param_groups[0]["lr"] is held
        assert lr(optimizer) == pytest.approx(PEAK / 2)


class TestAccelerate:
    @pytest.fixture(autouse=True)
    def _fresh_state(self) -> Iterator[None]:
        state = pytest.importorskip("accelerate").state
        for reset in (0, 1):
            state.AcceleratorState._reset_state(reset_partial_state=True)
            state.GradientState._reset_state()
            if not reset:
                yield

    def train(self, accelerator: Any, model: Any, optimizer: Any, schedule: Any, n: int) -> list:
        found = []
        for _ in range(n):
            with accelerator.accumulate(model):
                accelerator.backward(model(torch.ones(3, 4)).square().sum())
                found.append(lr(optimizer))
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        return found

    @pytest.mark.parametrize("tensor", [True, False])
    @pytest.mark.parametrize("follow", [True, False])
    def test_prepared_with_accumulation(self, follow: bool, tensor: bool, tmp_path: Path) -> None:
        import accelerate

        def made() -> tuple[Any, Any, Any, Any]:
            accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
            model = net()
            peak: Any = torch.tensor(PEAK, dtype=torch.float64) if tensor else PEAK
            optimizer = torch.optim.AdamW(model.parameters(), lr=peak)
            schedule = rate.schedule(optimizer, WSD, steps=20, follow=follow)
            prepared = accelerator.prepare(model, optimizer, schedule)
            return accelerator, *prepared

        expected = [wsd(batch // 2, 20) for batch in range(40)]
        first = made()
        assert self.train(*first, 14) == expected[:14]
        first[0].save_state(str(tmp_path))
        assert self.train(*first, 26) == expected[14:]
        second = made()
        second[0].load_state(str(tmp_path))
        assert self.train(*second, 26) == expected[14:]

    def test_several_processes_step_it_several_times(self, monkeypatch: Any) -> None:
        """Accelerate multiplies the steps of a schedule by the processes; the updates stay."""
        import accelerate

        accelerator = accelerate.Accelerator(cpu=True)
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)
        schedule = rate.schedule(optimizer, WSD, steps=20, follow=True)
        prepared = accelerator.prepare(model, optimizer, schedule)
        monkeypatch.setattr(accelerate.state.AcceleratorState, "num_processes", 4, raising=False)
        assert self.train(accelerator, *prepared, 20) == [wsd(t, 20) for t in range(20)]

    def test_an_optimizer_that_was_wrapped_before(self) -> None:
        import accelerate

        model, optimizer = accelerate.Accelerator(cpu=True).prepare(
            *(model := net(), torch.optim.AdamW(model.parameters(), lr=PEAK))
        )
        schedule = rate.schedule(optimizer, gu.factor.linear(4), follow=True)
        model(torch.ones(3, 4)).sum().backward()
        optimizer.step()
        assert schedule.last_epoch == 1
        assert lr(optimizer) == PEAK / 2


class TestTransformers:
    def trainer(self, folder: Path, steps: int, peak: float = PEAK, **options: Any) -> Any:
        transformers = pytest.importorskip("transformers")
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=options.pop("max_steps", steps),
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            logging_steps=1,
            save_strategy="steps",
            save_steps=7,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=3,
        )

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = net()

            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                out = self.body(x)
                return {"loss": (out - 1).square().mean(), "logits": out}

        rows = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
        model = Model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=peak)
        schedule = rate.schedule(optimizer, WSD, steps=steps, **options)
        seen: list[float] = []

        class Seen(transformers.TrainerCallback):
            def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
                seen.append(lr(optimizer))

        made = transformers.Trainer(
            model,
            arguments,
            train_dataset=[{"x": row} for row in rows],
            optimizers=(optimizer, schedule),
            callbacks=[Seen()],
        )
        made.remove_callback(transformers.PrinterCallback)
        return made, seen

    @pytest.mark.parametrize("follow", [True, False])
    def test_trainer_resumed(self, tmp_path: Path, follow: bool) -> None:
        run, seen = self.trainer(tmp_path / "whole", 16, follow=follow)
        run.train()
        assert seen == [wsd(t, 16) for t in range(16)]
        logged = [row["learning_rate"] for row in run.state.log_history if "loss" in row]
        # The Trainer logs after the update and before its lr_scheduler.step().
        assert logged == pytest.approx([wsd(t + follow, 16) for t in range(16)])

        again, seen = self.trainer(tmp_path / "again", 16, follow=follow)
        with warnings.catch_warnings(action="error", category=UserWarning):
            again.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-7"))
        assert seen == [wsd(t, 16) for t in range(7, 16)]
        for p, q in zip(run.model.parameters(), again.model.parameters(), strict=True):
            assert torch.equal(p, q)

        longer, seen = self.trainer(tmp_path / "longer", 40, peak=2 * PEAK, follow=follow, blend=4)
        with pytest.warns(UserWarning, match=r"peak 0.01 → 0.02; .* from 0.01 .* over 4 updates"):
            longer.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-7"))
        line = [PEAK * (1 + k / 4) for k in range(4)]
        assert seen == pytest.approx(line + [2 * wsd(t, 40) for t in range(11, 40)])


class TestLightning:
    @pytest.mark.parametrize("how", ["step", "follow"])
    @pytest.mark.filterwarnings("ignore:.*(num_workers|val_dataloader|log_every_n_steps|litlogger)")
    def test_trainer_resumed(self, tmp_path: Path, how: str) -> None:
        lightning = pytest.importorskip("lightning.pytorch")

        class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.body = net()
                self.seen: list[float] = []

            def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
                self.seen.append(lr(self.optimizers()))
                return (self.body(batch[0]) - 1).square().mean()

            def configure_optimizers(self) -> Any:
                optimizer = torch.optim.AdamW(self.parameters(), lr=PEAK)
                follow = how == "follow"  # then Lightning may call step() once an epoch
                schedule = rate.schedule(optimizer, WSD, steps=20, follow=follow)
                if follow:
                    return [optimizer], [schedule]
                return [optimizer], [{"scheduler": schedule, "interval": "step"}]

        def fit(steps: int, checkpoint: str | None = None) -> tuple[Any, list[float]]:
            rows = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
            loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), batch_size=4)
            module = Module()
            trainer = lightning.Trainer(
                accelerator="cpu",
                max_steps=steps,
                default_root_dir=tmp_path,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(module, loader, ckpt_path=checkpoint)
            return trainer, module.seen

        trainer, seen = fit(10)
        trainer.save_checkpoint(tmp_path / "ten.ckpt")
        expected = [wsd(t, 20) for t in range(20)]
        assert seen == expected[:10]
        assert fit(20, str(tmp_path / "ten.ckpt"))[1] == expected[10:]
