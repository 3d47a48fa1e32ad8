"""The command line: it parses arguments and prints; what it prints comes from the modules beside it.

Exit status: 0 done and well; 1 the answer is bad (diverged, wrong gradient, optimizers that
differ); 2 the input or the usage is at fault, with one line on standard error.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from typing import cast

import typer

from torchgd.errors import InputError
from torchgd.interruption import Stopped

app = typer.Typer(
    name="torchgd",
    help="A laboratory for gradient descent: is it right, will it converge, what did it do?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The base of all usage errors, by way of a public name: click's own, or that of typer's copy of click.
_ClickException = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])

# The modules of this package that add commands to `app`, in the order of --help.
COMMANDS = ("lesson", "train", "stability", "sweep", "check", "compare", "bridge", "experiment", "board")
for _command in COMMANDS:
    importlib.import_module(f"torchgd.cli.{_command}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (see the module's docstring)."""
    try:
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
    except BrokenPipeError:  # `torchgd … | head`
        sys.stderr.close()
        return 0
    return status if isinstance(status, int) else 0


def _fail(message: str) -> int:
    if message:  # it is empty where the help was printed instead
        print("torchgd: " + " ".join(message.split()), file=sys.stderr)
    return 2
