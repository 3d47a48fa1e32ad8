"""Threads in which a PyTorch operation uses no others: each works on a block of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class Workers:
    """Does work in as many threads as PyTorch uses, and gives the results in order to whoever takes them.

    PyTorch's own threads meet after every operation. That costs more than a small operation, and where
    other programs keep the processors busy, each meeting waits until the last thread has its turn.

    Args:
        parallel: False does the work at once, in the caller's thread.
    """

    def __init__(self, *, parallel: bool) -> None:
        self._pending: deque[tuple[Future[Any], Callable[[Any], None]]] = deque()
        self._pool = _single_threaded(torch.get_num_threads()) if parallel else None

    def do(self, work: Callable[[], Any], take: Callable[[Any], None]) -> None:
        """Do the work, now or soon; ``take`` gets its result here, at the latest in :meth:`settle`."""
        if self._pool is None:
            take(work())
        else:
            self._pending.append((self._pool.submit(work), take))

    def settle(self) -> None:
        """Wait for all work to be done and taken."""
        while self._pending:
            future, take = self._pending.popleft()
            take(future.result())

    def close(self) -> None:
        """End the threads; work not begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _single_threaded(count: int) -> ThreadPoolExecutor:
    """So many threads, in each of which PyTorch's number of threads is one."""
    started = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # a thread's first call sets it to the common number
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, initializer=start)
    for _ in range(count):
        pool.submit(int)
    started.wait()
    torch.set_num_threads(count)  # the common number, for threads to come
    return pool
