from __future__ import annotations

import ast
import dataclasses
import inspect
import subprocess
import sys
from itertools import pairwise

import pytest

from groundup.data import DataConfig
from groundup.data import config as module


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source", ""),
        ("source", None),
        ("source", "a\0b"),
        ("validation", ""),
        ("validation", "python"),
        ("validation_fraction", 0),
        ("validation_fraction", 1.0),
        ("validation_fraction", float("nan")),
        ("validation_fraction", "0.1"),
        ("validation_fraction", True),
        ("text_field", ""),
        ("tokenizer", ""),
        ("vocab_size", 256),
        ("vocab_size", 2048.0),
        ("vocab_size", True),
        ("deduplicate", 1),
        ("deduplicate", "yes"),
        ("length", 0),
        ("length", -1),
        ("documents", "parted"),
        ("documents", None),
        ("folder", ""),
    ],
)
def test_bad_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field) as error:
        DataConfig(**{field: value})
    assert repr(value) in str(error.value)


def test_settings_that_would_be_ignored_are_refused():
    with pytest.raises(ValueError, match="ignored"):
        DataConfig(validation="held.txt", validation_fraction=0.1)
    with pytest.raises(ValueError, match="ignored"):
        DataConfig(tokenizer="tokenizer.json", vocab_size=4096)


def test_every_field_has_a_docstring():
    body = ast.parse(inspect.getsource(module.DataConfig)).body[0].body
    after = dict(pairwise(body))
    documented = {
        node.target.id
        for node, following in after.items()
        if isinstance(node, ast.AnnAssign)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }
    assert documented == {field.name for field in dataclasses.fields(DataConfig)}


def test_importing_loads_nothing_heavy():
    code = (
        "import groundup.data, sys; "
        "heavy = ('torch', 'tokenizers', 'zstandard', 'rich', 'fsspec', 'pyarrow', 'datasets'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
