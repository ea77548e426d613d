"""Stores that make listings countable, short-paged, or too long to be held."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime

from s3_checkpoint import MemoryStore
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.object_store import PAGE_KEYS, ListedObject, ObjectAttributes, Page
from s3_checkpoint.testing import Request
from s3_checkpoint.testing.counting import Counting

SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


class CountedStore(Counting):
    """A memory store that is counted; `page_keys` bounds its pages, `while_listing` is awaited before each LIST."""

    def __init__(self, *, page_keys: int = PAGE_KEYS, ordered: bool = True) -> None:
        super().__init__(MemoryStore(ordered=ordered))
        self.page_keys = page_keys
        self.while_listing: Callable[[], Awaitable[None]] | None = None

    @property
    def lists(self) -> int:
        """LISTs since the last `reset`."""
        return self.requests["LIST"]

    async def fill(self, run: RunKeys, steps: Iterable[int], others: Iterable[str] = ()) -> None:
        """Puts an empty object for each step, and for each other name beside the steps; not counted."""
        for key in [run.state(step) for step in steps] + [run.steps + name for name in others]:
            await self.store.put(key, b"", ObjectAttributes(), mode="overwrite")

    async def list(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str | None = None,
        delimiter: str = "",
        limit: int = PAGE_KEYS,
    ) -> Page:
        """See `ObjectStore.list`."""

        async def send() -> Page:
            if self.while_listing:
                await self.while_listing()
            return await self._page(prefix, start_after, token, delimiter, min(limit, self.page_keys))

        return await self.around(Request("ListObjectsV2", prefix), send)

    async def _page(self, prefix: str, start_after: str, token: str | None, delimiter: str, limit: int) -> Page:
        return await self.store.list(prefix, start_after=start_after, token=token, delimiter=delimiter, limit=limit)


class ComputedRun(CountedStore):
    """Lists one run whose steps are computed, not held: a million of them cost nothing to set up."""

    def __init__(self, run: RunKeys, *stretches: Sequence[int]) -> None:
        super().__init__()
        self._run = run
        self.stretches = stretches

    async def _page(self, prefix: str, start_after: str, token: str | None, delimiter: str, limit: int) -> Page:
        assert (prefix, delimiter) == (self._run.steps, "")
        after = token or start_after
        found: list[ListedObject] = []
        for steps in self.stretches:
            for step in steps[bisect_right(steps, after, key=self._run.state) :]:
                if len(found) == limit:
                    return Page.of(found, next_token=found[-1].key)
                found.append(ListedObject(self._run.state(step), 1, SOME_TIME))
        return Page.of(found)
