"""Where a saver's store lives: one event loop, reached from every thread and every other loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import weakref
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from s3_checkpoint._concurrency.loop_thread import LoopThread
from s3_checkpoint.errors import LifecycleError
from s3_checkpoint.langgraph.thread_store import ThreadStore
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.request_events import OnRequest
from s3_checkpoint.settings import S3Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Opened:
    loop: asyncio.AbstractEventLoop
    threads: ThreadStore
    client: AsyncExitStack


_FORGOTTEN_S = 2.0
"""Seconds that closing a forgotten client may take."""
_parents: list[_Opened] = []
"""What was opened by the process this one was forked from. Kept: to collect it would close sockets the parent uses."""


class Home:
    """Makes calls on a `ThreadStore` in the loop it belongs to; shared by a saver and its copies.

    With settings: a loop thread of its own, where `open` makes the client. With a store: the loop the store belongs to
    (`store.loop`, as `S3ObjectStore` has it, be it wrapped or not), and for one that belongs to none, the loop thread.
    """

    def __init__(
        self,
        source: S3Settings | ObjectStore,
        make: Callable[[ObjectStore], ThreadStore],
        on_request: OnRequest | None = None,
    ) -> None:
        self._thread = LoopThread("s3-checkpoint-langgraph")
        self._make = make
        self._on_request = on_request
        self._closed = False
        self._gate: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._opened: _Opened | None = None
        self._settings: S3Settings | None = None
        self._given: ThreadStore | None = None
        self._foreign: asyncio.AbstractEventLoop | None = None
        if isinstance(source, S3Settings):
            self._settings = source
            self.bucket = source.bucket
        else:
            self._given = make(source)
            self._foreign = _loop_of(source)
            self.bucket = source.bucket

    def call(self, operation: Callable[[ThreadStore], Coroutine[Any, Any, T]]) -> T:
        """What `operation` returns or raises; blocks the calling thread until then."""
        if self._foreign is None:
            return self._thread.run(self._run(operation))
        if self._foreign is _running_loop():
            raise LifecycleError(
                "a blocking call was made in the event loop that the store belongs to, and would never return; "
                "use the async method, or S3Saver.from_conn_string, which has a loop of its own"
            )
        future = self._submit_foreign(self._foreign, operation)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def acall(self, operation: Callable[[ThreadStore], Coroutine[Any, Any, T]]) -> T:
        """What `operation` returns or raises, without blocking the running loop. Cancelling reaches it."""
        if self._foreign is None:
            if not self._thread.is_current():
                return await asyncio.wrap_future(self._thread.submit(self._run(operation)))
        elif self._foreign is not asyncio.get_running_loop():
            return await asyncio.wrap_future(self._submit_foreign(self._foreign, operation))
        return await self._run(operation)

    def open(self) -> None:
        """Makes the client, where settings were given; once. No request. `ConfigurationError` if none can be made."""
        if self._settings is not None:
            self._thread.run(self._open(self._settings))

    async def aopen(self) -> None:
        """`open`, without blocking the running loop."""
        if self._settings is not None:
            await asyncio.wrap_future(self._thread.submit(self._open(self._settings)))

    def close(self) -> None:
        """Closes the client that `open` made, and ends the loop thread; a store that was given is left to its owner."""
        self._closed = True
        if self._opened is not None:
            self._thread.run(self._close())
        self._thread.close()

    async def aclose(self) -> None:
        """`close`, without blocking the running loop."""
        self._closed = True
        if self._opened is not None:
            await asyncio.wrap_future(self._thread.submit(self._close()))
        await asyncio.to_thread(self._thread.close)

    async def _run(self, operation: Callable[[ThreadStore], Coroutine[Any, Any, T]]) -> T:
        if self._closed:
            raise LifecycleError("closed already; make a new one")
        threads = self._given
        if threads is None and self._settings is not None:
            if self._opened is None:
                raise LifecycleError(
                    "not open yet; use it inside `with S3Saver.from_conn_string(...) as saver:` (or `async with`), "
                    "or call setup() (or asetup()) once before"
                )
            threads = await self._open(self._settings)  # no more than a look, but in a forked child
        assert threads is not None  # noqa: S101 - a source is either
        return await operation(threads)

    async def _open(self, settings: S3Settings) -> ThreadStore:
        loop = asyncio.get_running_loop()
        if self._opened is not None and self._opened.loop is loop:
            return self._opened.threads
        if self._gate is None or self._gate[0] is not loop:
            self._gate = (loop, asyncio.Lock())
        async with self._gate[1]:
            if self._opened is not None:
                if self._opened.loop is loop:
                    return self._opened.threads
                _parents.append(self._opened)
            # The SDK takes a quarter of a second to import; whoever only constructs does not wait for it.
            from s3_checkpoint._s3.client import client_for
            from s3_checkpoint._s3.store import S3ObjectStore

            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(client_for(settings))
                store = S3ObjectStore(client, settings, self._on_request)
                stack.callback(store.close)
                self._opened = _Opened(loop, self._make(store), stack.pop_all())
            weakref.finalize(self, _close_forgotten, self._opened, os.getpid())
            return self._opened.threads

    async def _close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and opened.loop is asyncio.get_running_loop():
            await opened.client.aclose()
        elif opened is not None:
            _parents.append(opened)

    def _submit_foreign(
        self, loop: asyncio.AbstractEventLoop, operation: Callable[[ThreadStore], Coroutine[Any, Any, T]]
    ) -> concurrent.futures.Future[T]:
        if not loop.is_running():
            raise LifecycleError("the event loop that the store belongs to is not running any more")
        return asyncio.run_coroutine_threadsafe(self._run(operation), loop)


def _loop_of(store: object, depth: int = 4) -> asyncio.AbstractEventLoop | None:
    """The loop that a store, or the store that it wraps, belongs to."""
    loop = getattr(store, "loop", None)
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop
    wrapped = (value for value in vars(store).values() if _is_store(value)) if hasattr(store, "__dict__") else ()
    return next((loop for value in wrapped if depth and (loop := _loop_of(value, depth - 1))), None)


def _is_store(value: object) -> bool:
    return all(callable(getattr(value, verb, None)) for verb in ("get", "head", "put", "list", "delete", "copy"))


def _close_forgotten(opened: _Opened, pid: int) -> None:
    """Closes the client of a saver that was dropped, or is still open when the interpreter exits."""
    if os.getpid() != pid or not opened.loop.is_running() or opened.loop is _running_loop():
        return  # closed with the loop, or another process's
    closing = asyncio.run_coroutine_threadsafe(opened.client.aclose(), opened.loop)
    with contextlib.suppress(TimeoutError, concurrent.futures.CancelledError):
        closing.result(_FORGOTTEN_S)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
