"""Figures as people write and read them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


STATE_STYLES = {"busy": "yellow", "ready": "green", "opening": "cyan", "suspended": "red"}


class Duration(click.ParamType[float]):
    """A time such as `500ms 30s 5m 2h 1d`, or a number of seconds; in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds; a usage error otherwise."""
        from broker.units import parse_duration

        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r} is not {error}", param, ctx)


def size(count: float | None) -> str:
    """Return a number of bytes in three digits or fewer: `12 KB`, `1.4 GB`."""
    if count is None:
        return "-"
    units = ["B", "KB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1024
        units.pop(0)
    unit = units[0]
    return f"{count:.1f} {unit}" if count < 10 and unit != "B" else f"{count:.0f} {unit}"


def age(seconds: float | None) -> str:
    """Return a time span by its two largest units: `4s`, `12m`, `3h 5m`, `2d 1h`."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    parts = [
        f"{count}{unit}"
        for unit, count in zip(
            "dhms",
            (whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60),
            strict=True,
        )
        if count
    ]
    return " ".join(parts[:2] if whole >= 3600 else parts[:1]) or "0s"


def seconds(count: float | None) -> str:
    """Return a short time with a digit more than `age`: `0.4s`, `12.0s`, `3m 5s`, `1h 2m`."""
    if count is None:
        return "-"
    if count < 60:
        return f"{count:.1f}s"
    return f"{int(count) // 60}m {int(count) % 60}s" if count < 3600 else age(count)


def plural(count: int, word: str) -> str:
    """Return a number of things: `1 cell`, `2 cells`, `1,000 cells`."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def printable(text: str) -> str:
    """Return a line that a stranger has written without what a terminal would act upon."""
    return "".join(one if one.isprintable() else "?" for one in text)


def console(stream: TextIO | None = None) -> Console:
    """Return a console; in a pipe it does not wrap."""
    from rich.console import Console

    stream = stream or sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else 10_000,
        markup=False,  # what is shown comes from elsewhere: it is text, not markup
        emoji=False,
        highlight=False,
    )


def table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """Return an empty table of this command's look."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(
            column, justify="right" if column in right else "left", no_wrap=True, header_style="dim"
        )
    return made


def short(kernel_id: str | None) -> str:
    """Return enough of a kernel's id to tell it from others."""
    return (kernel_id or "-")[:8]
