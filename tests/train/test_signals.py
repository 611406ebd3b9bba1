"""Requests to stop, and those who insist."""

from __future__ import annotations

import signal

import pytest

from groundup.train.signals import StopRequests


def test_a_second_sigterm_is_the_same_request() -> None:
    """A scheduler that signals all processes of a job, torchrun among them, sends two."""
    before = signal.getsignal(signal.SIGTERM)
    with StopRequests() as stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
            assert stop.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_sigint_insists(first: int) -> None:
    # What a shell starts in the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with StopRequests() as stop:
        signal.raise_signal(first)
        assert stop.received == first
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_the_first_request_stands() -> None:
    with StopRequests() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.received == signal.SIGINT
