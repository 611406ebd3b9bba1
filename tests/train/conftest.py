"""Training runs of models this small are faster on one thread."""

from tests.one_thread import one_thread  # noqa: F401
from tests.train.poisoned import poisoned, undisturbed  # noqa: F401
