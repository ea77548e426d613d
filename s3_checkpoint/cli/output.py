"""How commands write: tables for people, JSON for programs, both from the same rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

import typer
from pydantic import JsonValue
from pydantic_core import to_json
from rich.table import Table
from rich.text import Text

from s3_checkpoint.cli.session import Session


class Format(StrEnum):
    """What rows are written as."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


OutputOption = Annotated[
    Format | None,
    typer.Option("--output", "-o", help="table (on a terminal), json, or jsonl: one object a line (in a pipe)."),
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", help="A subgraph's namespace, instead of the graph itself.")
]
LINES_SHOWN = 200
"""A state longer than this is cut on a terminal, with a note."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: which field of the row, and how a person reads it."""

    field: str
    header: str
    show: Callable[[Any], str] = str
    justify: Literal["left", "right"] = "left"
    style: str | None = None


def chosen(session: Session, output: Format | None, *, in_pipe: Format = Format.JSONL) -> Format:
    """The format asked for; else a table on a terminal, and `in_pipe` elsewhere."""
    return output or (Format.TABLE if session.out.is_terminal else in_pipe)


async def write_rows(
    session: Session,
    rows: AsyncGenerator[dict[str, JsonValue], None],
    columns: Sequence[Column],
    output: Format | None,
    *,
    title: str | None = None,
) -> int:
    """Writes rows to stdout, closes them, and returns how many there were. JSON goes out as the rows come in."""
    count = 0
    async with aclosing(rows):
        match chosen(session, output):
            case Format.TABLE:
                table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
                for column in columns:
                    table.add_column(column.header, justify=column.justify, style=column.style, overflow="fold")
                with session.working("reading"):
                    async for row in rows:
                        table.add_row(*(Text(_cell(column, row)) for column in columns))
                        count += 1
                if count:
                    session.out.print(table)
            case Format.JSONL:
                async for row in rows:
                    write_line(session, to_json(row, inf_nan_mode="constants").decode())
                    count += 1
            case Format.JSON:
                async for row in rows:
                    write_line(session, ("[" if not count else ",") + to_json(row, inf_nan_mode="constants").decode())
                    count += 1
                write_line(session, "]" if count else "[]")
    return count


def _cell(column: Column, row: Mapping[str, JsonValue]) -> str:
    value = row.get(column.field)
    return "–" if value is None else column.show(value)


def write_document(session: Session, value: JsonValue, output: Format | None) -> None:
    """Writes one JSON value to stdout: one line as jsonl, indented otherwise."""
    if output == Format.JSONL:
        write_line(session, to_json(value, inf_nan_mode="constants").decode())
    elif session.out.is_terminal:
        session.out.print_json(to_json(value, inf_nan_mode="constants").decode(), ensure_ascii=False)
    else:
        write_line(session, pretty(value))


def write_line(session: Session, text: str) -> None:
    """Writes a line to stdout as it is, however long."""
    session.out.file.write(text + "\n")


def pretty(value: JsonValue) -> str:
    """Indented JSON."""
    return to_json(value, indent=2, inf_nan_mode="constants").decode()


def size(count: int) -> str:
    """Bytes for people: 999 B, 1.5 KiB, 3.0 MiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def when(text: str) -> str:
    """A time for people, in their own time zone."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(text: str) -> str:
    """How long ago that was, roughly."""
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def cut(text: str, width: int = 60) -> str:
    """`text` on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def duration(text: str | timedelta) -> timedelta:
    """A time span as people write it: 45s, 90m, 12h, 30d, 2w. `typer.BadParameter` for anything else."""
    if isinstance(text, timedelta):
        return text  # a default value comes through here too
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    number, unit = text[:-1], text[-1:]
    try:
        return timedelta(**{units[unit]: float(number)})
    except (KeyError, ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is not a time span such as 45s, 90m, 12h, 30d or 2w") from None
