"""Which steps a run has, by prefix listing alone: the latest, and all of them.

**The latest** of a run of up to 1,000 steps is on the first page. Beyond, it is searched for between `low`, the
greatest step seen, and `high`, from which on nothing was there, by rounds of LISTs that are sent together. Only what a
LIST has shown during the call is ever returned: gaps, other keys and steps that come while it searches make it longer,
not wrong. The rounds are explained in docs/design/0003-search-for-the-latest.md.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple, TypeVar

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._runs.step_listing import END, StepPage, all_pages, page_from, span, steps_among
from s3_checkpoint.models import StepInfo
from s3_checkpoint.object_store import PAGE_KEYS, ListedObject, ObjectStore, lists_whole_pages, pages

T = TypeVar("T")

PROBES = 14
"""LISTs of one key in a round. With these, a million steps take six rounds and fewer than 60 LISTs."""
WHOLE_PAGE_PROBES = 6
"""The same for a store that cannot ask for one key: a probe costs it a page, and where nothing is a GET besides. A
million steps take eight rounds and fewer than 50 LISTs."""
LAST_PAGES = 8
"""The search ends with this many whole pages at most, sent together."""
GROWING_ROUNDS = 4
"""From then on probes are spread evenly: however steps are spread, each round leaves a fifteenth of the bracket."""
REMEMBERED_RUNS = 10_000


class Look(NamedTuple):
    """What a LIST has shown of a run: that no step greater than `newest` was there at `at`."""

    newest: int
    at: float
    """Seconds of the monotonic clock, read before the LIST was sent."""


class _Remembered(dict[str, T]):
    """What is known of the runs looked at last: of more than `REMEMBERED_RUNS`, the one longest ago is forgotten."""

    def note(self, run: RunKeys, known: T) -> None:
        self.pop(run.steps, None)
        self[run.steps] = known
        if len(self) > REMEMBERED_RUNS:
            del self[next(iter(self))]


class StepIndex:
    """Finds steps. Knows only the store's protocol. `monotonic` is the clock that looks are timed with, in seconds."""

    def __init__(self, store: ObjectStore, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._seen = _Remembered[int]()
        self._looks = _Remembered[Look]()
        self._unborn = _Remembered[tuple[int, float]]()

    def seen(self, run: RunKeys, step: int) -> None:
        """Remembers that the run has had this step, as a place to start the next search for the latest."""
        self._seen.note(run, max(step, self._seen.get(run.steps, step)))

    def never_there(self, run: RunKeys, step: int, at: float) -> None:
        """Remembers that at `at` (monotonic, in seconds) no such step was there or had been pruned.

        `CommitProtocol.note_successor` has the proof.
        """
        self._unborn.note(run, (step, at))

    def never_there_at(self, run: RunKeys, step: int) -> float | None:
        """The last time at which this process knows that no such step had ever been there; None if it knows of none.

        Either a LIST has shown that the run ended below it, which a pruned step would contradict, since the newest is
        never pruned; or `never_there` said so.
        """
        if step <= self._seen.get(run.steps, -1):
            return None
        look = self._looks.get(run.steps)
        times = [look.at] if look is not None and step > look.newest else []
        unborn, at = self._unborn.get(run.steps, (-1, 0.0))
        return max([*times, at] if unborn == step else times, default=None)

    async def latest(self, run: RunKeys) -> int | None:
        """The greatest step of the run, or None if it has none.

        At least as great as the greatest at the time of the call. 1 LIST up to 1,000 steps, or up to 1,000 behind one
        that this process has seen; else at most 32 in 4 round trips up to 10,000 steps, 60 in 6 up to a million, where
        steps are spread evenly. A directory bucket is listed whole.
        """
        if not self._store.ordered:
            return max(await self.steps(run), default=None)
        at = self._monotonic()
        hint = self._seen.get(run.steps, 0)
        found = await self._search(run, hint)
        if found is None and hint:
            self._seen.pop(run.steps, None)  # deleted since, and so is all behind it
            found = await self._search(run, 0)
        if found is not None:
            self.seen(run, found)
        self._looks.note(run, Look(-1 if found is None else found, at))
        return found

    async def first_from(self, run: RunKeys, step: int) -> int | None:
        """The least step of the run that is not below `step`; None if there is none. 1 LIST.

        A directory bucket is listed whole.
        """
        if not self._store.ordered:
            return next((found for found in await self.steps(run) if found >= step), None)
        at = self._monotonic()
        page = await page_from(self._store, run, step, limit=1)
        if not page.steps:
            self._looks.note(run, Look(step - 1, at))
            return None
        return page.steps[0]

    async def floor(self, run: RunKeys) -> int | None:
        """Up to which step the run has been pruned; None if it never was. 1 LIST."""
        floors = [
            step
            async for page in pages(self._store, run.floors)
            for key in page.keys
            if (step := run.parse_floor(key)) is not None
        ]
        return max(floors, default=None)

    async def steps(self, run: RunKeys) -> list[int]:
        """All steps of the run, ascending. n/1000 LISTs, and up to 20 more beyond 2,000 steps; 16 at a time."""
        at = self._monotonic()
        if not self._store.ordered:
            steps = sorted((await self._unordered(run))[0])
        else:
            steps = await all_pages(self._store, run, lambda page, count: page.steps[:count])
        if steps:
            self.seen(run, steps[-1])
        self._looks.note(run, Look(steps[-1] if steps else -1, at))
        return steps

    async def backwards(self, run: RunKeys) -> AsyncGenerator[int, None]:
        """All steps of the run from the newest down, each LIST sent when the iteration gets there.

        1 LIST up to 1,000 steps. Beyond, 1 more than finding the latest takes, and then 1 per 1,000 steps, where these
        follow each other; a few more at a gap. A directory bucket is listed whole.
        """
        if not self._store.ordered:
            for step in reversed(await self.steps(run)):
                yield step
            return
        at = self._monotonic()
        page = await page_from(self._store, run, 0)
        if page.reached >= END:
            self._looks.note(run, Look(page.steps[-1] if page.steps else -1, at))
            for step in reversed(page.steps):
                yield step
            return
        self.seen(run, page.steps[-1])
        newest = await self.latest(run)
        if newest is None:  # it has been deleted since
            return
        yield newest
        end, width = newest, PAGE_KEYS
        while end > 0:
            first = max(0, end - width)
            page = await page_from(self._store, run, first, stop=end)
            if page.reached < end and width > PAGE_KEYS:
                width = max(PAGE_KEYS, width // 16)  # they are close together again: look nearer to the end
                continue
            steps = [step for step in page.steps if step < end]
            while page.reached < end:  # there are other keys among them
                page = await page_from(self._store, run, page.reached, stop=end)
                steps += [step for step in page.steps if step < end]
            for step in reversed(steps):
                yield step
            if 4 * len(steps) < PAGE_KEYS:
                width *= 4
            end = first

    async def infos(self, run: RunKeys) -> list[StepInfo]:
        """As `steps`, with size and time."""
        if not self._store.ordered:
            return sorted(_infos(*await self._unordered(run)), key=lambda info: info.step)
        return await all_pages(self._store, run, lambda page, count: _infos(page.steps[:count], page.entries))

    async def _search(self, run: RunKeys, first: int) -> int | None:
        """The greatest step from `first` on, or None if there is none."""
        page = await page_from(self._store, run, first)
        if not page.steps:
            return None
        bracket = _Bracket(page, WHOLE_PAGE_PROBES if lists_whole_pages(self._store) else PROBES)
        while bracket.low < bracket.high:
            starts = bracket.next_round()
            answers = await gather_bounded(
                page_from(self._store, run, start, stop=bracket.high, limit=limit) for start, limit in starts
            )
            bracket.narrow(starts, answers)
        return bracket.best

    async def _unordered(self, run: RunKeys) -> tuple[list[int], list[ListedObject]]:
        """Every step of the run and its entry, page by page, in whatever order they come."""
        steps: list[int] = []
        entries: list[ListedObject] = []
        async for page in pages(self._store, run.steps):
            found, of_found = steps_among(run, page)
            steps += found
            entries += of_found
        return steps, entries


class _Bracket:
    """Where a step greater than `best` can still be: `[low, high)`."""

    def __init__(self, page: StepPage, probes: int) -> None:
        self._probes = probes
        self.best = page.steps[-1]
        self.low, self.high = page.reached, END
        self._origin = page.steps[0]
        self._unit = span(page)
        self._rounds = 0
        self._behind_a_gap = False

    def next_round(self) -> list[tuple[int, int]]:
        """Where to list from, ascending, and how many keys."""
        self._rounds += 1
        width = self.high - self.low
        near = max(self.low - self._origin, self._unit)
        far = near + width
        if far > 2 * near and self._rounds <= GROWING_ROUNDS:
            growth = (far / near) ** (1 / (self._probes + 1))
            distances = {int(near * growth**i) - near for i in range(1, self._probes + 1)}
        else:
            distances = {width * i // (self._probes + 1) for i in range(1, self._probes + 1)}
            # Steps in clusters: the last one may end close behind `low`, far below the first of these.
            if self._behind_a_gap and (part := width // (self._probes + 1)) > 4 * self._unit:
                growth = (part / (4 * self._unit)) ** 0.25
                distances |= {int(4 * self._unit * growth**i) for i in range(4)}
        limits = {self.low + distance: 1 for distance in distances if 0 < distance < width}
        if width <= LAST_PAGES * self._unit:
            whole = dict.fromkeys(range(self.low, self.high, self._unit), PAGE_KEYS)
            limits = whole if self._rounds <= GROWING_ROUNDS + 2 else limits | whole
        elif self.high == END:
            limits[self.low] = PAGE_KEYS
        return sorted(limits.items())

    def narrow(self, starts: list[tuple[int, int]], pages: list[StepPage]) -> None:
        """Takes in what was found from each of `starts` on."""
        for (start, limit), page in zip(starts, pages, strict=True):
            if not page.steps:
                if start > self.best:
                    self.high = min(self.high, start)
            elif page.steps[-1] > self.best:
                self.best, self.low = page.steps[-1], max(self.low, page.reached)
                self._behind_a_gap = page.steps[0] - start > self._unit
                if limit == PAGE_KEYS:
                    self._unit = span(page)
            elif limit == 1:
                # One key first behind two starts: a new beginning to measure distances from.
                self._origin = self.best


def _infos(steps: Sequence[int], entries: Sequence[ListedObject]) -> list[StepInfo]:
    return [StepInfo(step, entry.size, entry.last_modified) for step, entry in zip(steps, entries, strict=False)]
