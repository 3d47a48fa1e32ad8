"""The command line: it parses arguments and prints; what it prints comes from the modules beside it.

Exit status: 0 done and well; 1 the answer is bad (diverged, wrong gradient, optimizers that
differ); 2 the input or the usage is at fault, with one line on standard error; 70 torchgd is at fault,
with one line that says where the traceback is.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, cast

import typer

from torchgd.cli import streams
from torchgd.errors import InputError
from torchgd.interruption import Stopped

app = typer.Typer(
    name="torchgd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The base of all usage errors, by way of a public name: click's own, or that of typer's copy of click.
_ClickException = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])


def _version(asked: bool) -> None:
    if asked:
        print(f"torchgd {version('torchgd')}")
        raise typer.Exit


@app.callback()
def _options(
    of: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """A laboratory for gradient descent: is it right, will it converge, what did it do?"""


FAULT = 70  # EX_SOFTWARE of sysexits.h

# The modules of this package that add commands to `app`, in the order of --help.
COMMANDS = (
    "lesson",
    "train",
    "stability",
    "sweep",
    "check",
    "compare",
    "bridge",
    "experiment",
    "board",
    "runs",
)
for _command in COMMANDS:
    importlib.import_module(f"torchgd.cli.{_command}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (see the module's docstring)."""
    with streams.guarded() as output:
        status = _status(arguments)
        output.flush()
        failure = output.failure
        if failure is None or isinstance(failure, BrokenPipeError):  # `torchgd … | head`
            return status
        return _fail(f"standard output cannot be written ({failure.strerror}); send it to another place")


def _status(arguments: Sequence[str] | None) -> int:
    try:
        _refuse_two_columns(sys.argv[1:] if arguments is None else arguments)
        status = app(args=arguments, standalone_mode=False, prog_name="torchgd")
    except InputError as error:
        return _fail(str(error))
    except _ClickException as error:
        return _fail(re.sub(r"^Invalid value for '(\S+)'( / '\S+')*: ", r"\1 ", error.format_message()))
    except (KeyboardInterrupt, typer.Abort):
        print("torchgd: interrupted", file=sys.stderr)
        return 130
    except Stopped as stopped:
        print(f"torchgd: {stopped}", file=sys.stderr)
        return stopped.status
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        return _fail(f"{what}{error.strerror or error}; check the disk and the rights to the folder")
    except MemoryError:
        return _fail("there is not enough memory; give fewer samples or epochs")
    except Exception as error:
        return _fault(error)
    return status if isinstance(status, int) else 0


def _refuse_two_columns(words: Sequence[str]) -> None:
    """Of an option that stands twice the last counts, as everywhere; no column of data may get lost."""
    for option in ("--x", "--y"):
        given = sum(word == option or word.startswith(f"{option}=") for word in words)
        if given > 1:
            raise InputError(f"{option} is given {given} times; give it once")


def _fault(error: Exception) -> int:
    """One line about an exception that nobody expected; the traceback goes into a file."""
    handle, path = tempfile.mkstemp(prefix="torchgd-", suffix=".txt")
    text = f"torchgd {version('torchgd')}, Python {sys.version}\n{sys.argv}\n\n"
    os.write(handle, (text + "".join(traceback.format_exception(error))).encode(errors="backslashreplace"))
    os.close(handle)
    what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    mend = f"send {path} to the developers of torchgd, it holds the command and the traceback"
    print(f"torchgd: this is an error in torchgd itself ({what}); please {mend}", file=sys.stderr)
    return FAULT


def _fail(message: str) -> int:
    if message:  # it is empty where the help was printed instead
        print("torchgd: " + " ".join(message.split()), file=sys.stderr)
    return 2
