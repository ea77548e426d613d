"""One value per request to the store, for a callback, the log and OpenTelemetry.

Requests are logged under `s3_checkpoint.requests`: DEBUG for each, INFO for one that took more than one attempt. What
is known of it is in the record's `extra`, field by field of `RequestEvent` with `s3_` in front: `s3_operation`,
`s3_key`, `s3_duration_s`, `s3_outcome`, …. Text in both is escaped (`printable`): keys and ids are not all ours. No
handlers are added, and no body or credential is logged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from s3_checkpoint._printable import printable
from s3_checkpoint.errors import CheckpointError

_logger = logging.getLogger("s3_checkpoint.requests")


@dataclass(frozen=True, slots=True)
class RequestEvent:
    """A request to the store that has ended, all its attempts included."""

    operation: str
    """S3's name: `GetObject`, `HeadObject`, `PutObject`, `ListObjectsV2`, `DeleteObjects`, `CopyObject`."""
    bucket: str
    key: str
    """Of a listing, its prefix; of a batch of deletes, its first key; of a copy, the target."""
    bytes: int
    """Of the body sent or received, as stored; 0 where there is none."""
    started_at: float
    """Seconds since the epoch."""
    duration_s: float
    attempts: int
    """HTTP requests sent, repeats included; 0 if none could be."""
    outcome: str
    """`ok`; `absent` (no such object); `refused` (a precondition did not hold); `cancelled`; else an error's `code`."""
    status: int
    """HTTP status of the last answer; 0 without one."""
    request_id: str
    """As the store gave it; empty without one."""
    extended_request_id: str = ""
    copy_source: str = ""
    """Bucket and key that were copied from; empty for other operations."""


OnRequest: TypeAlias = Callable[[RequestEvent], None]
"""Called after each request, in the task that made it. What it raises is logged and goes no further."""


class Exchange:
    """A request in flight, and what is known of it so far."""

    __slots__ = ("_began", "_token", "answer", "attempts", "bytes", "copy_source", "outcome", "started_at")

    def __init__(self) -> None:
        self.answer: Mapping[str, Any] = {}
        self.attempts: int = 0
        self.bytes: int = 0
        self.copy_source: str = ""
        self.outcome: str = "ok"
        self.started_at: float = 0.0
        self._began: float = 0.0
        self._token: Token[Exchange | None] | None = None


_in_flight: ContextVar[Exchange | None] = ContextVar("s3_checkpoint_request", default=None)


def count_attempt(**_: object) -> None:
    """For the SDK's `before-send` event: one more HTTP request of the exchange in flight."""
    exchange = _in_flight.get()
    if exchange is not None:
        exchange.attempts += 1


class RequestObserver:
    """Turns exchanges into events, for one bucket."""

    def __init__(self, bucket: str, on_request: OnRequest | None = None) -> None:
        self._bucket = bucket
        self._on_request = on_request

    @property
    def watches(self) -> bool:
        """Whether an event would reach a callback or the log."""
        return self._on_request is not None or _logger.isEnabledFor(logging.INFO)

    @contextmanager
    def exchange(self, operation: str, key: str) -> Iterator[Exchange]:
        """Around one request: the caller notes what it learns in the `Exchange`."""
        exchange = Exchange()
        self.begin(exchange)
        try:
            yield exchange
        except BaseException as error:
            self.end(operation, key, exchange, error)
            raise
        self.end(operation, key, exchange, None)

    def begin(self, exchange: Exchange) -> None:
        """The request starts now, in this task."""
        exchange._token = _in_flight.set(exchange)
        exchange.started_at, exchange._began = time.time(), time.perf_counter()

    def end(self, operation: str, key: str, exchange: Exchange, error: BaseException | None) -> None:
        """The request has ended, in the same task; it is told. `error` is what its caller gets instead of a result."""
        duration = time.perf_counter() - exchange._began
        if exchange._token is not None:
            _in_flight.reset(exchange._token)
        if isinstance(error, CheckpointError):
            exchange.outcome = error.code
        elif error is not None:
            exchange.outcome = "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
        self._tell(operation, key, exchange, duration)
        exchange.answer = {}  # it has the body, and a cancelled timer keeps its context until its time has come

    def _tell(self, operation: str, key: str, exchange: Exchange, duration: float) -> None:
        metadata = exchange.answer.get("ResponseMetadata", {})
        event = RequestEvent(
            operation,
            self._bucket,
            key,
            exchange.bytes,
            exchange.started_at,
            duration,
            exchange.attempts,
            exchange.outcome,
            int(metadata.get("HTTPStatusCode") or 0),
            str(metadata.get("RequestId") or ""),
            str(metadata.get("HostId") or ""),
            exchange.copy_source,
        )
        level = logging.INFO if event.attempts > 1 else logging.DEBUG
        if _logger.isEnabledFor(level):
            _logger.log(level, "%s %s: %s", operation, printable(key), event.outcome, extra=_extra(event))
        if self._on_request is not None:
            try:
                self._on_request(event)
            except Exception:
                # A watcher must not turn a write that happened into one that failed.
                _logger.exception("on_request raised")


def _extra(event: RequestEvent) -> dict[str, object]:
    values = {f"s3_{field.name}": getattr(event, field.name) for field in fields(event)}
    return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}
