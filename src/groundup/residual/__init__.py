"""Residual warmup: writes α(l, step) into a model's residual branches."""

from groundup.residual.attach import attach
from groundup.residual.branches import Branch, find_branches
from groundup.residual.copies import remove_scaling
from groundup.residual.proof import BranchError
from groundup.residual.warmup import Warmup

__all__ = ["Branch", "BranchError", "Warmup", "attach", "find_branches", "remove_scaling"]
