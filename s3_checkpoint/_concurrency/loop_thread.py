"""One event loop in a thread of its own, for code that has no loop and for objects that are used from many.

A client of the store belongs to the loop that opened it. What must be callable from any thread opens its client here,
and sends every call here. `BorrowedLoop` has the same methods for a loop that the application runs.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from s3_checkpoint.errors import LifecycleError

T = TypeVar("T")

_CLOSED = "closed already; make a new one"
_CUT_SHORT = "closed while this call was in flight; its outcome is unknown"
_NEVER_RETURNS = (
    "a blocking call was made from the loop that must carry it out, and would never return; use the async method there"
)
_living: weakref.WeakSet[LoopThread] = weakref.WeakSet()
_parents: list[asyncio.AbstractEventLoop] = []
"""Loops of the process this one was forked from. Kept: to collect one would warn of it as unclosed, and to close it
would disturb the parent, which shares its file descriptors."""


class LoopThread:
    """An event loop in a daemon thread; the first call starts it.

    A forked child has no threads: there, the next call starts another loop, and `loop` is another object. What was
    opened in the parent's loop is the parent's; `OpenOnce` opens it again.
    """

    def __init__(self, name: str = "s3-checkpoint") -> None:
        self._name = name
        self._closed = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        _living.add(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop; started if it is not. Raises `LifecycleError` after `close`."""
        with self._lock:
            return self._started()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Starts `coroutine` in the loop, from any thread, and returns at once.

        It runs in a copy of the caller's context. Cancelling the future cancels it. Inside another loop, await it with
        `asyncio.wrap_future`. Raises `LifecycleError` after `close`; the coroutine has not begun then.
        """
        try:
            with self._lock:
                return asyncio.run_coroutine_threadsafe(coroutine, self._started())
        except BaseException:
            coroutine.close()
            raise

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What `coroutine` returns or raises, having run in the loop; blocks the calling thread until then.

        A `KeyboardInterrupt` while waiting cancels the coroutine. Raises `LifecycleError` after `close`, from
        within the loop's own thread (waiting there would never end), and when `close` cuts the call short.
        """
        if self.is_current():
            coroutine.close()
            raise LifecycleError(_NEVER_RETURNS)
        future = self.submit(coroutine)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if self._closed:
                raise LifecycleError(_CUT_SHORT) from None
            raise
        except BaseException:
            future.cancel()  # done already if the coroutine raised; cuts it short if the wait was interrupted
            raise

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """`run`, without blocking the running loop, which may be any. Cancelling reaches the coroutine."""
        if self.is_current():
            return await coroutine
        future = self.submit(coroutine)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise LifecycleError(_CUT_SHORT) from None
            raise

    def is_current(self) -> bool:
        """Whether the calling thread is the one that runs the loop."""
        return self._thread is threading.current_thread()

    def close(self, *, wait_s: float | None = None) -> None:
        """Cancels what still runs, ends the loop and waits for its thread. Closing twice, or unused, does nothing.

        Waits for at most `wait_s` seconds; default: for as long as it takes. Raises `LifecycleError` from within the
        loop's own thread.
        """
        if self.is_current():
            raise LifecycleError("the loop's own thread cannot close it; close it from another")
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
            self._loop, self._thread = None, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(wait_s)

    def _forget(self) -> None:
        """Back to not started, in a child that has neither the thread nor the one that held the lock."""
        self._lock = threading.Lock()
        if self._loop is not None:
            _parents.append(self._loop)
        self._loop, self._thread = None, None

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise LifecycleError(_CLOSED)
        if self._loop is None:
            ready: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
            self._thread = threading.Thread(target=_serve, args=(ready,), name=self._name, daemon=True)
            self._thread.start()
            self._loop = ready.result()
            weakref.finalize(self, _stop, self._loop).atexit = False
        return self._loop


class BorrowedLoop:
    """The methods of `LoopThread` for a loop that its owner runs and ends."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._pid = os.getpid()
        self._closed = False

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """See `LoopThread.submit`. Raises `LifecycleError` where the loop does not run, or is a parent process's."""
        if self._closed or not self.loop.is_running() or self._pid != os.getpid():
            coroutine.close()
            ended = "the event loop that the store belongs to does not run in this process any more"
            raise LifecycleError(_CLOSED if self._closed else ended)
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """See `LoopThread.run`."""
        if self.is_current():
            coroutine.close()
            raise LifecycleError(_NEVER_RETURNS)
        future = self.submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def arun(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """See `LoopThread.arun`."""
        if not self.is_current():
            return await asyncio.wrap_future(self.submit(coroutine))
        if self._closed:
            coroutine.close()
            raise LifecycleError(_CLOSED)
        return await coroutine

    def is_current(self) -> bool:
        """Whether the caller runs in the loop."""
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def close(self, *, wait_s: float | None = None) -> None:
        """Refuses calls from now on; the loop is left to its owner."""
        self._closed = True


def _serve(ready: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        ready.set_result(loop)
        loop.run_forever()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    """Ends the loop of one that was dropped without `close`."""
    with contextlib.suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(loop.stop)


def _after_fork_in_child() -> None:
    for loop_thread in list(_living):
        loop_thread._forget()


if hasattr(os, "register_at_fork"):  # not on Windows, where there is no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
