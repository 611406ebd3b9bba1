import subprocess
import sys

import pytest

import groundup as gu


def test_suggestion_is_a_fifth_of_the_run() -> None:
    suggestion = gu.suggest(depth=24, steps=100_000)
    assert round(0.2 * 100_000 / 24) == suggestion.T
    assert "Table 6" in suggestion.reason


def test_suggestion_warns_where_the_warmup_runs_into_the_decay() -> None:
    with pytest.warns(UserWarning, match="the rate decays from step 90"):
        gu.suggest(depth=120, steps=100)


def test_schedules_and_the_package_import_without_torch() -> None:
    code = "import groundup, groundup.schedules, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
