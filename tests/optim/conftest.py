"""Tiny tensors: a second thread only waits."""

from tests.one_thread import one_thread  # noqa: F401
