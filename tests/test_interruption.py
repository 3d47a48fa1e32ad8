"""Signals are held back while a run goes, and only there."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from torchgd.interruption import Stopped, stoppable


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


def place() -> str:
    return "epoch 7"


def go(steps: list[str], number: int, times: int, *, ask: bool) -> None:
    """A run of two steps, after the first of which signals arrive, and which asks about them or does not."""
    with stoppable(place) as check:
        check()
        steps.append("first")
        for _ in range(times):
            signal.raise_signal(number)
        if ask:
            check()
        steps.append("second")


@pytest.mark.parametrize(("ask", "done"), [(True, ["first"]), (False, ["first", "second"])])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_until_it_is_asked_about_or_for_the_end(
    number: int, status: int, ask: bool, done: list[str]
) -> None:
    steps: list[str] = []
    with pytest.raises(Stopped, match="epoch 7") as stopped:
        go(steps, number, 1, ask=ask)
    assert (stopped.value.status, steps) == (status, done)
    assert not isinstance(stopped.value, Exception)


def test_without_a_signal_nothing_is_raised() -> None:
    steps: list[str] = []
    go(steps, signal.SIGINT, 0, ask=True)
    assert steps == ["first", "second"]


def test_the_second_signal_does_what_it_did_before() -> None:
    steps: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        go(steps, signal.SIGINT, 2, ask=False)
    assert steps == ["first"]


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        with stoppable(place) as check:
            signal.raise_signal(signal.SIGINT)
            check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_leaves_the_signals_alone() -> None:
    seen: list[object] = []

    def work() -> None:
        with stoppable(place) as check:
            seen.append(signal.getsignal(signal.SIGTERM))
            check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
