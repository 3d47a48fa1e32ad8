"""A TensorBoard event file, which replaces the older ones in its folder in one step.

An event is written when it is added, by the thread that adds it: a full disk is therefore an error in
that thread, not in a background thread of a writer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter


class EventFile:
    """The one event file of a run.

    It is made under a name that TensorBoard does not read. :meth:`publish` gives it its name, which sorts
    after those of the older files, and empties those. It begins with a session start, so that a TensorBoard
    that has read an older file drops its points and shows one curve. Only the next publish removes an older
    file, because a running TensorBoard needs it to get from its end to the new file.

    Raises:
        OSError: the disk is full, or the folder can't be written; so do the methods.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / ".events.part"
        self._path.unlink(missing_ok=True)
        self._file = self._path.open("xb")
        self._records = RecordWriter(self._file)
        self._add(Event(file_version="brain.Event:2"))
        self._add(Event(session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, summary: Summary) -> None:
        """Write a summary at a step of its curve."""
        self._add(Event(step=step, summary=summary))

    def publish(self) -> None:
        """Show TensorBoard what has been written, instead of the older files of the folder."""
        older = sorted(self._folder.glob("events.out.tfevents.*"))
        times = [int(path.name.split(".")[3]) for path in older if path.name.split(".")[3].isdecimal()]
        now = max([int(time.time()), *(moment + 1 for moment in times)])
        self._file.close()
        self._path = self._path.replace(self._folder / f"events.out.tfevents.{now:010d}.torchgd")
        self._file = self._path.open("ab")  # reopened, because Windows cannot rename an open file
        self._records = RecordWriter(self._file)
        for path in older:
            if path.stat().st_size:
                os.truncate(path, 0)
            else:
                path.unlink()

    def flush(self) -> None:
        """Let a reader see all that was added."""
        self._file.flush()

    def sync(self) -> None:
        """Bring all that was added to the disk, as the checkpoint is."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close; once is enough."""
        self._file.close()

    @staticmethod
    def is_whole(folder: Path, last: bytes) -> bool:
        """Whether the folder has one event file that is not empty, whose last record holds these bytes."""
        files = [path for path in folder.glob("events.out.tfevents.*") if path.stat().st_size]
        content = files[0].read_bytes() if len(files) == 1 else b""
        begin = end = 0
        while end < len(content):
            # a record: its length in 8 bytes, their checksum in 4, the event, its checksum in 4
            begin, end = end, end + 16 + int.from_bytes(content[end : end + 8], "little")
        return end == len(content) > 0 and last in content[begin:end]

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
