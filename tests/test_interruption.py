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


def raised(number: int, times: int, *, asked: bool) -> int:
    """A run at which a signal arrives, and which asks about it or does not; 1, as it has not been stopped."""
    with stoppable(place) as check:
        check()
        for _ in range(times):
            signal.raise_signal(number)
        if asked:
            check()
            return 0
    return 1


@pytest.mark.parametrize("asked", [True, False], ids=["asked about", "seen at the end"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_until_it_is_asked_about(number: int, status: int, asked: bool) -> None:
    with pytest.raises(Stopped, match="epoch 7") as stopped:
        raised(number, 1, asked=asked)
    assert stopped.value.status == status
    assert not isinstance(stopped.value, Exception)


def test_without_a_signal_nothing_is_raised() -> None:
    assert raised(signal.SIGINT, 0, asked=False) == 1


def test_the_second_signal_does_what_it_did_before() -> None:
    with pytest.raises(KeyboardInterrupt):
        raised(signal.SIGINT, 2, asked=False)


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
