"""Calls that block outside the interpreter, made in threads and awaited in an event loop.

For libraries whose own event loop would call into Python from its threads. Such a thread may still wait for the
interpreter when the process ends, and CPython ends a waiting thread by unwinding its stack: through frames of another
language that is an abort (SIGABRT), after all work was done. A thread of ours enters Python from Python only, and the
end of the process waits until no call is in progress.

The threads are daemons, so that a call which never returns cannot keep the process: the wait at exit is bounded.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from s3_checkpoint.errors import LifecycleError

T = TypeVar("T")

_Job = tuple["asyncio.Future[Any]", Callable[..., Any], tuple[Any, ...]]
_Ended = tuple["asyncio.Future[Any]", Any, BaseException | None]

_POLL_S = 0.002
_living: weakref.WeakSet[BlockingCalls] = weakref.WeakSet()


class _Shared:
    """What a pool's threads hold of it: not the pool itself, so that dropping the pool ends them."""

    __slots__ = ("ended", "ending", "in_progress", "jobs", "lock", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.lock = threading.Lock()
        self.in_progress = 0
        """Calls handed over and not yet returned."""
        self.ended: list[_Ended] = []
        """Calls that returned, and whose futures do not know yet. While there is one, the loop has been woken."""
        self.ending = False

    def end(self, ended: _Ended) -> None:
        """The call is over. Wakes the loop once for all calls that end before it looks."""
        with self.lock:
            self.in_progress -= 1
            self.ended.append(ended)
            first = len(self.ended) == 1
        if first:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        with self.lock:
            ended, self.ended = self.ended, []
        for future, result, raised in ended:
            if future.done():
                continue
            if raised is None:
                future.set_result(result)
            elif isinstance(raised, (StopIteration, KeyboardInterrupt, SystemExit)):
                future.set_exception(RuntimeError(f"{type(raised).__name__}: {raised}"))
            else:
                future.set_exception(raised)


class BlockingCalls:
    """At most `threads` threads, each started when a call finds none idle.

    Belongs to the process it is made in and to the event loop that it is given. `longest_s` bounds how long the end of
    the process waits for calls in progress.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int, *, longest_s: float, name: str) -> None:
        self._most = threads
        self.longest_s = longest_s
        self._name = name
        self._shared = _Shared(loop)
        self._started = 0
        self._pid = os.getpid()
        _living.add(self)

    @property
    def in_progress(self) -> int:
        """Calls handed over and not yet returned."""
        return self._shared.in_progress

    def call(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Calls `function(*args)` in a thread; the future gets what it returns or raises.

        A cancelled future does not end a call that has begun: it returns, and nobody is told. One that has not begun
        is not made.

        Raises:
            LifecycleError: The pool is closed, the process is ending, or is a fork of the one the pool was made in.
        """
        if self._pid != os.getpid():
            raise LifecycleError(
                "this checkpointer was opened in the process that this one was forked from; start workers with "
                "`spawn`, and open another one there"
            )
        shared = self._shared
        future: asyncio.Future[T] = shared.loop.create_future()
        with shared.lock:
            if shared.ending:
                raise LifecycleError("this checkpointer is closed, or the process is ending; call before that")
            shared.in_progress += 1
            busy = shared.in_progress
        if busy > self._started < self._most:
            self._started += 1
            threading.Thread(target=_work, args=(shared,), name=f"{self._name}-{self._started}", daemon=True).start()
        shared.jobs.put((future, function, args))
        return future

    def close(self) -> None:
        """No call is taken from now on; the threads end as they become idle. Futures of calls in progress are kept."""
        shared = self._shared
        with shared.lock:
            if shared.ending:
                return
            shared.ending = True
        for _ in range(self._started):
            shared.jobs.put(None)

    def __del__(self) -> None:
        self.close()


def _work(shared: _Shared) -> None:
    while (job := shared.jobs.get()) is not None:
        future, function, args = job
        result: Any = None
        raised: BaseException | None = None
        if not future.cancelled():
            try:
                result = function(*args)
            except BaseException as error:  # noqa: BLE001 - a panic in Rust is no `Exception`
                raised = error
        # Back in Python, from which a thread can be ended: the call is over before its future knows.
        shared.end((future, result, raised))
        del job, future, function, args, result, raised


def _settle_at_exit() -> None:
    """Takes no more calls, and waits for those in progress, each pool as long as its calls may take."""
    pools = [pool for pool in _living if pool._pid == os.getpid()]
    for pool in pools:
        pool.close()
    begun = time.monotonic()
    while any(pool.in_progress and time.monotonic() - begun < pool.longest_s for pool in pools):
        time.sleep(_POLL_S)


atexit.register(_settle_at_exit)
