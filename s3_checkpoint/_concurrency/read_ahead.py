"""Many calls, a few at a time, their results in order: what keeps the next pages coming without reading everything."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


async def each(items: Iterable[ItemT]) -> AsyncGenerator[ItemT, None]:
    """`items` as an async iterator."""
    for item in items:
        yield item


@dataclass(frozen=True)  # without slots: with them, Python 3.11 cannot make a `Budget[int](…)`
class Budget(Generic[ResultT]):
    """How many bytes of results may be in flight or unread together, and how many a result is."""

    limit: int
    weigh: Callable[[ResultT], int]


class ReadAhead(Generic[ItemT, ResultT]):
    """The results of `call` on each of `items`, in their order, with at most `ahead` (1 …) calls in flight or unread.

    With a `budget`, the results in flight or unread are held to its bytes as well: a call in flight counts as much as
    the heaviest result so far, so the first goes alone, and at least one always goes. Results that grow from one to the
    next exceed the budget by no more than that growth, for each call in flight.

    To be used with `contextlib.aclosing`: leaving the block cancels the calls in flight and waits for their end. An
    error of a call is raised in its place in the order, and ends the iteration, as cancelling does.

    A class and not an async generator: the event loop closes all generators at its end at the same time, and those that
    close each other then get in each other's way.
    """

    def __init__(
        self,
        items: AsyncIterator[ItemT],
        call: Callable[[ItemT], Awaitable[ResultT]],
        *,
        ahead: int,
        budget: Budget[ResultT] | None = None,
    ) -> None:
        self._items = items
        self._call = call
        self._ahead = ahead
        self._budget = budget
        self._heaviest: int | None = None
        """Bytes of the heaviest result so far; None while no result has been seen."""
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
        self._weigh(self._running.popleft())
        return cast("ResultT", result)

    async def _fill(self) -> None:
        while not self._exhausted and len(self._running) < self._ahead and self._has_room():
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                self._exhausted = True
            else:
                self._running.append(asyncio.ensure_future(self._call(item)))

    def _has_room(self) -> bool:
        """Whether the budget lets one more call begin."""
        if self._budget is None or not self._running:
            return True
        weights = [self._weigh(future) for future in self._running]
        if self._heaviest is None:
            return False
        heaviest = self._heaviest
        return sum(heaviest if weight is None else weight for weight in weights) + heaviest <= self._budget.limit

    def _weigh(self, future: asyncio.Future[ResultT]) -> int | None:
        """Bytes of the call's result; None while it is in flight, and for an error."""
        if self._budget is None or not future.done() or future.cancelled() or future.exception() is not None:
            return None
        weight = self._budget.weigh(future.result())
        self._heaviest = max(weight, self._heaviest or 0)
        return weight

    async def aclose(self) -> None:
        """No call is in flight any more."""
        self._exhausted = True
        running = list(self._running)
        self._running.clear()
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if isinstance(self._items, AsyncGenerator):
            await self._items.aclose()
