"""What a recipe says of rate and optimizer: the factors that come of it, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from groundup.data import TokenFile, prepare
from groundup.train import (
    OptimizerConfig,
    RateConfig,
    Recipe,
    ResidualConfig,
    recipe_file,
    setup,
    train,
)
from groundup.train.world import ALONE
from tests.train.runs import changed, forget_the_end, metrics


def rates(steps: int = 100, beta2: float = 0.95, **settings: object) -> list[float]:
    config = RateConfig(**settings)  # type: ignore[arg-type]
    factor = config.factor(beta2).resolve(steps, tokens_per_step=1000)
    return [factor(step) for step in range(steps)]


def test_warmups_by_their_closed_forms() -> None:
    W, n = 20, range(1, 101)
    assert rates(warmup=W, decay=0) == pytest.approx([min(1, i / W) for i in n])
    assert rates(warmup=W, decay=0, initial=0.2) == pytest.approx(
        [0.2 + 0.8 * min(1, i / W) for i in n]
    )
    assert rates(warmup=W, decay=0, start="zero") == pytest.approx([min(1, (i - 1) / W) for i in n])
    assert rates(warmup=W, decay=0, warmup_shape="cosine") == pytest.approx(
        [(1 - math.cos(math.pi * min(1, i / W))) / 2 for i in n]
    )
    assert rates(warmup=W, decay=0, warmup_shape="constant", initial=0.1) == pytest.approx(
        [0.1 if i <= W else 1.0 for i in n]
    )
    assert rates(warmup=W, decay=0, warmup_shape="exponential") == pytest.approx(
        [1 - math.exp(-i / W) for i in n]
    )


def test_untuned_lengths_come_from_beta2() -> None:
    n = range(1, 101)
    assert rates(warmup="untuned", decay=0) == pytest.approx([min(1, i / 40) for i in n])
    assert rates(warmup="untuned", decay=0, warmup_shape="exponential") == pytest.approx(
        [1 - math.exp(-0.05 * i) for i in n]
    )
    found = rates(warmup="untuned", decay=0, warmup_shape="radam")
    assert 0 < found[0] < found[50] < found[99] < 1


def test_lengths_as_text() -> None:
    assert rates(warmup="20k tokens", decay=0) == rates(warmup=20, decay=0)
    assert rates(warmup="20 steps", decay="30%") == rates(warmup=20, decay=0.3)


def test_decays_follow() -> None:
    found = rates(warmup=10, decay="rest", shape="inverse-sqrt")
    assert found == pytest.approx([min(n / 10, math.sqrt(10 / n)) for n in range(1, 101)])
    found = rates(warmup=0, decay="rest", shape="exponential", floor=0.01)
    assert found == pytest.approx([0.01 ** (k / 100) for k in range(100)])
    # A warmup that never ends goes on until the decay begins, which starts from its level.
    found = rates(warmup=10, decay=20, warmup_shape="exponential")
    level = 1 - math.exp(-8.0)
    assert found[80:] == pytest.approx([level * (1 - k / 20) for k in range(20)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_shape": "radam"}, "warmup=0.02 would be ignored"),
        ({"warmup_shape": "constant"}, "initial=0.0 is not valid"),
        ({"warmup_shape": "exponential", "initial": 0.1}, "initial=0.1 would be ignored"),
        ({"shape": "inverse-sqrt", "floor": 0.1}, "floor=0.1 would be ignored"),
        ({"shape": "inverse-sqrt", "warmup": 0}, "takes its timescale from warmup"),
        ({"shape": "exponential"}, "floor=0.0 is not valid for an exponential decay"),
        ({"warmup": "3 parsecs"}, "warmup='3 parsecs' is not valid"),
    ],
)
def test_settings_that_would_be_ignored_or_mean_nothing(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RateConfig(**settings)


def test_untuned_needs_a_second_moment(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match="'untuned' needs β₂"):
        replace(
            recipe,
            optimizer=OptimizerConfig("lion"),
            rate=RateConfig(warmup="untuned", decay=4),
        )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "adamv"}, "optimizer='adamv' is unknown.*valid are adamw"),
        ({"options": {"nesterof": True}}, "adamw: option='nesterof' is unknown"),
        ({"name": "liona", "betas": (0.9, 0.99)}, "option='betas'"),
        ({"name": "lionar", "weight_decay": 0.0}, "weight_decay"),
        ({"betas": (0.9, 1.0)}, "betas="),
        ({"options": {"lr": 1e-3}}, "'lr': 0.001} is not valid: say rate.peak"),
        ({"options": {"fused": True, "foreach": True}}, "adamw: .*fused.*foreach"),
        ({"name": "torch:LBFGS"}, "torch:LBFGS"),
        ({"name": "torch:SparseAdam"}, "an update fails with"),
    ],
)
def test_optimizers_are_checked_before_there_is_a_model(config: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**config)


def test_layers_warm_up_their_rates_in_turn(recipe: Recipe, tmp_path: Path) -> None:
    """With α = 1 throughout and T·l updates for layer l's rate: at step 0 layer l moves by η/(T·l)
    (Adam's first update is η·sign(g)), embeddings and head by η."""
    recipe = replace(
        recipe,
        residual=ResidualConfig(),
        model=replace(recipe.model, vocab_size=300),
        optimizer=OptimizerConfig(weight_decay=0.0, clip=0.0),
        rate=RateConfig(peak=1e-3, warmup=0, decay=0, layers=ResidualConfig("linear", T=4)),
    )
    model, _ = setup.build_model(recipe, ALONE, torch.device("cpu"))
    optimizer = setup.build_optimizer(model, recipe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    setup.build_rates(optimizer, recipe).at(0)
    tokens = TokenFile.open(prepare(recipe.data).train).tokens
    rows = torch.from_numpy(tokens[:136].astype("int64")).view(8, 17)
    model(rows[:, :-1], rows[:, 1:]).total.backward()
    optimizer.step()
    for name, p in model.named_parameters():
        layer = int(name.split(".")[1]) + 1 if name.startswith("layers.") else None
        expected = 1e-3 if layer is None else 1e-3 / (4 * layer)
        assert (p - before[name]).abs().max().item() == pytest.approx(expected, rel=2e-2), name


def test_weight_decay_modes_reach_the_optimizer(recipe: Recipe) -> None:
    for mode, expected in (("coupled", 0.1), ("independent", 0.2), ("squared", 0.05)):
        changed_recipe = replace(
            recipe,
            model=replace(recipe.model, vocab_size=300),
            rate=RateConfig(peak=1e-3, warmup=2, decay=0, weight_decay=mode),
        )
        model, _ = setup.build_model(changed_recipe, ALONE, torch.device("cpu"))
        optimizer = setup.build_optimizer(model, changed_recipe)
        setup.build_rates(optimizer, changed_recipe).at(0)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)
        assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(expected)


class TestAnotherRate:
    """`groundup train --change-rate`: a run goes on with another rate, without a jump."""

    def test_it_is_refused_unless_it_is_wanted(self, recipe: Recipe, tmp_path: Path) -> None:
        train(recipe, tmp_path)
        other = replace(recipe, rate=replace(recipe.rate, peak=6e-3))
        with pytest.raises(ValueError, match=r"rate.peak: 0.003 there, 0.006 now.*--change-rate"):
            train(other, tmp_path)
        with pytest.raises(ValueError, match=r"optimizer.clip.*remove it$"):
            train(replace(other, optimizer=OptimizerConfig(clip=0.5)), tmp_path, change_rate=True)

    def test_a_longer_run_goes_on_without_a_jump_and_exactly(
        self, recipe: Recipe, tmp_path: Path
    ) -> None:
        train(recipe, tmp_path / "a")
        before = metrics(tmp_path / "a")
        longer = changed(replace(recipe, rate=replace(recipe.rate, peak=6e-3)), steps=60)
        train(longer, tmp_path / "a", change_rate=True)
        lines = metrics(tmp_path / "a")
        assert lines[:12] == before
        assert len(lines) == 60
        # What the old schedule, which had ended at 0, would have given; then a straight line over
        # 2 updates (the new warmup's length) to the new one's peak.
        assert [line["rate"] for line in lines[12:16]] == pytest.approx([0, 3e-3, 6e-3, 6e-3])
        kept = recipe_file.read(tmp_path / "a" / "recipe.toml").recipe
        assert (kept.rate, kept.train) == (longer.rate, longer.train)
        # Stopped after the change and started again, it does the same.
        again = tmp_path / "a"
        text = (again / "metrics.jsonl").read_bytes()
        forget_the_end(again)
        train(longer, again)
        assert (again / "metrics.jsonl").read_bytes() == text


RESUMED = {
    "adamw, inverse": OptimizerConfig(options={"bias_correction": "inverse"}),
    "lionar, rrc": OptimizerConfig("lionar", options={"nesterov": True}, rrc=True),
    "liona": OptimizerConfig("liona", options={"bias_correction": "inverse-sqrt"}),
    "rotational-adamw": OptimizerConfig("rotational-adamw"),
    "adamw, rrc": OptimizerConfig(rrc=True),
    "schedule-free": OptimizerConfig("schedule-free-adamw"),
    "nero": OptimizerConfig("nero"),
    "stable-adamw": OptimizerConfig("stable-adamw"),
    "muon": OptimizerConfig("muon"),
    "radam": OptimizerConfig("radam"),
}


@pytest.mark.parametrize("name", RESUMED)
def test_every_optimizer_resumes_exactly(recipe: Recipe, tmp_path: Path, name: str) -> None:
    run = replace(recipe, optimizer=RESUMED[name])
    train(run, tmp_path)
    text = (tmp_path / "metrics.jsonl").read_bytes()
    forget_the_end(tmp_path)
    train(run, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == text
    assert len({line["loss"] for line in metrics(tmp_path)}) == recipe.train.steps


def test_a_checkpoint_of_an_older_version_is_named(recipe: Recipe, tmp_path: Path) -> None:
    train(recipe, tmp_path)
    forget_the_end(tmp_path)
    path = max((tmp_path / "checkpoints").glob("step-*")) / "state.json"
    state = json.loads(path.read_text())
    del state["optimizer"], state["format"]
    path.write_text(json.dumps(state))
    (path.parent / "manifest.json").unlink()  # it had none then
    with pytest.raises(ValueError, match="step-00000008 cannot be read.*older groundup"):
        train(recipe, tmp_path)
