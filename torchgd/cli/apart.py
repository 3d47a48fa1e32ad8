"""The user's code in a process of its own: whatever it does there, torchgd answers for itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from torchgd.errors import InputError


def run_apart(work: Callable[..., Any], *arguments: Any, name: str, seconds: float | None = None) -> Any:
    """What ``work(*arguments)`` returns there; what it prints goes to standard error.

    Raises:
        InputError: that of work; or the process has ended without an answer, or was ended after ``seconds``,
            together with all processes that it had started.
    """
    # a fork costs nothing; where there is none, or it is unsafe, torch is imported once more
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, work, *arguments))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():  # threads of torch do not matter: the child has its own, see below
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    sender.close()
    try:
        receiver.recv()  # it is ready
        if not receiver.poll(seconds):
            raise InputError(
                f"{name} has not returned within {seconds:g} s; look for a loop without end in it"
            )
        kind, answer = receiver.recv()
    except EOFError:
        process.join()
        how = f"exit status {process.exitcode}" if process.exitcode >= 0 else f"signal {-process.exitcode}"
        raise InputError(
            f"{name} has ended its process with {how} and no answer; take os._exit and the like out of it"
        ) from None
    finally:
        _end(process)
    if kind == "input":
        raise InputError(answer)
    if kind == "fault":
        raise RuntimeError(answer)
    return answer


def _end(process: BaseProcess) -> None:
    """End it, and the processes of its group."""
    with suppress(OSError, AttributeError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()
    process.join()


def _work(sender: Connection, work: Callable[..., Any], *arguments: Any) -> None:
    with suppress(OSError, AttributeError):
        os.setpgid(0, 0)
    with suppress(OSError):
        os.dup2(2, 1)  # what is written past sys.stdout
    import torch

    torch.set_num_threads(1)  # threads do not survive a fork
    sender.send("ready")
    try:
        with redirect_stdout(sys.stderr):
            answer = work(*arguments)
        sender.send(("answer", answer))
    except InputError as error:
        sender.send(("input", str(error)))
    except Exception as error:
        sender.send(("fault", "".join(traceback.format_exception(error))))
