"""Many calls, a few at a time, their results in order: what keeps the next pages coming without reading everything."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar, cast

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def each(items: Iterable[ItemT]) -> AsyncGenerator[ItemT, None]:
    """`items` as an async iterator."""
    for item in items:
        yield item


class ReadAhead(Generic[ItemT, ResultT]):
    """The results of `call` on each of `items`, in their order, with at most `ahead` (1 …) calls under way or unread.

    To be used with `contextlib.aclosing`: leaving the block cancels the calls under way and waits for their end. An
    error of a call is raised in its place in the order, and ends the iteration, as cancelling does.

    A class and not an async generator: the event loop closes all generators at its end at the same time, and those that
    close each other then get in each other's way.
    """

    def __init__(self, items: AsyncIterator[ItemT], call: Callable[[ItemT], Awaitable[ResultT]], *, ahead: int) -> None:
        self._items = items
        self._call = call
        self._ahead = ahead
        self._running: deque[asyncio.Future[ResultT]] = deque()
        self._exhausted = False

    def __aiter__(self) -> ReadAhead[ItemT, ResultT]:
        return self

    async def __anext__(self) -> ResultT:
        try:
            await self._fill()
            result = await self._running[0] if self._running else None
        except BaseException:
            await self.aclose()
            raise
        if not self._running:
            raise StopAsyncIteration
        self._running.popleft()
        return cast("ResultT", result)

    async def _fill(self) -> None:
        while not self._exhausted and len(self._running) < self._ahead:
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                self._exhausted = True
            else:
                self._running.append(asyncio.ensure_future(self._call(item)))

    async def aclose(self) -> None:
        """No call is under way any more."""
        self._exhausted = True
        running = list(self._running)
        self._running.clear()
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if isinstance(self._items, AsyncGenerator):
            await self._items.aclose()
