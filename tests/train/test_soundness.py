"""What is not finite is found, wherever it is, before it is saved."""

from __future__ import annotations

import pytest
import torch

from groundup.train.soundness import first_broken
from groundup.train.world import ALONE


@pytest.fixture
def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(5, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def test_a_sound_model_is_left_alone(trained) -> None:
    assert first_broken(*trained, ALONE) is None


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.weight", "1.bias"])
def test_one_number_in_a_weight(trained, name: str, value: float) -> None:
    model, optimizer = trained
    with torch.no_grad():
        model.get_parameter(name).view(-1)[-1] = value
    assert first_broken(model, optimizer, ALONE) == name


@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq"])
def test_one_number_in_the_state(trained, key: str) -> None:
    model, optimizer = trained
    optimizer.state[model[1].bias][key][0] = torch.nan
    assert first_broken(model, optimizer, ALONE) == f"1.bias ({key})"


def test_an_optimizer_may_keep_infinity(trained) -> None:
    model, optimizer = trained
    optimizer.state[model[1].bias]["largest"] = torch.tensor(torch.inf)
    assert first_broken(model, optimizer, ALONE) is None


def test_before_the_first_update() -> None:
    model = torch.nn.Linear(2, 2)
    assert first_broken(model, torch.optim.AdamW(model.parameters()), ALONE) is None


class Two:
    """Another process has found something."""

    def gather(self, value):
        return [value, "its own"]


def test_all_processes_say_the_same(trained) -> None:
    assert first_broken(*trained, Two()) == "its own"
