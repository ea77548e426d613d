"""A timeline on a terminal: one line for each step, cut at the terminal's width, and asides that stay whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from s3_checkpoint.cli.output import cut
from s3_checkpoint.cli.session import Session

BAR = 20
_LEAST_NEXT = 12
"""Columns left for the last cell before the bar gets shorter, and then the cell goes."""


@dataclass(frozen=True, slots=True)
class Aside:
    """A line that is no step."""

    sign: str
    text: str
    style: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the timeline."""

    name: str
    after: str
    after_style: str
    size: str
    share: float
    """Of the largest size, 0 … 1: how long the bar is."""
    counts: Text
    next: str


def draw(session: Session, first_header: str, lines: Sequence[Entry | Aside]) -> None:
    """Writes the lines to stdout: ids in asides are never broken, what else does not fit is cut."""
    entries = [line for line in lines if isinstance(line, Entry)]
    width = session.out.width
    name, after, size, counts = (
        max([len(header), *(cell_len(value) for value in values)])
        for header, values in (
            (first_header, [entry.name for entry in entries]),
            ("AFTER", [entry.after for entry in entries]),
            ("SIZE", [entry.size for entry in entries]),
            ("CHANGES", [entry.counts.plain.rstrip() for entry in entries]),
        )
    )
    fixed = name + after + size + counts + 2 * 5
    bar = max(0, min(BAR, width - fixed - _LEAST_NEXT))
    rest = max(0, width - fixed - bar - (0 if bar else -2))

    def line(cells: Sequence[Text]) -> Text:
        return Text("  ").join(cell for cell in cells if cell.plain)

    def cells(entry: Entry) -> list[Text]:
        block = Text("█" * max(1, round(bar * entry.share)) if bar else "", "blue")
        block.truncate(bar, pad=True)
        changes = entry.counts.copy()
        changes.truncate(counts, pad=True)
        return [
            Text(entry.name.rjust(name), "bold"),
            Text(entry.after.rjust(after), entry.after_style),
            Text(entry.size.rjust(size)),
            block,
            changes,
            Text(cut(entry.next, rest) if rest > 1 else ""),
        ]

    heads = [
        Text(header, "bold")
        for header in (first_header.rjust(name), "AFTER".rjust(after), "SIZE".rjust(size), " " * bar)
    ]
    last = [Text("CHANGES".ljust(counts), "bold"), Text(set_cell_size("NEXT", min(4, rest)), "bold")]
    if entries:
        session.out.print(line([*heads, *last]), soft_wrap=True)
    for one in lines:
        if isinstance(one, Entry):
            session.out.print(line(cells(one)), soft_wrap=True)
        else:
            session.out.print(Text(f"{one.sign.rjust(name)}  ").append(one.text, one.style), soft_wrap=True)


def change_counts(counts: Counter[str]) -> Text:
    """How many values of the state were added, changed and removed."""
    text = Text()
    for kind, sign, style in (("added", "+", "green"), ("changed", "~", "yellow"), ("removed", "-", "red")):
        if counts[kind]:
            text.append(f"{sign}{counts[kind]} ", style)
    return text


def span(length: timedelta) -> str:
    """A length of time for people."""
    seconds = length.total_seconds()
    for unit, one in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= one:
            return f"{seconds / one:.1f} {unit}"
    return f"{seconds:.0f} s"
