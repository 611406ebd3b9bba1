"""The callback in the real Trainer: α advances, resumes to the bit, and is in what is saved."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import groundup as gu

pytest.importorskip("accelerate")
transformers = pytest.importorskip("transformers")

from groundup.integrations.transformers import FILE, ResidualWarmup, restore  # noqa: E402

LAYERS = 3
SCHEDULE = gu.depth.linear(T=4)  # all awake after 12


def model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    return transformers.LlamaForCausalLM(config)


class Rows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self, rows: int = 64) -> None:
        self.rows = torch.randint(32, (rows, 8), generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


class Seen(transformers.TrainerCallback):
    """α of the last layer at the beginning of every step."""

    def __init__(self, callback: ResidualWarmup) -> None:
        self.callback, self.alphas = callback, list[float]()

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        assert self.callback.warmup is not None
        self.alphas.append(self.callback.warmup.alphas()[-1].item())


def trainer(folder: Path, *callbacks: Any, steps: int = 10, net: Any = None, **args: Any) -> Any:
    settings = transformers.TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": steps,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
            "seed": 3,
        }
        | args
    )
    made = transformers.Trainer(
        model() if net is None else net,
        settings,
        train_dataset=Rows(),
        eval_dataset=Rows(8),
        callbacks=list(callbacks),
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


def losses(of: Any) -> list[float]:
    return [row["loss"] for row in of.state.log_history if "loss" in row]


def by_hand(steps: int, accumulation: int = 1) -> list[float]:
    """The Trainer's losses with α counted by a callback of three lines instead of followed."""

    class Hand(transformers.TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.warmup = gu.attach(kwargs["model"], SCHEDULE)

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.warmup.step()

    run = trainer(Path("unused"), Hand(), steps=steps, gradient_accumulation_steps=accumulation)
    run.train()
    return losses(run)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_alpha_advances_once_an_update(tmp_path: Path, accumulation: int) -> None:
    callback = ResidualWarmup(SCHEDULE)
    seen = Seen(callback)
    run = trainer(tmp_path, callback, seen, steps=15, gradient_accumulation_steps=accumulation)
    with warnings.catch_warnings(action="error", category=UserWarning):
        run.train()
    assert seen.alphas == pytest.approx([min(t / 12, 1) for t in range(15)])
    assert callback.warmup is not None
    assert callback.warmup.finished
    assert losses(run) == by_hand(15, accumulation)
    bare = trainer(tmp_path, steps=15, gradient_accumulation_steps=accumulation)
    bare.train()
    assert losses(run) != losses(bare)


@pytest.mark.parametrize("schedule", [None, lambda n: gu.depth.linear(fraction=0.2, steps=n)])
def test_the_length_can_follow_from_the_number_of_steps(tmp_path: Path, schedule: Any) -> None:
    """Given in epochs, too: 2 epochs of 64 rows in batches of 4 are 32 steps."""
    callback = ResidualWarmup(schedule)
    seen = Seen(callback)
    trainer(tmp_path, callback, seen, steps=-1, num_train_epochs=2).train()
    assert callback.warmup is not None
    end = callback.warmup.schedule.end(LAYERS)
    assert end == pytest.approx(6 if schedule is None else 6.4)  # suggest: round(0.2·32/3)·3
    assert seen.alphas == pytest.approx([min(t / end, 1) for t in range(32)])


def test_as_a_class(tmp_path: Path) -> None:
    run = trainer(tmp_path, ResidualWarmup, steps=2)
    with pytest.warns(UserWarning, match="ended at step 2, before every layer was awake"):
        run.train()
    assert "layers_awake" in run.state.log_history[0]


def test_the_log_says_alpha(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trainer(tmp_path, ResidualWarmup(SCHEDULE), steps=5)
    run.add_callback(transformers.PrinterCallback)
    with pytest.warns(UserWarning, match="awake"):
        run.train()
    rows = [row for row in run.state.log_history if "loss" in row]
    assert [row["layers_awake"] for row in rows] == [0, 0, 0, 1, 1]
    assert rows[4]["residual_alpha_min"] == pytest.approx(5 / 12)
    assert rows[4]["residual_alpha_mean"] == pytest.approx((1 + 5 / 8 + 5 / 12) / 3)
    assert "'layers_awake': 1" in capsys.readouterr().out.replace('"', "'").replace("'1'", "1")


@pytest.mark.parametrize("save_only_model", [False, True])
def test_resuming_goes_on_exactly(tmp_path: Path, save_only_model: bool) -> None:
    # Plain SGD at a constant rate has no state: without the optimizer's file, too, it is exact.
    settings = {
        "save_strategy": "steps",
        "save_steps": 5,
        "save_only_model": save_only_model,
        "optim": "sgd" if save_only_model else "adamw_torch",
        "lr_scheduler_type": "constant",
    }
    whole = trainer(tmp_path / "whole", ResidualWarmup(SCHEDULE), steps=14, **settings)
    whole.train()

    callback = ResidualWarmup(SCHEDULE)
    seen = Seen(callback)
    again = trainer(tmp_path / "again", callback, seen, steps=14, **settings)
    with warnings.catch_warnings(action="error", category=UserWarning):
        again.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-5"))
    assert seen.alphas == pytest.approx([min(t / 12, 1) for t in range(5, 14)])
    assert losses(again) == losses(whole)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])


def test_the_followed_optimizer_knows_better_than_the_trainers_step(tmp_path: Path) -> None:
    """A gradient scaler skipped two updates: the optimizer carries 3, the Trainer counted 5."""
    run = trainer(tmp_path, ResidualWarmup(SCHEDULE), steps=5, save_strategy="steps", save_steps=5)
    with pytest.warns(UserWarning, match="awake"):
        run.train()
    file = tmp_path / "checkpoint-5/optimizer.pt"
    state = torch.load(file)
    for group in state["param_groups"]:
        assert group["residual_warmup_step"] == 5
        group["residual_warmup_step"] = 3
    torch.save(state, file)
    callback = ResidualWarmup(SCHEDULE)
    seen = Seen(callback)
    with pytest.warns(UserWarning, match="awake"):
        trainer(tmp_path, callback, seen, steps=7).train(resume_from_checkpoint=str(file.parent))
    assert seen.alphas == pytest.approx([3 / 12, 4 / 12])


def test_a_checkpoint_in_mid_warmup_is_restored_with_its_alpha(tmp_path: Path) -> None:
    run = trainer(tmp_path, ResidualWarmup(SCHEDULE), steps=15, save_strategy="steps", save_steps=5)
    (tmp_path / "checkpoint-15").mkdir()
    (tmp_path / "checkpoint-15" / FILE).write_text("{}")  # of an earlier, longer warmup
    run.train()
    assert json.loads((tmp_path / "checkpoint-5" / FILE).read_text())["step"] == 5
    assert not (tmp_path / "checkpoint-15" / FILE).exists()

    load = transformers.LlamaForCausalLM.from_pretrained
    ids = Rows().rows[:2]
    with warnings.catch_warnings(action="error"):
        net = load(tmp_path / "checkpoint-10")
        bare = net(ids).logits
        warmup = restore(net, tmp_path / "checkpoint-10")
        assert warmup is not None
        assert warmup.alphas().tolist() == pytest.approx([1, 1, 10 / 12])
        scaled = net(ids).logits
        net.save_pretrained(tmp_path / "folded", state_dict=warmup.folded_state_dict())
    assert not torch.allclose(bare, scaled, atol=1e-4)
    torch.testing.assert_close(load(tmp_path / "folded")(ids).logits, scaled)

    assert restore(load(tmp_path / "checkpoint-15"), tmp_path / "checkpoint-15") is None
    with pytest.raises(ValueError, match=r"folder='.*nowhere' is not valid"):
        restore(net, tmp_path / "nowhere")


def test_the_best_model_gets_the_alpha_it_was_saved_with(tmp_path: Path) -> None:
    settings = {
        "save_strategy": "steps",
        "save_steps": 4,
        "eval_strategy": "steps",
        "eval_steps": 4,
    }
    run = trainer(
        tmp_path,
        ResidualWarmup(SCHEDULE),
        steps=16,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,  # so that the best is the first, at step 4
        **settings,
    )
    with pytest.warns(UserWarning, match="ended at step 4, before every layer was awake"):
        run.train()
    evaluations = [row["eval_loss"] for row in run.state.log_history if "eval_loss" in row]
    assert len(set(evaluations)) == 4
    assert run.evaluate()["eval_loss"] == evaluations[0]


def test_training_twice_goes_on_and_attaches_once(tmp_path: Path) -> None:
    callback = ResidualWarmup(SCHEDULE)
    seen = Seen(callback)
    run = trainer(tmp_path, callback, seen, steps=5)
    with pytest.warns(UserWarning, match="awake"):
        run.train()
    first = callback.warmup
    with pytest.warns(UserWarning, match="awake"):
        run.train()
    assert callback.warmup is first
    assert seen.alphas == pytest.approx([t / 12 for t in range(10)])
    # The same callback and model in another Trainer, with an optimizer of its own.
    trainer(tmp_path, callback, seen, steps=5, net=run.model).train()
    assert seen.alphas == pytest.approx([min(t / 12, 1) for t in range(15)])


def test_every_new_model_is_attached_to(tmp_path: Path) -> None:
    """With model_init each train() begins with a new model."""
    callback = ResidualWarmup(gu.depth.linear(T=1))
    seen = Seen(callback)
    args = trainer(tmp_path, steps=4).args
    run = transformers.Trainer(
        model_init=model, args=args, train_dataset=Rows(), callbacks=[callback, seen]
    )
    run.train()
    run.train()
    assert seen.alphas == pytest.approx([0, 1 / 3, 2 / 3, 1] * 2)


class NotTorch:
    """Stands for DeepSpeed's: has groups and a step, but is no torch.optim.Optimizer."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = self
        self.inner = optimizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_without_an_optimizer_of_torch_the_trainers_step_counts(tmp_path: Path) -> None:
    class Foreign(ResidualWarmup):
        def on_train_begin(self, *args: Any, optimizer: Any = None, **kwargs: Any) -> None:
            super().on_train_begin(*args, optimizer=NotTorch(optimizer.optimizer), **kwargs)

    callback = Foreign(SCHEDULE)
    seen = Seen(callback)
    run = trainer(tmp_path, callback, seen, steps=5, save_strategy="steps", save_steps=4)
    with pytest.warns(UserWarning, match="ended at step 5"):
        run.train()
    assert seen.alphas == pytest.approx([t / 12 for t in range(5)])
    for again in Foreign(SCHEDULE), callback:  # in a new process; in the same one
        seen = Seen(again)
        with pytest.warns(UserWarning, match="ended at step 6"):
            trainer(
                tmp_path, again, seen, steps=6, net=run.model if again is callback else None
            ).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert seen.alphas == pytest.approx([4 / 12, 5 / 12])


def test_mixed_precision(tmp_path: Path) -> None:
    callback = ResidualWarmup(SCHEDULE)
    seen = Seen(callback)
    trainer(tmp_path, callback, seen, steps=13, bf16=True).train()
    assert seen.alphas == pytest.approx([t / 12 for t in range(13)])


@pytest.fixture
def _fresh_dynamo() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


COMPILE = {"torch_compile": True, "torch_compile_backend": "eager"}


@pytest.mark.usefixtures("_fresh_dynamo")
def test_compiled(tmp_path: Path) -> None:
    eager = trainer(tmp_path, ResidualWarmup(SCHEDULE), steps=14)
    eager.train()
    compiled = trainer(tmp_path, ResidualWarmup(SCHEDULE), steps=14, **COMPILE)
    with warnings.catch_warnings(action="error", category=UserWarning):
        compiled.train()
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("_fresh_dynamo")
def test_compiled_the_row_proves_that_branches_are_scaled(tmp_path: Path) -> None:
    net = model()
    for layer in net.model.layers:
        layer.unused = torch.nn.Linear(16, 16)
    callback = ResidualWarmup(SCHEDULE, branches=["model.layers.{l}.unused"])
    with pytest.raises(gu.residual.BranchError, match=r"layers.0.unused ran 0 times"):
        trainer(tmp_path, callback, steps=2, net=net, **COMPILE).train()


def test_activation_checkpointing(tmp_path: Path) -> None:
    run = trainer(tmp_path, ResidualWarmup(SCHEDULE), steps=13, gradient_checkpointing=True)
    run.train()
    assert losses(run) == by_hand(13)


@pytest.mark.usefixtures("_fresh_dynamo")
def test_compiled_activation_checkpointing_is_one_graph(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"gradient_checkpointing": True} | COMPILE
    run = trainer(tmp_path, ResidualWarmup(SCHEDULE), steps=13, **settings)
    run.train()
    assert losses(run) == pytest.approx(by_hand(13), rel=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("schedule", [1000, "linear", gu.factor])
def test_bad_schedules(schedule: Any) -> None:
    with pytest.raises(ValueError, match="schedule=.* is not valid: give one of groundup.depth"):
        ResidualWarmup(schedule)


def test_a_misspelt_option_is_an_error_at_once() -> None:
    with pytest.raises(TypeError, match="branch"):
        ResidualWarmup(branch=["x"])
