"""Around one request of a store on S3: may it be made, how long did it take, what became of it.

A request is made only while the store is open, and in the store's event loop. It is timed and told to the observer,
ends with `LifecycleError` when the store is closed, and raises our errors only: those of the SDK, the HTTP library and
the event loop are mapped here (`error_mapping`).
"""

from __future__ import annotations

import asyncio

from botocore.exceptions import ClientError

from s3_checkpoint._concurrency.one_loop import check_usable, closed_in_progress
from s3_checkpoint._s3.error_mapping import error_of
from s3_checkpoint.errors import CheckpointError, ConfigurationError
from s3_checkpoint.request_events import Exchange, RequestObserver


class RequestScopes:
    """The scopes of one store, which belongs to the event loop it is made in."""

    def __init__(self, bucket: str, observer: RequestObserver) -> None:
        self.bucket = bucket
        self.observer = observer
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.in_flight: set[asyncio.Task[object]] = set()
        self.cancelled: set[asyncio.Task[object]] = set()
        """Tasks cancelled by `close` whose requests have not ended yet."""

    def close(self) -> None:
        """From now on no request can be made, and those in flight end with `LifecycleError`.

        Left alone, they would wait for a client that is gone; or the SDK would open connections that are never closed.
        """
        self.closed = True
        for task in self.in_flight:
            task.cancel()
            self.cancelled.add(task)

    def request(self, operation: str, key: str) -> RequestScope:
        """The scope of one request. Raises `LifecycleError` if none can be made here."""
        check_usable(self.loop, closed=self.closed)
        return RequestScope(self, operation, key)


class RequestScope:
    """A context manager; a class, as a generator costs more CPU than the rest of it."""

    __slots__ = ("_cancelled_before", "_exchange", "_key", "_operation", "_scopes", "_task", "_watched")

    def __init__(self, scopes: RequestScopes, operation: str, key: str) -> None:
        self._scopes, self._operation, self._key = scopes, operation, key

    def __enter__(self) -> Exchange:
        self._exchange = Exchange()
        self._watched = self._scopes.observer.watches
        if self._watched:
            self._scopes.observer.begin(self._exchange)
        self._task = asyncio.current_task()  # None where the coroutine is driven by hand: there is nothing to cancel
        if self._task is not None:
            self._cancelled_before = self._task.cancelling()
            self._scopes.in_flight.add(self._task)
        return self._exchange

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        ours = self._mapped(error, closed=self._leave())
        if self._watched:
            self._scopes.observer.end(self._operation, self._key, self._exchange, ours or error)
        if ours is not None:
            cause = None if isinstance(error, asyncio.CancelledError) else error
            raise ours from (error.__cause__ or error if isinstance(error, ConfigurationError) else cause)

    def _leave(self) -> bool:
        """The task is no longer in flight; whether `close` cancelled it."""
        if self._task is None:
            return False
        self._scopes.in_flight.discard(self._task)
        closed = self._task in self._scopes.cancelled
        self._scopes.cancelled.discard(self._task)
        return closed

    def _mapped(self, error: BaseException | None, *, closed: bool) -> CheckpointError | None:
        """What is raised in the place of `error`; None if it is raised itself."""
        if isinstance(error, asyncio.CancelledError):
            if closed and self._task is not None and self._task.uncancel() <= self._cancelled_before:
                return closed_in_progress()
        elif isinstance(error, ConfigurationError) and not error.bucket:
            # From below the SDK, where the bucket is not known.
            return ConfigurationError(error.problem, self._scopes.bucket, error.detail)
        elif isinstance(error, Exception) and not isinstance(error, CheckpointError):
            if isinstance(error, ClientError):
                self._exchange.answer = error.response
            return error_of(error, self._operation, self._scopes.bucket, self._key)
        return None
