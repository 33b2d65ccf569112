"""The one place that writes to the terminal.

Colours and live lines are for terminals; where ``NO_COLOR`` is set (https://no-color.org) and
where the output is no terminal there are plain lines, without any escape sequence.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from breakhis_search.settings import without_secrets

_WIDTH_OF_A_FILE = 132
_WIDTH_OF_A_SENTENCE = 36

READING = "reading what is kept"
"""What a command is at that looks at studies and models: libraries alone take some seconds."""


def _open(**options: Any) -> Console:
    console = Console(highlight=False, **options)
    if console.no_color:  # rich would go on to print bold and dim
        return Console(highlight=False, color_system=None, **options)
    return console


out = _open()
if not out.is_terminal:  # rich takes 80 columns there, which breaks tables and commands to copy
    out = _open(width=_WIDTH_OF_A_FILE)
err = _open(stderr=True, soft_wrap=True)


class Volume(Enum):
    """How much is said beside the answer."""

    QUIET = "quiet"
    NORMAL = "normal"
    VERBOSE = "verbose"


_state = {"volume": Volume.NORMAL}
_started = time.monotonic()


def volume() -> Volume:
    """Return how much is said."""
    return _state["volume"]


def set_volume(volume: Volume) -> None:
    """Say more or less from now on."""
    _state["volume"] = volume


def is_quiet() -> bool:
    """Tell whether nothing is said but errors and the answer."""
    return volume() is Volume.QUIET


def is_verbose() -> bool:
    """Tell whether everything is said."""
    return volume() is Volume.VERBOSE


def is_live() -> bool:
    """Tell whether a line may be drawn again and again."""
    return out.is_terminal and not out.no_color and not is_quiet()


def say(text: str) -> None:
    """Print a sentence of progress."""
    note(text, style="dim")


def note(text: str, *, style: str | None = None) -> None:
    """Print a line on what goes on, as it stands; with the time since the start if verbose."""
    if is_quiet():
        return
    at = f"[{time.monotonic() - _started:7.1f} s] " if is_verbose() else ""
    out.print(escape(at + without_secrets(text)), style=style, soft_wrap=True)


def detail(text: str) -> None:
    """Print a line that only ``--verbose`` shows."""
    if is_verbose():
        note(text, style="dim")


def print_log_line(source: str, text: str) -> None:
    """Print a line that another process wrote, without the colours it may have."""
    err.print(escape(f"{source}: {Text.from_ansi(text).plain}"), style="dim")


def tell(text: str) -> None:
    """Print a sentence of the answer as it stands: no line is broken, so all can be copied."""
    out.print(escape(without_secrets(text)), soft_wrap=True)


def print_demo_banner() -> None:
    """Say that what follows is the synthetic demo, on the screen of every command that shows it."""
    out.print(
        "[bold yellow]SYNTHETIC DEMO: drawn pictures. It shows the way and means nothing for"
        " tissue.[/]",
        soft_wrap=True,
    )


def warn(text: str) -> None:
    """Print a warning."""
    out.print(f"[yellow]warning:[/] {escape(without_secrets(text))}", soft_wrap=True)


@contextmanager
def progress_bar(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is, on a terminal only; the value is called with (done, in all)."""
    if quiet or not is_live():
        yield lambda *_: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def at_work(what: str) -> Iterator[None]:
    """Show what takes some seconds, on a terminal only, until it is done."""
    if not is_live():
        yield
        return
    with out.status(f"{escape(what)} …"):
        yield


def print_error(text: str) -> None:
    """Print one error."""
    err.print(f"[bold red]error:[/] {escape(without_secrets(text))}")


def print_problem(color: str, severity: str, path: str, detail: str, remedy: str) -> None:
    """Print one problem of the data: what, where, what to do."""
    out.print(
        f"[{color}]{severity}[/] {escape(path)}: {escape(detail)}; to do: {escape(remedy)}",
        soft_wrap=True,
    )


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, nothing else."""
    out.file.write(json.dumps(value, indent=2, default=str, allow_nan=False) + "\n")


def print_document(text: str) -> None:
    """Print Markdown as it is, to be read or piped into a file."""
    out.file.write(text + "\n")


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    right: Sequence[str] = (),
    notes: Sequence[str] = (),
    spare: Sequence[str] = (),
    wrapped: Sequence[str] = (),
) -> None:
    """Print a table; columns named in ``right`` are aligned to the right.

    Those in ``spare`` are left out, in this order, where the terminal has no room for all: words
    that are broken in the middle can't be read. Those in ``wrapped`` hold sentences, which may take
    several lines.
    """
    out.print(f"[bold]{escape(title)}[/]", soft_wrap=True)  # rich would wrap it to the columns
    cells = [[_text(cell) for cell in row] for row in rows]
    kept = _columns_with_room(columns, cells, spare, wrapped)
    left_out = [column for i, column in enumerate(columns) if i not in kept and column]
    if left_out:
        notes = [*notes, f"no room in this terminal for: {', '.join(left_out)}"]
    columns, rows = [columns[i] for i in kept], [[row[i] for i in kept] for row in cells]
    table = Table(
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # narrow: the widest table nearly fits 120 columns
        pad_edge=False,
    )
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    out.print(table)
    for note in notes:
        out.print(escape(note), soft_wrap=True)


def _columns_with_room(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    spare: Sequence[str],
    wrapped: Sequence[str] = (),
) -> list[int]:
    """Positions of the columns that fit beside each other, spare ones left out from the first on.

    >>> _columns_with_room(["a", "b"], [["x" * 500, "y"]], spare=["a"])
    [1]
    >>> _columns_with_room(["a", "b"], [["x", "y " * 500]], spare=["a"], wrapped=["b"])
    [0, 1]
    """
    widths = [max(len(name), *(len(row[i]) for row in cells), 0) for i, name in enumerate(columns)]
    for i, name in enumerate(columns):
        if name in wrapped:
            widths[i] = min(widths[i], _WIDTH_OF_A_SENTENCE)
    kept = list(range(len(columns)))
    for name in spare:
        if sum(widths[i] + 2 for i in kept) <= out.width:
            break
        kept = [i for i in kept if columns[i] != name]
    return kept


def _text(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN is the one value unequal to itself
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}"
    return str(value)


def print_finding(color: str, state: str, subject: str, detail: str) -> None:
    """Print one line of ``doctor``."""
    out.print(
        f"[{color}]{state:<6}[/] {escape(subject)}: {escape(without_secrets(detail))}",
        soft_wrap=True,
    )
