"""The docstrings of groundup.schedules: their examples run, their pictures are the curves."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re

import pytest

from groundup import schedules
from groundup.schedules import factor
from groundup.schedules.sketch import sketch

MODULES = sorted(
    f"groundup.schedules.{module.name}" for module in pkgutil.iter_modules(schedules.__path__)
)
PICTURE = re.compile(r"^``(.+)``( in a run of 100 updates)?::\n\n((?:    .*\n?)+)", re.MULTILINE)
# What makes no curve of its own.
WITHOUT = {"Blend", "Chain", "Factor", "Product", "Tokens", "blend", "by_name", "from_json",
           "scaled_peak", "untuned_length"}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module)
    assert result.failed == 0


def test_there_are_examples() -> None:
    modules = [importlib.import_module(name) for name in MODULES]
    found = sum(
        len(test.examples) for module in modules for test in doctest.DocTestFinder().find(module)
    )
    assert found >= 30


def pictures() -> list[tuple[str, str, int, list[str]]]:
    """(function, expression, length of the run, lines) of every picture in `factor`."""
    return [
        (name, m[1], 100 if m[2] else 1000, [line[4:] for line in m[3].splitlines()])
        for name in factor.__all__
        for m in PICTURE.finditer(inspect.getdoc(getattr(factor, name)) or "")
    ]


@pytest.mark.parametrize(
    ("expression", "steps", "picture"), [pytest.param(*row, id=name) for name, *row in pictures()]
)
def test_pictures(expression: str, steps: int, picture: list[str]) -> None:
    f = eval(expression, vars(factor))
    assert sketch([f(step, steps=steps) for step in range(steps)]).splitlines() == picture


def test_every_shape_has_a_picture_of_its_own() -> None:
    drawn = {name for name, *_ in pictures()}
    assert drawn == set(factor.__all__) - WITHOUT
    for name, expression, *_ in pictures():
        names = {node.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Name)}
        assert name in names
