"""Many runs from one recipe."""

from groundup.experiment.compare import Planned, compare, folder_of, plan

__all__ = ["Planned", "compare", "folder_of", "plan"]
