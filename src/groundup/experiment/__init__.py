"""Many runs from one recipe."""

from groundup.experiment.compare import Planned, compare, plan

__all__ = ["Planned", "compare", "plan"]
