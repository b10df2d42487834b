"""Printing: answers to standard output, everything about them to standard error."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import typer

from fleetd.cli.text import as_json, safe

STYLES: Final = {
    "online": "green",
    "late": "yellow",
    "offline": "red",
    "asleep": "cyan",
    "frozen": "red",
    "new": "cyan",
    "running": "cyan",
    "paused": "yellow",
    "halted": "red",
    "completed": "green",
    "cancelled": "yellow",
    "confirmed": "green",
    "reverted": "red",
    "failed": "red",
    "rejected": "red",
    "timed_out": "red",
    "lost": "red",
    "fits": "green",
    "warning": "yellow",
    "refused": "red",
    "critical": "red",
    "open": "red",
    "closed": "green",
    "done": "green",
    "expired": "red",
}


class Output:
    """Where a command's answers go."""

    def say(self, text: str) -> None:
        """A line of the answer. Parts that came from elsewhere must have gone through `safe`."""
        typer.echo(text)

    def warn(self, text: str) -> None:
        """A line beside the answer."""
        typer.echo(text, err=True)

    def json(self, data: Any) -> None:
        """The answer for programs."""
        typer.echo(as_json(data))

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
        """Rows under headings; `empty` says what it means that there are none. Cells are made safe here."""
        cells = [[("-" if cell is None else safe(cell)) for cell in row] for row in rows]
        if not cells:
            self.warn(empty)
        elif sys.stdout.isatty():
            self._rich_table(headings, cells)
        else:
            self._plain_table(headings, cells)

    def facts(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Names and values, one a line."""
        shown = [(name, "-" if value is None else safe(value)) for name, value in pairs]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            typer.echo(f"{name.ljust(width)}  {value}")

    @staticmethod
    def _plain_table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        """Columns by spaces, never cut: made for grep and awk."""
        rows = [[heading.upper() for heading in headings], *cells]
        widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
        for row in rows:
            typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    @staticmethod
    def _rich_table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        from rich.console import Console  # noqa: PLC0415  # only a terminal needs it
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell, STYLES.get(cell, "")) for cell in row))
        Console(highlight=False).print(table)
