"""What the commands share in printing: tables, progress bars, JSON."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from textwrap import TextWrapper, wrap
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_bars: list[Any] = []  # the progress bar that may be on the terminal

SCHEMA = 1  # of the JSON that commands print: a field keeps its name and meaning as long as this stays


def say(text: str = "", *, to_stderr: bool = False, hang: int = 0) -> None:
    """Print text as it is: no markup, no colour; on a terminal wrapped between words, `hang` columns in."""
    for bar in _bars:
        bar.stop()  # and clear its line; the next count draws it again
    console = Console(stderr=to_stderr, highlight=False, markup=False, soft_wrap=True)
    if console.is_terminal:
        wrapper = TextWrapper(
            console.width, subsequent_indent=" " * hang, break_long_words=False, break_on_hyphens=False
        )
        text = "\n".join(wrapper.fill(line) for line in text.split("\n"))
    console.print(text)


def say_each(sentences: Sequence[str], *, to_stderr: bool) -> None:
    """Print sentences, a line each."""
    for sentence in sentences:
        say(sentence, to_stderr=to_stderr)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table: the first column to the left, the others (numbers) to the right.

    Where it is too wide for the terminal, the numbers' headings break between words.
    """
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 120  # a pipe has no width: do not fold what another program reads
    cells = list(zip(*rows, strict=True))
    widths = [max(map(len, [column, *below])) for column, below in zip(columns, cells, strict=True)]
    if sum(widths) + 3 * len(widths) > console.width:
        columns = [columns[0], *map(_broken, columns[1:], cells[1:])]
    grid = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        grid.add_column(column, justify="right" if index else "left", overflow="fold", no_wrap=index > 0)
    for row in rows:
        grid.add_row(*row)
    with console.capture() as printed:
        console.print(grid)
    lines = [line.rstrip() for line in printed.get().splitlines()]
    print("\n".join(line for line in lines if line), end="\n\n")


def _broken(heading: str, cells: Sequence[str]) -> str:
    """A heading in lines no longer than its longest word or cell."""
    return "\n".join(wrap(heading, max(map(len, [*heading.split(), *cells]))))


def facts(rows: dict[str, object]) -> None:
    """Print names with their values, a line each."""
    width = max(map(len, rows))
    for name, value in rows.items():
        shown = f"{value:.10g}" if isinstance(value, float) else value
        say(f"{name:<{width}}  {shown}", hang=width + 2)


def where_the_curves_are(logdir: Path) -> None:
    """Print the command that shows them."""
    option = "" if logdir == Path("runs") else f" --logdir {shlex.quote(str(logdir))}"
    say(f"To see the curves:  torchgd board{option}")


def new_name(wanted: str, folder: Path, *, to_stderr: bool) -> None:
    """Say where a run went whose name was taken."""
    if folder.name != wanted:
        said = f"{wanted} exists: this run is {folder.name} (--overwrite replaces the old one)"
        say(said, to_stderr=to_stderr)


def print_json(answer: dict[str, Any]) -> None:
    """Print exactly one JSON object; NaN and infinities become null, as JSON has none."""
    whole = {"schema": SCHEMA, **_finite(answer)}
    text = json.dumps(whole, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # escapes are exact in every encoding
        text = json.dumps(whole, allow_nan=False)
    print(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def silent(yes: bool) -> Iterator[None]:
    """Print nothing meanwhile, if so: of several processes one prints. Errors pass through."""
    if not yes:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, on a terminal only; yields a function that takes the count so far."""
    if not sys.stderr.isatty() or "JPY_PARENT_PID" in os.environ:  # a notebook garbles the bar
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=total)

    def show(done: int) -> None:
        bar.start()
        bar.update(task, completed=max(done, bar.tasks[task].completed))  # it never goes back

    _bars.append(bar)
    try:
        yield show
    finally:
        _bars.remove(bar)
        bar.stop()
