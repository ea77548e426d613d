"""Many calls, a few at a time, their results in order: what keeps the next pages coming without reading everything."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def each(items: Iterable[ItemT]) -> AsyncIterator[ItemT]:
    """`items` as an async iterator."""
    for item in items:
        yield item


async def read_ahead(
    items: AsyncIterator[ItemT], call: Callable[[ItemT], Awaitable[ResultT]], *, ahead: int
) -> AsyncGenerator[ResultT, None]:
    """The results of `call` on each of `items`, in their order, with at most `ahead` (1 …) calls under way or unread.

    Whoever stops iterating stops the calls: closing the iterator cancels those under way and waits for their end. An
    error of a call is raised in its place in the order, and ends the iteration.
    """
    running: deque[asyncio.Future[ResultT]] = deque()
    try:
        async for item in items:
            running.append(asyncio.ensure_future(call(item)))
            if len(running) >= ahead:
                yield await running[0]
                running.popleft()
        while running:
            yield await running[0]
            running.popleft()
    finally:
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)
