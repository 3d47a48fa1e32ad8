"""Writes a file whole or not at all, whatever happens in between."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` into the file, so that a reader sees the old content or the new one, never a mixture.

    A temporary file beside it is written, flushed to the disk, and renamed; its name is always the
    same, so that the next call removes what a killed process left.

    Raises:
        OSError: the disk is full, or the folder can't be written; the old content stands.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "answer.txt"
        >>> write_whole(file, b"2.0")
        >>> [entry.name for entry in file.parent.iterdir()], file.read_text()
        (['answer.txt'], '2.0')
    """
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)  # do not write through a link of this name
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name is on the disk only after the folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # network drives refuse it for folders
                os.fsync(folder)
        finally:
            os.close(folder)
