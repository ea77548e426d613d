"""Listing the steps of a run: one page of them, and all of them, a long run in parallel ranges.

Keys that are no steps may be anywhere among the steps; they are looked behind, and cost what listing them costs. How a
long run is divided is explained in docs/design/0003-search-for-the-latest.md.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from s3_checkpoint._concurrency.gather import task_group
from s3_checkpoint._format.keys import MAX_STEP, STEP_DIGITS, RunKeys
from s3_checkpoint.errors import StoreError
from s3_checkpoint.object_store import PAGE_KEYS, ListedObject, ObjectStore, Page, pages

T = TypeVar("T")

END = MAX_STEP + 1
"""Behind every step."""
PARALLEL = 16
"""LISTs of one listing in flight at a time."""
_PAGES_IN_TURN = 2
"""Pages read one after another before a listing counts as long."""
_CUTS = 6
"""How often the range whose end is unknown is cut before an answer must have come."""
_CUT_GROWTH = 8

_STEP_LINE = re.compile(rf"/([0-9]{{{STEP_DIGITS}}})\.json$", re.MULTILINE)
_NAME = STEP_DIGITS + len(".json")
_DIGITS = re.compile(f"[0-9]{{0,{STEP_DIGITS}}}")


class StepPage(NamedTuple):
    """The steps of one LIST answer, ascending, and the entry of the listing that shows each."""

    steps: list[int]
    entries: Sequence[ListedObject]
    reached: int
    """From where the page began up to here, exclusive, no other step exists; `END` if the listing ended."""


async def page_from(
    store: ObjectStore, run: RunKeys, first: int, *, stop: int = END, limit: int = PAGE_KEYS
) -> StepPage:
    """The steps from `first` on, at most `limit` (1 … 1,000); none only if there is none below `stop`.

    1 LIST; where it holds nothing but other keys, 1 more per 1,000 of these. Needs an ordered store.
    """
    after = f"{run.steps}{first:0{STEP_DIGITS}d}" if first else ""
    listing = pages(store, run.steps, start_after=after, first_limit=limit)
    async with aclosing(listing):
        async for page in listing:
            if page.keys and page.keys[0] <= after:
                detail = "the store does not honour StartAfter, which finding steps relies on"
                raise StoreError("ListObjectsV2", store.bucket, run.steps, detail)
            steps, entries = steps_among(run, page)
            reached = END
            if page.next_token is not None:
                reached = _next_step(page.keys[-1][len(run.steps) :]) if page.keys else first
            if steps or reached >= stop:
                break
        return StepPage(steps, entries, reached)


def steps_among(run: RunKeys, page: Page) -> tuple[list[int], Sequence[ListedObject]]:
    """The steps in a page of the listing of `run.steps`, in its order, and their entries."""
    keys = page.keys
    text = "\n".join(keys)
    numbers = _STEP_LINE.findall(text)
    whole = len(text) == len(keys) * (len(run.steps) + _NAME + 1) - 1
    if whole and len(numbers) == len(keys) == text.count("\n") + 1:  # each a step, as nearly always: read at once
        steps = list(map(int, numbers))
        if max(steps) <= MAX_STEP:
            return steps, page.objects
    found = [(step, entry) for entry in page.objects if (step := run.parse_state(entry.key)) is not None]
    return [step for step, _ in found], [entry for _, entry in found]


async def all_pages(store: ObjectStore, run: RunKeys, pick: Callable[[StepPage, int], list[T]]) -> list[T]:
    """All steps of the run, as `pick(page, n)` gives the first `n` of each page; ascending.

    n/1000 LISTs for n steps, and up to 20 more beyond 2,000, at most 16 at a time. Needs an ordered store.
    """
    found: list[T] = []
    parts: list[tuple[int, list[T]]] = []
    first = unit = 0
    for _ in range(_PAGES_IN_TURN):
        page = await page_from(store, run, first)
        found += pick(page, len(page.steps))
        if page.reached >= END:
            return found
        first, unit = page.reached, span(page)

    def take(start: int, page: StepPage, count: int) -> None:
        parts.append((start, pick(page, count)))

    await _RangeListing(store, run, take).read(_Range(first, END, unit, proven=True))
    for _, part in sorted(parts, key=lambda part: part[0]):
        found += part
    return found


def _next_step(name: str) -> int:
    """The least step whose name is greater than `name`; `END` or more if there is none."""
    digits = _DIGITS.match(name)[0]  # type: ignore[index]  # matches any text, if only with nothing
    rest = name[len(digits) :]
    missing = STEP_DIGITS - len(digits)
    floor = int(digits + "0" * missing)
    if missing:
        return floor if rest < "0" else floor + 10**missing
    return floor if rest < ".json" else floor + 1


def span(page: StepPage) -> int:
    """How many numbers the page's steps spread over; what a page holds, where steps are as dense."""
    return max(1, page.reached - page.steps[0])


@dataclass(slots=True, eq=False)
class _Range:
    """What one reader has still to list: `[next, end)`."""

    next: int
    end: int
    unit: int
    """How far a page is thought to reach."""
    proven: bool = False
    """Whether a step has been found in it; what may be empty is not worth dividing."""

    @property
    def pages_behind(self) -> int:
        """How many pages are thought to be left behind the next one."""
        return (self.end - self.next) // self.unit - 1


class _RangeListing:
    """One listing in parallel ranges, which begins as one.

    `take` is called with where each page began, the page, and how many of its steps to take: in no order, but with
    every step once.
    """

    def __init__(self, store: ObjectStore, run: RunKeys, take: Callable[[int, StepPage, int], None]) -> None:
        self._store, self._run, self._take = store, run, take
        self._origin = 0
        self._waiting: list[_Range] = []
        self._reading: list[_Range] = []

    async def read(self, whole: _Range) -> None:
        """Lists `whole` to its end."""
        self._origin = whole.next
        self._waiting = [whole]
        async with task_group() as readers:
            self._start(readers)

    def _start(self, readers: asyncio.TaskGroup) -> None:
        """As many readers as there are ranges for, and `PARALLEL` at most."""
        while len(self._reading) < PARALLEL and (part := self._next_range()) is not None:
            self._reading.append(part)
            readers.create_task(self._read_page(readers, part))

    async def _read_page(self, readers: asyncio.TaskGroup, part: _Range) -> None:
        page = await page_from(self._store, self._run, part.next, stop=part.end)
        self._reading.remove(part)
        self._take_in(part, page)
        self._start(readers)

    def _take_in(self, part: _Range, page: StepPage) -> None:
        count = bisect_left(page.steps, part.end)  # it may have been cut since this page was asked for
        if count:
            self._take(part.next, page, count)
            if page.reached < part.end:
                part.next, part.unit, part.proven = page.reached, span(page), True
                self._waiting.append(part)

    def _next_range(self) -> _Range | None:
        """A range to read: one that waits, or the far part of one that is being read."""
        if self._waiting:
            return self._waiting.pop()
        unanswered = sum(part.next > self._origin and not part.proven for part in self._reading)
        for part in sorted(self._reading, key=lambda part: part.pages_behind, reverse=True):
            if part.end == END and unanswered < _CUTS:
                cut = self._origin + (part.next - self._origin + part.unit) * _CUT_GROWTH
            elif part.proven and part.pages_behind >= 1:
                cut = (part.next + part.unit + part.end) // 2
            else:
                continue
            if cut < part.end:
                far = _Range(cut, part.end, part.unit)
                part.end = cut
                return far
        return None
