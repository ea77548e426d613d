"""A timeline on a terminal: one line for each step, cut at the terminal's width, and asides that stay whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from s3_checkpoint._format.json_diff import Change
from s3_checkpoint.cli.output import cut, size
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
    """A step of the timeline, without its state: that and its changes are let go step by step."""

    name: str
    stored_at: datetime
    size: int
    counts: Text
    """How many values were added, changed and removed."""
    next: str


def draw(session: Session, told: str, lines: Sequence[Entry | Aside]) -> None:
    """Writes `told` with the time that the entries span, then the lines, oldest first, to stdout.

    Ids in asides are never broken, what else does not fit is cut.
    """
    entries = [line for line in lines if isinstance(line, Entry)]
    first, last = entries[0].stored_at, entries[-1].stored_at
    session.say(f"{told}, {first.astimezone():%Y-%m-%d %H:%M:%S}, {span(last - first)} long")
    largest = max(1, *(entry.size for entry in entries))
    pauses = [later.stored_at - earlier.stored_at for earlier, later in pairwise(entries)]
    long = max(60, 10 * median([pause.total_seconds() for pause in pauses] or [0.0]))
    pauses.insert(0, timedelta(0))
    width = session.out.width
    name, after, stored, counts = (
        max([len(header), *(cell_len(value) for value in values)])
        for header, values in (
            ("STEP", [entry.name for entry in entries]),
            ("AFTER", [f"+{span(pause)}" for pause in pauses]),
            ("SIZE", [size(entry.size) for entry in entries]),
            ("CHANGES", [entry.counts.plain.rstrip() for entry in entries]),
        )
    )
    fixed = name + after + stored + counts + 2 * 5
    bar = max(0, min(BAR, width - fixed - _LEAST_NEXT))
    rest = max(0, width - fixed - bar - (0 if bar else -2))

    def line(cells: Sequence[Text]) -> Text:
        return Text("  ").join(cell for cell in cells if cell.plain)

    def cells(entry: Entry, pause: timedelta) -> list[Text]:
        block = Text("█" * max(1, round(bar * (entry.size / largest))) if bar else "", "blue")
        block.truncate(bar, pad=True)
        changes = entry.counts.copy()
        changes.truncate(counts, pad=True)
        return [
            Text(entry.name.rjust(name), "bold"),
            Text(f"+{span(pause)}".rjust(after), "yellow" if pause.total_seconds() > long else ""),
            Text(size(entry.size).rjust(stored)),
            block,
            changes,
            Text(cut(entry.next, rest) if rest > 1 else ""),
        ]

    heads = [
        Text(header, "bold") for header in ("STEP".rjust(name), "AFTER".rjust(after), "SIZE".rjust(stored), " " * bar)
    ]
    tails = [Text("CHANGES".ljust(counts), "bold"), Text(set_cell_size("NEXT", min(4, rest)), "bold")]
    session.out.print(line([*heads, *tails]), soft_wrap=True)
    pause = iter(pauses)
    for one in lines:
        if isinstance(one, Entry):
            session.out.print(line(cells(one, next(pause))), soft_wrap=True)
        else:
            session.out.print(Text(f"{one.sign.rjust(name)}  ").append(one.text, one.style), soft_wrap=True)


def change_counts(changes: Iterable[tuple[str, Change]]) -> Text:
    """How many values of the state (root `$`) were added, changed and removed."""
    counts: Counter[str] = Counter(change.kind for root, change in changes if root == "$")
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
