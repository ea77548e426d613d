"""Bounded concurrency: many calls, a few at a time, and no task left when the caller is done or cancelled.

    `gather_bounded`   the results of all calls, once they are all there
    `both`             the same for two calls with different results
    `ordered_map`      an iteration over the results in order, some calls ahead of the reader
    `task_group`       tasks that start further tasks; what the others are made of

All of them cancel the other calls when one fails, wait for their end, and raise the first error itself: a caller sees
`StoreUnavailableError`, not an `ExceptionGroup` that holds one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")
OtherT = TypeVar("OtherT")

AT_ONCE = 64
"""As many requests as a client keeps connections for by default; more would only wait there."""


class _CallCancelledError(Exception):
    """A call ended with `CancelledError` although its task was not cancelled; a `TaskGroup` would take it as done."""


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """A `TaskGroup` whose first error is raised itself, once the other tasks are cancelled and have ended."""
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        failure = errors.exceptions[0]  # in the order in which the tasks failed
    if failure is not None:
        raise failure  # outside of `except`: its `__context__` stays what it was


async def gather_bounded(calls: Iterable[Coroutine[Any, Any, ResultT]], *, limit: int = AT_ONCE) -> list[ResultT]:
    """The results of `calls`, in order.

    Args:
        calls: Coroutines. A generator makes each one when its turn comes, so that no more than `limit` exist.
        limit: How many run at a time, and how many tasks there are at most: 1 …

    Returns:
        One result for each call.

    Raises:
        BaseException: The first error of a call. The others are cancelled and have ended; the rest never begins.
    """
    results: list[ResultT | None] = []
    waiting = iter(calls)
    first: list[Coroutine[Any, Any, ResultT]] = []

    async def run(index: int, call: Coroutine[Any, Any, ResultT]) -> None:
        while True:
            results[index] = await _told_of_cancellation(call)
            following = next(waiting, None)
            if following is None:
                return
            index, call = len(results), following
            results.append(None)

    try:
        async with task_group() as group:
            while len(first) < limit and (call := next(waiting, None)) is not None:
                first.append(call)
                results.append(None)
                group.create_task(run(len(results) - 1, call))
    except _CallCancelledError as cancelled:
        raise asyncio.CancelledError from cancelled
    finally:
        _close_unbegun(first, waiting)
    return cast("list[ResultT]", results)


async def _told_of_cancellation(call: Coroutine[Any, Any, ResultT]) -> ResultT:
    try:
        return await call
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise _CallCancelledError from error


def _close_unbegun(first: Iterable[Coroutine[Any, Any, Any]], waiting: Iterator[Coroutine[Any, Any, Any]]) -> None:
    """Closes coroutines that were never awaited; Python would warn of them. Closing others changes nothing."""
    for call in first:
        call.close()
    if isinstance(waiting, Generator):
        waiting.close()
    else:
        for call in waiting:
            call.close()


async def both(one: Coroutine[Any, Any, ResultT], other: Coroutine[Any, Any, OtherT]) -> tuple[ResultT, OtherT]:
    """The results of two calls that run at the same time; errors as of `gather_bounded`."""
    results: list[Any] = await gather_bounded([one, other])
    return results[0], results[1]


async def each(items: Iterable[ItemT]) -> AsyncGenerator[ItemT, None]:
    """`items` as an async iterator."""
    for item in items:
        yield item


@dataclass(frozen=True)  # without slots: with them, Python 3.11 cannot make a `Budget[int](…)`
class Budget(Generic[ResultT]):
    """How many bytes of results may be in flight or unread together, and how many a result is."""

    limit: int
    weigh: Callable[[ResultT], int]


def ordered_map(
    call: Callable[[ItemT], Coroutine[Any, Any, ResultT]],
    items: AsyncIterator[ItemT] | Iterable[ItemT],
    *,
    ahead: int,
    budget: Budget[ResultT] | None = None,
) -> OrderedResults[ItemT, ResultT]:
    """The results of `call` on each of `items`, in their order, with at most `ahead` (1 …) calls in flight or unread.

        async with ordered_map(read, steps, ahead=8) as results:
            async for result in results: ...

    Leaving the block cancels the calls in flight and waits for their end. An error of a call is raised in its place in
    the order, and ends the iteration, as cancelling does.

    With a `budget`, the results in flight or unread are held to its bytes as well: a call in flight counts as much as
    the heaviest result so far, so the first goes alone, and at least one always goes. Results that grow from one to the
    next exceed the budget by no more than that growth, for each call in flight.
    """
    return OrderedResults(call, items if isinstance(items, AsyncIterator) else each(items), ahead, budget)


class OrderedResults(Generic[ItemT, ResultT]):
    """What `ordered_map` gives.

    Plain tasks, not a `TaskGroup`: that belongs to the task that entered it, while each step of an iteration may be
    taken by another one (`SyncS3Checkpointer` sends every `anext` to its loop as a call of its own). And a class, not
    an async generator: the event loop closes all generators at its end at the same time, and those that close each
    other get in each other's way.
    """

    def __init__(
        self,
        call: Callable[[ItemT], Coroutine[Any, Any, ResultT]],
        items: AsyncIterator[ItemT],
        ahead: int,
        budget: Budget[ResultT] | None,
    ) -> None:
        self._items = items
        self._call = call
        self._ahead = ahead
        self._budget = budget
        self._heaviest: int | None = None
        """Bytes of the heaviest result so far; None while no result has been seen."""
        self._running: deque[asyncio.Task[ResultT]] = deque()
        self._exhausted = False

    async def __aenter__(self) -> OrderedResults[ItemT, ResultT]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> OrderedResults[ItemT, ResultT]:
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
                self._running.append(asyncio.create_task(self._call(item)))

    def _has_room(self) -> bool:
        """Whether the budget lets one more call begin."""
        if self._budget is None or not self._running:
            return True
        weights = [self._weigh(task) for task in self._running]
        if self._heaviest is None:
            return False
        heaviest = self._heaviest
        return sum(heaviest if weight is None else weight for weight in weights) + heaviest <= self._budget.limit

    def _weigh(self, task: asyncio.Task[ResultT]) -> int | None:
        """Bytes of the call's result; None while it is in flight, and for an error."""
        if self._budget is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        weight = self._budget.weigh(task.result())
        self._heaviest = max(weight, self._heaviest or 0)
        return weight

    async def aclose(self) -> None:
        """No call is in flight any more."""
        self._exhausted = True
        running = list(self._running)
        self._running.clear()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if isinstance(self._items, AsyncGenerator):
            await self._items.aclose()
