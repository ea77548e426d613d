"""Requests sent together."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")

AT_ONCE = 64
"""As many requests as a client keeps connections for by default; more would only wait there."""


async def both(one: Coroutine[Any, Any, T], other: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """As `together`, for two of different results; neither outlives the call."""
    results: list[Any] = await together([one, other])
    return results[0], results[1]


async def together(calls: Iterable[Coroutine[Any, Any, T]], *, at_once: int = AT_ONCE) -> list[T]:
    """The results, in order. The first failure cancels the others, waits for them to end, and is raised as it is."""
    gate = asyncio.Semaphore(at_once)

    async def through_gate(call: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await call

    waiting = list(calls)
    tasks = [asyncio.ensure_future(through_gate(call)) for call in waiting]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for call in waiting:
            call.close()  # one that had not passed the gate has not begun
        raise
