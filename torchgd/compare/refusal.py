"""An exception of anyone's code: its words, and whether it was raised on purpose."""

from __future__ import annotations

import dis
import re


def words_of(error: Exception) -> str:
    """An exception in one line of at most two hundred letters."""
    plain = re.sub("\x1b\\[[0-9;]*m", "", str(error))  # without colours
    return f"{type(error).__name__}: {' '.join(plain.split())[:200]}"


def deliberate(error: Exception) -> bool:
    """Whether a `raise` statement spoke, and not an operation that failed."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"
