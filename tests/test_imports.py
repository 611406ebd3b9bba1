"""What is not loaded before it is needed: start-up is paid in every process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from groundup.optim import registry, table
from groundup.train import OptimizerConfig

HEAVY = ("torch", "transformers", "matplotlib", "tokenizers", "lm_eval", "datasets")


def loaded(code: str) -> list[str]:
    """The heavy packages that a fresh interpreter has after `code`."""
    code += f"\nimport json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_help_wrong_flags_and_what_trains_nothing_need_no_torch() -> None:
    code = """
from groundup.commands import compare, data, report, schedule, sweep, train
for command, arguments in ((train, ["quickstart", "--nosuch"]), (compare, ["--help"])):
    try:
        command.main(arguments)
    except SystemExit:
        continue
    raise AssertionError(arguments)
schedule.main(["table", "quickstart"])
"""
    assert loaded(code) == []


def test_lazy_packages_have_what_they_say() -> None:
    code = """
import importlib
for package in ("model", "train", "optim", "optim.rate"):
    module = importlib.import_module(f"groundup.{package}")
    assert not set(module.__all__) - set(dir(module))
    first = {name: getattr(module, name) for name in module.__all__}
    for name, found in first.items():
        home = importlib.import_module(f"groundup.{package}.{module._HOMES[name]}")
        assert found is (home if module._HOMES[name] == name else getattr(home, name)), name
        # Every submodule is there by now: none has taken a name's place.
        assert getattr(module, name) is found, name
"""
    assert "torch" in loaded(code)


@pytest.mark.parametrize("name", sorted(table.names(installed=False)))
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_an_optimizer_that_is_not_tried_out_would_have_passed(
    name: str, weight_decay: float
) -> None:
    options = {"betas": (0.5, 0.9), "eps": 1e-6}
    known = {key: options[key] for key in options if table.surely_takes(name, [key])}
    if table.surely_takes(name, ["weight_decay", *known]):
        registry.check(name, weight_decay=weight_decay, **known)
    assert table.surely_takes("adamw", ["weight_decay", "betas", "eps"])


def test_all_others_are_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(registry, "check", lambda name, **_: tried.append(name))
    OptimizerConfig("adamw", betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    assert tried == []
    OptimizerConfig("adamw", options={"bias_correction": "inverse"})
    OptimizerConfig("lionar", weight_decay=0.1)
    OptimizerConfig("torch:Rprop", weight_decay=0.1)
    OptimizerConfig("adamw", betas=(0, 0.95))
    assert tried == ["adamw", "lionar", "torch:Rprop", "adamw"]
    with pytest.raises(ValueError, match="weight_decay=-1"):
        OptimizerConfig("adamw", weight_decay=-1)
