"""Integrations are optional: nothing imports them, and groundup without them imports no trainer."""

import subprocess
import sys
from pathlib import Path

import groundup

LIBRARIES = ("transformers", "accelerate", "lightning", "pytorch_lightning", "torchtitan", "timm")


def test_groundup_imports_none_of_their_libraries() -> None:
    code = (
        "import sys, groundup; groundup.attach, groundup.model, groundup.residual; "
        f"print(*({{*{LIBRARIES!r}}} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_nothing_else_imports_integrations() -> None:
    source = Path(groundup.__file__).parent
    outside = [path for path in source.rglob("*.py") if "integrations" not in path.parts]
    assert outside
    assert not [path for path in outside if "groundup.integrations" in path.read_text()]
