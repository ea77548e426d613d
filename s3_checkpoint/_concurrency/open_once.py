"""Something opened once per process, in one event loop, and used from every thread and every other loop.

A client of the store belongs to the loop that opened it. `OpenOnce` keeps the client, or what is made of it, together
with that loop: it is opened by the first call, every call is carried out there, a forked child opens its own, and the
end of the process closes what nobody closed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from s3_checkpoint._concurrency.loop_thread import BorrowedLoop, LoopThread
from s3_checkpoint.errors import LifecycleError

T = TypeVar("T")
R = TypeVar("R")

FORGOTTEN_S = 2.0
"""Seconds that closing may take which the caller did not ask for: at exit, or when all references are dropped."""


@dataclass(frozen=True, slots=True)
class _Opened(Generic[T]):
    value: T
    stack: AsyncExitStack
    pid: int
    iterations: set[AsyncIterator[Any]]
    """Those in progress: ended before the value is closed."""


_parents: list[_Opened[Any]] = []
"""What the process this one was forked from had opened. Kept: to collect it would close sockets the parent uses."""


class OpenOnce(Generic[T]):
    """A value that is opened once per process and used in its loop. Methods can be called from any thread and loop.

    A call from the loop itself must be one of the async methods: a blocking one would never return, and raises
    `LifecycleError`, as do all calls after `close`.
    """

    def __init__(
        self,
        new: Callable[[], AbstractAsyncContextManager[T]],
        *,
        name: str = "s3-checkpoint",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Opens nothing yet, and starts no thread.

        Args:
            new: Gives what is entered to open the value, and left to close it; both in the value's loop. An opening
                that fails is tried again by the next call.
            name: Of the loop's thread.
            loop: The loop to use, which its owner runs; what is opened there is closed by `close` alone. Default: one
                of its own, in a daemon thread.
        """
        self._new = new
        self._lane: LoopThread | BorrowedLoop = LoopThread(name) if loop is None else BorrowedLoop(loop)
        self._gate: tuple[int, asyncio.Lock] | None = None
        self._opened: _Opened[T] | None = None
        self._at_end: weakref.finalize[[LoopThread, _Opened[T]], OpenOnce[T]] | None = None

    def call(self, function: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        """What `function(value)` returns or raises, having run in the value's loop; blocks the calling thread."""
        return self._lane.run(self._with_value(function))

    async def acall(self, function: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        """`call`, without blocking the running loop. Cancelling reaches `function`."""
        return await self._lane.arun(self._with_value(function))

    def iterate(self, start: Callable[[T], AsyncIterator[R]]) -> Iterator[R]:
        """The items of the async iterator that `start(value)` gives, each awaited in the value's loop.

        Leaving the iteration ends it there; so does `close`, and the next item raises `LifecycleError` then.
        """

        async def begin(value: T) -> tuple[AsyncIterator[R], set[AsyncIterator[Any]]]:
            assert self._opened is not None  # noqa: S101 - it gave the value
            items = start(value)
            self._opened.iterations.add(items)
            return items, self._opened.iterations

        async def following() -> list[R]:
            try:
                return [await anext(items)]
            except StopAsyncIteration:
                return []

        items, iterations = self.call(begin)
        try:
            while found := self._lane.run(following()):
                yield found[0]
        finally:
            iterations.discard(items)
            with contextlib.suppress(LifecycleError):  # closed since, and the iteration with it
                self._lane.run(_end(items))

    def open(self) -> None:
        """The value is open afterwards; opened now, if it was not. Raises what opening it raises."""
        self._lane.run(self._open())

    async def aopen(self) -> None:
        """`open`, without blocking the running loop."""
        await self._lane.arun(self._open())

    def close(self) -> None:
        """Closes what this process opened, and ends the thread. Closing twice, or unused, does nothing.

        Calls in progress end with `LifecycleError`.
        """
        if self._is_open():
            with contextlib.suppress(LifecycleError):  # another thread was first
                self._lane.run(self._close())
        self._lane.close()

    async def aclose(self) -> None:
        """`close`, without blocking the running loop."""
        if self._is_open():
            with contextlib.suppress(LifecycleError):
                await self._lane.arun(self._close())
        await asyncio.to_thread(self._lane.close)

    def _is_open(self) -> bool:
        return self._opened is not None and self._opened.pid == os.getpid()

    async def _with_value(self, function: Callable[[T], Coroutine[Any, Any, R]]) -> R:
        return await function(await self._open())

    async def _open(self) -> T:
        if self._opened is None or not self._is_open():
            pid = os.getpid()
            if self._gate is None or self._gate[0] != pid:
                self._gate = pid, asyncio.Lock()
            async with self._gate[1]:
                if self._opened is None or not self._is_open():
                    if self._opened is not None:
                        _parents.append(self._opened)
                    async with AsyncExitStack() as stack:
                        value = await stack.enter_async_context(self._new())
                        opened = _Opened(value, stack.pop_all(), pid, set())
                    self._opened = opened
                    if isinstance(self._lane, LoopThread):
                        self._at_end = weakref.finalize(self, _close_forgotten, self._lane, opened)
        return self._opened.value

    async def _close(self) -> None:
        opened, self._opened = self._opened, None
        if self._at_end is not None:
            self._at_end.detach()
        if opened is not None:
            await _close(opened)


class SyncOpened(Generic[T]):
    """What is opened on entering, with a plain `with`, and closed on leaving."""

    _opening: OpenOnce[T]

    def close(self) -> None:
        """Closes what this opened, and ends its thread. No request. Calls after it raise `LifecycleError`."""
        self._opening.close()

    def __enter__(self) -> Self:
        self._opening.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncOpened(Generic[T]):
    """What is opened on entering, with `async with`, and closed on leaving."""

    _opening: OpenOnce[T]

    async def aclose(self) -> None:
        """Closes what this opened, and ends its thread. No request. Calls after it raise `LifecycleError`."""
        await self._opening.aclose()

    async def __aenter__(self) -> Self:
        await self._opening.aopen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _end(items: AsyncIterator[Any]) -> None:
    if (aclose := getattr(items, "aclose", None)) is not None:
        await aclose()


async def _close(opened: _Opened[Any]) -> None:
    for items in list(opened.iterations):
        await _end(items)
    await opened.stack.aclose()


def _close_forgotten(lane: LoopThread, opened: _Opened[Any]) -> None:
    """Closes what is still open when it is collected, or when the interpreter exits."""
    if opened.pid != os.getpid():
        return
    if lane.is_current():  # collected in the loop's own thread
        closing = asyncio.get_running_loop().create_task(_close(opened))
        closing.add_done_callback(lambda _, lane=lane: None)  # type: ignore[misc]  # keeps the loop until then
        return
    with contextlib.suppress(LifecycleError, TimeoutError, concurrent.futures.CancelledError):
        lane.submit(_close(opened)).result(FORGOTTEN_S)
    lane.close(wait_s=FORGOTTEN_S)
