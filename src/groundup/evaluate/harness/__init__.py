"""The tasks of the LM Evaluation Harness (lm-eval), on any model and, if wished, without a network.

Prompts, metrics and versions are lm-eval's own; the model is ours, through `Scorer`, and the rows
may come from files.
"""

from __future__ import annotations

from groundup.evaluate.harness.running import Prepared, evaluate, prepare
from groundup.evaluate.harness.tasks import check

__all__ = ["Prepared", "check", "evaluate", "prepare"]
