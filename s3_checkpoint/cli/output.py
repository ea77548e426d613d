"""How commands write: tables for people, JSON for programs, both from the same rows.

Keys, node names, states and servers' words are not ours. Whatever a command writes passes one of the functions here (or
`Session.note`, `Session.say`), and those pass it through `printable`: on a terminal, in a pipe and in JSON alike, no
control or format character gets out but rich's own styling, and nothing is read as rich's markup.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import JsonValue
from pydantic_core import to_json
from rich.cells import cell_len
from rich.highlighter import JSONHighlighter
from rich.table import Table
from rich.text import Text

from s3_checkpoint._printable import printable
from s3_checkpoint.cli.arguments import LINES_SHOWN, Format
from s3_checkpoint.cli.session import Session


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: which field of the row, and how a person reads it."""

    field: str
    header: str
    show: Callable[[Any], str] = str
    justify: Literal["left", "right"] = "left"
    style: str | None = None
    whole: bool = False
    """Never broken over lines: an id, to be copied."""


def chosen(session: Session, output: Format | None, *, in_pipe: Format = Format.JSONL) -> Format:
    """The format asked for; else a table on a terminal, and `in_pipe` elsewhere."""
    return output or (Format.TABLE if session.out.is_terminal else in_pipe)


async def write_rows(
    session: Session,
    rows: AsyncGenerator[dict[str, JsonValue], None],
    columns: Sequence[Column],
    output: Format | None,
    *,
    reading: str = "reading",
    limit: int | None = None,
) -> int:
    """Writes rows to stdout, at most `limit`, closes them, and returns how many: JSON goes out as the rows come in."""
    written = chosen(session, output)
    cells: list[list[Text]] = []
    count = 0
    async with aclosing(rows):
        with session.counter(reading) as counter:
            async for row in rows:
                match written:
                    case Format.TABLE:
                        cells.append([foreign(_cell(column, row)) for column in columns])
                    case Format.JSONL:
                        write_line(session, as_json(row))
                    case Format.JSON:
                        write_line(session, ("[" if not count else ",") + as_json(row))
                count += 1
                counter.add()
                if count == limit:
                    break
    if cells:
        _write_table(session, columns, cells)
    if written == Format.JSON:
        write_line(session, "]" if count else "[]")
    return count


LEAST_CELL = 12
"""Columns of a terminal that a cell is given before it is broken over lines; with less, entries are stacked."""


def _write_table(session: Session, columns: Sequence[Column], cells: Sequence[Sequence[Text]]) -> None:
    """A table; where it would break ids on this terminal, one entry below the other, each id on a line of its own."""
    widths = [max(cell_len(column.header), *(row[n].cell_len for row in cells)) for n, column in enumerate(columns)]
    least = [
        width if column.whole else max(min(width, LEAST_CELL), cell_len(column.header))
        for column, width in zip(columns, widths, strict=True)
    ]
    if any(column.whole for column in columns) and sum(least) + 2 * (len(columns) - 1) > session.out.width:
        for row in cells:
            _write_stacked(session, columns, row)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            column.header,
            justify=column.justify,
            style=column.style,
            overflow="fold",
            no_wrap=column.whole,
            min_width=width if column.whole else None,
        )
    for row in cells:
        table.add_row(*row)
    session.out.print(table)


def _write_stacked(session: Session, columns: Sequence[Column], row: Sequence[Text]) -> None:
    named = list(zip(columns, row, strict=True))
    for column, cell in named:
        if column.whole:
            session.out.print(cell, soft_wrap=True)
    rest = [
        Text.assemble((f"{column.header.lower()} ", "dim"), cell) if column.header else cell
        for column, cell in named
        if not column.whole and cell.plain not in ("", "–")
    ]
    if rest:
        for line in Text("  ").join(rest).wrap(session.out, max(LEAST_CELL, session.out.width - 2)):
            line.rstrip()
            session.out.print(Text("  ").append_text(line), soft_wrap=True)


def _cell(column: Column, row: Mapping[str, JsonValue]) -> str:
    value = row.get(column.field)
    return "–" if value is None else column.show(value)


def write_document(session: Session, value: JsonValue, output: Format | None) -> None:
    """Writes one JSON value to stdout: one line as jsonl, indented otherwise."""
    if output == Format.JSONL:
        write_line(session, as_json(value))
    elif session.out.is_terminal:
        session.out.print(styled_json(as_json(value, indent=True)), soft_wrap=True)
    else:
        write_line(session, as_json(value, indent=True))


def report(session: Session, output: Format | None, sentence: str, document: dict[str, JsonValue]) -> None:
    """Says what was done: `sentence` on a terminal, `document` as JSON elsewhere."""
    if chosen(session, output) == Format.TABLE:
        session.say(sentence)
    else:
        write_document(session, document, output or Format.JSONL)


async def write_long_document(
    session: Session,
    head: dict[str, JsonValue],
    name: str,
    rows: AsyncGenerator[dict[str, JsonValue], None],
    tail: Callable[[], Awaitable[dict[str, JsonValue]]],
    output: Format | None,
) -> None:
    """As `write_document` of `head`, a list `name` of the rows, and `tail`; of the rows, one is held at a time.

    Without a row, nothing is written, and `tail` is not asked for.
    """
    line = output == Format.JSONL
    between = "," if line else ",\n"

    def members(value: dict[str, JsonValue]) -> str:
        text = as_json(value, indent=not line)
        return text[1:-1] if line else text[2:-2]

    write = session.out.file.write
    first = True
    async with aclosing(rows):
        async for row in rows:
            if first:
                open_list = f'"{name}":[' if line else f'  "{name}": [\n'
                write(("{" if line else "{\n") + members(head) + between + open_list)
            text = as_json(row, indent=not line)
            write(("" if first else between) + (text if line else textwrap.indent(text, "    ")))
            first = False
    if not first:
        ending = members(await tail())
        write(f"],{ending}}}\n" if line else f"\n  ],\n{ending}\n}}\n")


def write_line(session: Session, text: str) -> None:
    """Writes a line to stdout, however long; `text` is ours, or has been escaped."""
    session.out.file.write(text + "\n")


def as_json(value: JsonValue, *, indent: bool = False) -> str:
    """`value` as JSON text in which every control and format character is an escape; on one line unless indented."""
    spaces = 2 if indent else None
    try:
        text = to_json(value, indent=spaces, inf_nan_mode="constants").decode()
    except ValueError:  # lone surrogates, as the operating system hands over arguments that are no text
        text = json.dumps(value, indent=spaces)
    return printable(text, keep="\n")


def styled_json(text: str) -> Text:
    """JSON in colours. `text` comes from `as_json`: rich's own rendering of JSON would undo its escapes."""
    return JSONHighlighter()(text)


def foreign(text: str, style: str = "") -> Text:
    """Text that is not ours, for a terminal: escaped, and never read as markup."""
    return Text(printable(text), style)


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
    """`text`, escaped, on one line of at most `width` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 1] + "…"


def show_json(session: Session, value: JsonValue, *, full: bool) -> None:
    """A state on a terminal: in the pager when all of it is asked for, else cut, with a note that says so."""
    lines = as_json(value, indent=True).split("\n")
    if full and len(lines) > session.out.height:
        with session.out.pager(styles=True):
            session.out.print(styled_json("\n".join(lines)))
        return
    shown = lines if full else [line if len(line) <= 2000 else f"{line[:2000]}…" for line in lines[:LINES_SHOWN]]
    text = "\n".join(shown)
    session.out.print(styled_json(text) if shown == lines else Text(text), soft_wrap=True)
    if shown != lines:
        session.note(f"cut: {len(shown):,} of {len(lines):,} lines; --full shows all, --output json writes all")


def one_line(value: JsonValue) -> str:
    """JSON for a cell of a table."""
    return cut(as_json(value))


def show_fields(session: Session, fields: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line, and an empty line after them; a value that fits a line only alone has its own."""
    for name, value in fields:
        label, shown = Text(f"{name:<9}", "bold"), foreign(value)
        if session.out.is_terminal and label.cell_len + shown.cell_len > session.out.width >= shown.cell_len:
            label.append("\n")
        session.out.print(label.append_text(shown), soft_wrap=True)
    session.out.print()


STEP = Column("step", "STEP", justify="right", style="bold")
STORED = Column("last_modified", "STORED", when)
SIZE = Column("size", "SIZE", size, justify="right")
"""Columns of steps."""
