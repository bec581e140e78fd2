"""What commands print: tables and cards for people, JSON for programs, progress beside both."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import click
import msgspec
from msgspec import Raw
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from scheduler.cli import plain
from scheduler.cli.failures import Usage

Output = click.option(
    "-o",
    "--output",
    type=click.Choice(["pretty", "json"]),
    default="pretty",
    help="For people, or what the API answers and nothing else.",
)
PIPE_WIDTH = 1_000_000
"""Of a table that no terminal shows: each row is a line, and nothing is cut."""
ID_WIDTH = 36
STYLES = {
    "completed": "green",
    "succeeded": "green",
    "success": "green",
    "failed": "red",
    "running": "yellow",
    "retrying": "yellow",
    "started": "yellow",
    "expired": "magenta",
    "cancelled": "magenta",
    "skipped": "cyan",
    "pending": "blue",
    "scheduled": "blue",
}
"""Colours of states, on a terminal alone."""


def console(*, err: bool = False) -> Console:
    """Return where to print: as wide as the terminal, or as wide as it takes."""
    made = Console(markup=False, emoji=False, highlight=False, stderr=err)
    if not made.is_terminal:
        made.width = PIPE_WIDTH
    return made


def tolerant() -> None:
    """Print what the terminal's character set has not as an escape, rather than fail on it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


# Tables ------------------------------------------------------------------------------------------


class Listing:
    """A table that is printed page by page; a column keeps the width that it had before.

    `spare` names columns that a terminal too narrow for all goes without, the first one first.
    """

    def __init__(self, *headings: str, spare: Sequence[str] = ()) -> None:
        self.headings = headings
        self._spare = spare
        self._left: list[int] | None = None
        self._widths = [cell_len(heading) for heading in headings]
        self._console = console()
        self._begun = False

    def add(self, rows: Iterable[Sequence[str]]) -> None:
        """Print further rows; cells are made harmless here."""
        page = [[plain.word(cell) for cell in row] for row in rows]
        if not page and self._begun:
            return
        for row in page:
            self._widths = [max(w, cell_len(c)) for w, c in zip(self._widths, row, strict=True)]
        if self._console.is_terminal:
            self._draw(page)
        else:
            self._write(page)
        self._begun = True

    def _write(self, page: list[list[str]]) -> None:
        lines = page if self._begun else [list(self.headings), *page]
        for row in lines:
            cells = [c + " " * (w - cell_len(c)) for c, w in zip(row, self._widths, strict=True)]
            click.echo("  ".join(cells).rstrip())
        sys.stdout.flush()

    def _draw(self, page: list[list[str]]) -> None:
        if self._left is None:
            self._left = self._fitting()
        left = self._left
        table = Table(box=None, show_header=not self._begun, header_style="bold", pad_edge=False)
        fits = self._needs(left) <= self._console.width
        for place in left:
            # Pages stay in line where there is room; else cells are folded, an id last.
            width = self._widths[place]
            least = min(width, ID_WIDTH) if place == 0 else None
            wide = width if fits else None
            heading = self.headings[place]
            table.add_column(heading, overflow="fold", width=wide, min_width=least)
        for row in page:
            table.add_row(*(Text(row[place], STYLES.get(row[place], "")) for place in left))
        self._console.print(table)

    def _fitting(self) -> list[int]:
        """Return the columns to show, by what the first page holds."""
        left = list(range(len(self.headings)))
        for heading in self._spare:
            if self._needs(left) > self._console.width:
                left.remove(self.headings.index(heading))
        return left

    def _needs(self, columns: Sequence[int]) -> int:
        return sum(self._widths[place] + 2 for place in columns) - 2


def card(pairs: Iterable[tuple[str, str | None]]) -> None:
    """Print names and values below each other; without what has no value."""
    there = [(name, value) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in there), default=0)
    printed = console()
    for name, value in there:
        lines = plain.body(str(value)).rstrip("\n").split("\n")
        printed.print(Text(f"{name:<{width}}  ", "bold"), end="")
        printed.print(Text(lines[0], STYLES.get(lines[0], "")), soft_wrap=True)
        for line in lines[1:]:
            printed.print(Text(" " * (width + 2) + line), soft_wrap=True)


def say(sentence: str) -> None:
    """Print a sentence, made harmless."""
    click.echo(plain.body(sentence))


def ask(question: str) -> bool:
    """Ask on standard error. Raises Usage where nobody is there to answer."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise Usage("nobody answered, and nothing was done; --yes goes on unasked") from None


def note(sentence: str) -> None:
    """Say something beside what is printed, on standard error."""
    click.echo(f"scheduler: {plain.body(sentence)}", err=True)


def print_bytes(body: bytes) -> None:
    """Print bytes as they are; made harmless on a terminal."""
    if sys.stdout.isatty():
        click.echo(plain.body(body.decode(errors="replace")))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
    sys.stdout.buffer.flush()


# JSON --------------------------------------------------------------------------------------------


def print_json(value: bytes | Raw | object) -> None:
    """Print an answer of the API as it is, or a value."""
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    if raw:
        click.echo(plain.json(msgspec.json.format(raw).decode()))


def print_line(value: Raw) -> None:
    """Print an element of an answer on one line, at once."""
    click.echo(plain.json(msgspec.json.format(value, indent=-1).decode()))
    sys.stdout.flush()


class JsonArray:
    """An array that is printed element by element: `with JsonArray() as array: array.add(...)`."""

    def __enter__(self) -> Self:
        self._before = "["
        return self

    def add(self, elements: Iterable[Raw]) -> None:
        """Print further elements."""
        for each in elements:
            text = msgspec.json.format(each).decode().replace("\n", "\n  ")
            click.echo(f"{self._before}\n  {plain.json(text)}", nl=False)
            self._before = ","

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            click.echo("[]" if self._before == "[" else "\n]")


# Progress ----------------------------------------------------------------------------------------


class Bar:
    """A bar on standard error; `to` says how far it has come."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress, self._task = progress, task

    def to(self, done: float, of: float | None = None) -> None:
        """Move the bar; `of` where it has become known how much there is."""
        self._progress.update(self._task, completed=done, total=of)


@contextlib.contextmanager
def progress(what: str, total: float | None = None, *, quiet: bool = False) -> Iterator[Bar]:
    """Show how far something has come, on a terminal alone; it leaves nothing behind.

    A `total` of 0 is of what has no parts: the time it takes is shown.
    """
    shown = console(err=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns = columns if total != 0 else columns[:1]
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=shown,
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
        redirect_stdout=False,
        redirect_stderr=False,
    ) as drawn:
        yield Bar(drawn, drawn.add_task(what, total=total or None))


def counting(what: str) -> contextlib.AbstractContextManager[Bar]:
    """Show how much was written to a file or a pipe; what a terminal shows is seen anyway."""
    return progress(what, quiet=sys.stdout.isatty())


def utc_now() -> datetime:
    """Return this machine's time: only what is shown beside times hangs on it."""
    return datetime.now(UTC)
