from tests.train.poisoned import poisoned, undisturbed  # noqa: F401
