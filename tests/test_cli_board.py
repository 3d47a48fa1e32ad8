"""``torchgd board``: a TensorBoard for this machine only, which ends on Ctrl-C; errors are one line."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from torchgd.cli import main


@contextmanager
def board(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running board, and the address that it prints."""
    command = [sys.executable, "-m", "torchgd", "board", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.match(r"(http://127\.0\.0\.1:\d+/)\?smoothing=0#timeseries", line)
            assert address, line + process.communicate(timeout=60)[1]
            yield process, address[1]
        finally:
            process.kill()


def test_it_serves_on_loopback_only_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    with board("--logdir", str(tmp_path), "--port", "0") as (process, address):
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"<title>TensorBoard</title>" in answer.read()
        port = int(address.split(":")[2].strip("/"))
        if sys.platform == "linux":  # where all of 127.0.0.0/8 is this machine
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), timeout=10)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer:DeprecationWarning")  # within tensorboard
def test_an_occupied_port_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["board", "--logdir", str(tmp_path), "--port", str(port)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(rf"torchgd: port {port}: .*already in use.*; give another --port.*\n", captured.err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--logdir", "nowhere"], "nowhere: no such folder; begin with torchgd lesson"),
        (["--logdir", "file"], "file: no such folder"),
        (["--port", "65536"], "--port 65536: give a whole number, 0 to 65535"),
        (["--port", "http"], "--port http: give a whole number"),
    ],
)
def test_errors(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["board", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1
