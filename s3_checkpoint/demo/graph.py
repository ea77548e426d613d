"""The graph of the demonstration: which identifiers a body of Python source uses, and how often.

    split ──> count ×8 ──> merge ──> report
                 ^           │
                 └───────────┘  while groups of files are left

`split` divides the files into groups; each superstep counts eight of them at once, each task with the files of its
group as payload; `merge` adds up.
"""

from __future__ import annotations

import asyncio
import keyword
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from s3_checkpoint.graph import END, HALT, Graph, Next, Send, Task

GROUPS = 24
"""Into how many groups of about the same size the files are divided."""
FAN_OUT = 8
"""How many groups one superstep counts."""
REPORTED = 10
"""How many identifiers the report names."""

_TOKEN = re.compile(
    r"""
    (?i:[rbuft]{0,2})
    (?: \"{3}(?s:\\.|.)*?\"{3} | '{3}(?s:\\.|.)*?'{3} | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' )
    | \#[^\n]*
    | (?P<word> [^\W\d]\w* )
    """,
    re.VERBOSE,
)
"""A string or a comment, which are passed over, or a word."""


class Report(BaseModel):
    """The answer."""

    files: int
    identifiers: int
    """Different ones."""
    occurrences: int
    top: list[tuple[str, int]]
    """The most frequent, each with its count, in descending order."""


class Census(BaseModel):
    """The state: what is left to count, what is counted, and in the end the report."""

    files: list[str] = []
    """Paths on the worker's machine; none: the modules of its own standard library."""
    waiting: list[list[str]] = []
    """Groups of files not yet given to a task."""
    partial: dict[str, dict[str, int]] = {}
    """By group: what the tasks of this superstep counted."""
    counts: dict[str, int] = {}
    """Occurrences of each identifier in all files merged so far."""
    report: Report | None = None


def standard_library() -> list[str]:
    """The top-level modules of the running Python's standard library."""
    return sorted(str(path) for path in Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))


def count_identifiers(paths: Iterable[str]) -> Counter[str]:
    """How often each identifier is in these files, outside strings and comments."""
    counts: Counter[str] = Counter()
    for path in paths:
        text = Path(path).read_bytes().decode("utf-8", "replace")
        counts.update(word for word in _TOKEN.findall(text) if word and not keyword.iskeyword(word))
    return counts


def summarize(files: int, counts: Counter[str]) -> Report:
    """The report on `counts`; of two equally frequent identifiers, the one first in the alphabet comes first."""
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:REPORTED]
    return Report(files=files, identifiers=len(counts), occurrences=counts.total(), top=top)


async def split(state: Census, task: Task) -> Next:
    """Divides the files into groups of about the same size, the large ones first, each to the smallest group."""
    files = state.files or standard_library()
    sizes = await asyncio.to_thread(lambda: {path: Path(path).stat().st_size for path in files})
    groups: list[list[str]] = [[] for _ in range(min(GROUPS, len(files)))]
    filled = [0] * len(groups)
    for path in sorted(files, key=lambda path: (-sizes[path], path)):
        smallest = filled.index(min(filled))
        groups[smallest].append(path)
        filled[smallest] += sizes[path]
    return Next({"files": files, "waiting": groups[FAN_OUT:]}, _fan_out(groups))


async def count(state: Census, task: Task) -> Next:
    """Counts the files of one group, in a thread, concurrently with the other groups of the superstep."""
    group = Group.model_validate(task.payload)
    counts = await asyncio.to_thread(count_identifiers, group.files)
    # All tasks of the superstep are done before `merge` runs, so it is enough that one of them leads there.
    return Next({"partial": {f"{group.place:02}": dict(counts)}}, "merge" if group.place == 0 else HALT)


async def merge(state: Census, task: Task) -> Next:
    """Adds what was counted, and hands out the next groups, if any are left."""
    total = Counter(state.counts)
    for partial in state.partial.values():
        total.update(partial)
    update = {"counts": dict(total), "partial": None, "waiting": state.waiting[FAN_OUT:]}
    return Next(update, _fan_out(state.waiting) if state.waiting else "report")


async def report(state: Census, task: Task) -> Next:
    """Sums up, and ends the run."""
    return Next({"report": summarize(len(state.files), Counter(state.counts))}, END)


class Group(BaseModel):
    """The payload of a `count` task."""

    place: int
    """The place of this group among those of its superstep."""
    files: list[str]


def _fan_out(waiting: list[list[str]]) -> list[Send]:
    return [
        Send("count", Group(place=place, files=files).model_dump()) for place, files in enumerate(waiting[:FAN_OUT])
    ]


def apply(state: Census, update: dict[str, object]) -> Census:
    """An update replaces the fields it names; what concurrent tasks counted is gathered, until `merge` clears it."""
    if "partial" in update:
        added = update["partial"]
        update = {**update, "partial": {**state.partial, **added} if isinstance(added, dict) else {}}
    return state.model_copy(update=update)


CENSUS = Graph(
    start="split",
    nodes={"split": split, "count": count, "merge": merge, "report": report},
    apply=apply,
)
