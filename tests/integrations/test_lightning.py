"""The callback in the real Lightning Trainer: α advances, resumes to the bit, is in checkpoints."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import groundup as gu

pytest.importorskip("lightning.pytorch")

from groundup.integrations.lightning import ResidualWarmup
from tests.residual.toy import Net

LAYERS = 4
BRANCHES = ["net.layers.{l}.mix.out", "net.layers.{l}.mlp.2"]
SCHEDULE = gu.depth.linear(T=2)  # all awake after 8
FLAVOURS = ["lightning.pytorch", "pytorch_lightning"]


def module(flavour: str = FLAVOURS[0], optimizers: int = 1) -> Any:
    library = pytest.importorskip(flavour)

    class Regression(library.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = Net()
            self.losses: list[float] = []
            self.validation: list[float] = []
            self.alphas: list[float] = []
            self.automatic_optimization = optimizers == 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            callback = next(c for c in self.trainer.callbacks if isinstance(c, ResidualWarmup))
            assert callback.warmup is not None
            self.alphas.append(callback.warmup.alphas()[-1].item())
            loss = (self(batch[0]) - 1).square().mean()
            self.losses.append(loss.item())
            if optimizers > 1:  # by hand: the second one every second time
                self.zero_grad()
                loss.backward()
                first, second = self.optimizers()
                first.step()
                if index % 2 == 1:
                    second.step()
            return loss

        def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
            self.validation.append((self(batch[0]) - 1).square().mean().item())

        test_step = validation_step

        def configure_optimizers(self) -> Any:
            parts: list[nn.Module] = [self.net.layers, self.net.stem][:optimizers]
            if optimizers == 1:
                return torch.optim.AdamW(self.parameters(), lr=1e-2)
            return [torch.optim.AdamW(part.parameters(), lr=1e-2) for part in parts]

    return Regression()


def loader(batch: int = 4) -> Any:
    rows = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), batch_size=batch)


def trainer(
    folder: Path, *callbacks: Any, steps: int = 10, flavour: str = FLAVOURS[0], **args: Any
) -> Any:
    library = importlib.import_module(flavour)
    settings = {
        "accelerator": "cpu",
        "max_steps": steps,
        "callbacks": list(callbacks),
        "default_root_dir": folder,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return library.Trainer(**(settings | args))


def warmup_of(schedule: Any = SCHEDULE, **options: Any) -> ResidualWarmup:
    return ResidualWarmup(schedule, branches=BRANCHES, **options)


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(num_workers|no `val_dataloader`|log_every_n_steps|litlogger)"
)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_alpha_advances_once_an_update(tmp_path: Path, flavour: str) -> None:
    net = module(flavour)
    callback = warmup_of()
    trainer(tmp_path, callback, flavour=flavour).fit(net, loader())
    assert net.alphas == pytest.approx([min(t / 8, 1) for t in range(10)])
    # The same by hand.
    twin = module(flavour)
    warmup = gu.attach(twin, SCHEDULE, branches=BRANCHES)
    optimizer = twin.configure_optimizers()
    losses = []
    for step, [x] in zip(range(10), [*loader(), *loader()], strict=False):
        warmup.at(step)
        loss = (twin(x) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert net.losses == losses


def test_a_training_step_may_call_a_part_of_the_module(tmp_path: Path) -> None:
    net = module()
    net.forward = None
    net.__class__.__call__ = lambda self, x: self.net(x)
    with warnings.catch_warnings(record=True) as warned:
        trainer(tmp_path, warmup_of()).fit(net, loader())
    assert not [w for w in warned if "no forward" in str(w.message)]


def test_accumulation_counts_updates_not_batches(tmp_path: Path) -> None:
    net = module()
    with pytest.warns(UserWarning, match="ended at step 5, before every layer was awake"):
        trainer(tmp_path, warmup_of(), steps=5, accumulate_grad_batches=2).fit(net, loader())
    assert net.alphas == pytest.approx([t // 2 / 8 for t in range(10)])


@pytest.mark.parametrize("schedule", [None, lambda n: gu.depth.linear(fraction=0.5, steps=n)])
def test_the_length_can_follow_from_the_number_of_steps(tmp_path: Path, schedule: Any) -> None:
    """Five epochs of 8 batches are 40 steps."""
    callback = warmup_of(schedule)
    trainer(tmp_path, callback, steps=-1, max_epochs=5).fit(module(), loader())
    assert callback.warmup is not None
    assert callback.warmup.schedule.end(LAYERS) == (8 if schedule is None else 20)


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_several_optimizers_counts(tmp_path: Path, which: int) -> None:
    net = module(optimizers=2)
    callback = warmup_of(optimizer=which)
    with pytest.warns(UserWarning, match="awake"):
        # Lightning counts the updates of both.
        trainer(tmp_path, callback, steps=9).fit(net, loader())
    assert net.alphas == pytest.approx([t // (1 + which) / 8 for t in range(6)])
    with pytest.raises(ValueError, match="optimizer=2 is not valid: Regression has 2"):
        trainer(tmp_path, warmup_of(optimizer=2)).fit(module(optimizers=2), loader())


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_resuming_goes_on_exactly(tmp_path: Path, flavour: str) -> None:
    # One batch is an epoch: within one Lightning begins a plain DataLoader anew.
    whole = module(flavour)
    trainer(tmp_path, warmup_of(), steps=12, flavour=flavour).fit(whole, loader(32))

    first = module(flavour)
    run = trainer(tmp_path, warmup_of(), steps=5, flavour=flavour)
    with pytest.warns(UserWarning, match="awake"):
        run.fit(first, loader(32))
    run.save_checkpoint(tmp_path / "5.ckpt")

    second = module(flavour)
    with warnings.catch_warnings(record=True) as warned:
        trainer(tmp_path, warmup_of(), steps=12, flavour=flavour).fit(
            second, loader(32), ckpt_path=tmp_path / "5.ckpt"
        )
    assert not [w for w in warned if "groundup" in w.filename or "warmup" in str(w.message)]
    assert second.alphas == pytest.approx([min(t / 8, 1) for t in range(5, 12)])
    assert first.losses + second.losses == whole.losses
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_a_checkpoint_in_mid_warmup_is_evaluated_with_its_alpha(tmp_path: Path) -> None:
    net = module()
    callback = warmup_of()
    run = trainer(tmp_path, callback, steps=5)
    with pytest.warns(UserWarning, match="awake"):
        run.fit(net, loader())
    run.save_checkpoint(tmp_path / "5.ckpt")
    run.validate(net, loader(), verbose=False)

    fresh = module()
    other = trainer(tmp_path, ResidualWarmup(branches=BRANCHES))
    other.validate(fresh, loader(), ckpt_path=tmp_path / "5.ckpt", verbose=False)
    assert fresh.validation == net.validation
    fresh = module()
    other.test(fresh, loader(), ckpt_path=tmp_path / "5.ckpt", verbose=False)
    assert fresh.validation == net.validation
    # The model in use, which has gone on meanwhile, is given the α of the checkpoint as well.
    assert callback.warmup is not None
    callback.warmup.at(8)
    net.validation.clear()
    run.validate(net, loader(), ckpt_path=tmp_path / "5.ckpt", verbose=False)
    assert fresh.validation == net.validation
    assert callback.warmup.updates == 5


def test_fitting_twice_goes_on(tmp_path: Path) -> None:
    net = module()
    callback = warmup_of()
    with pytest.warns(UserWarning, match="awake"):
        trainer(tmp_path, callback, steps=5).fit(net, loader())
    trainer(tmp_path, callback, steps=5).fit(net, loader())
    assert net.alphas == pytest.approx([min(t / 8, 1) for t in range(10)])


def test_the_log_says_alpha(tmp_path: Path) -> None:
    library = importlib.import_module(FLAVOURS[0])
    logger = library.loggers.CSVLogger(tmp_path)
    trainer(tmp_path, warmup_of(), logger=logger, log_every_n_steps=1).fit(module(), loader())
    rows = [line.split(",") for line in next(tmp_path.rglob("metrics.csv")).read_text().split()]
    column = {name: [float(row[i]) for row in rows[1:]] for i, name in enumerate(rows[0])}
    assert column["residual_alpha_min"] == pytest.approx([min(t / 8, 1) for t in range(1, 11)])
    assert column["layers_awake"] == [min(t // 2, 4) for t in range(1, 11)]


@pytest.mark.parametrize("bad", [-1, "first", 0.5])
def test_bad_optimizers(bad: Any) -> None:
    with pytest.raises(ValueError, match=f"optimizer={bad!r} is not valid"):
        ResidualWarmup(optimizer=bad)
