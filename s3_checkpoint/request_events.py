"""One value per request to the store, for those who watch: a callback, the log, OpenTelemetry.

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
from contextvars import ContextVar
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
    """A request under way."""

    __slots__ = ("answer", "attempts", "bytes", "copy_source", "outcome")

    def __init__(self) -> None:
        self.answer: Mapping[str, Any] = {}
        self.attempts: int = 0
        self.bytes: int = 0
        self.copy_source: str = ""
        self.outcome: str = "ok"


_under_way: ContextVar[Exchange | None] = ContextVar("s3_checkpoint_request", default=None)


def count_attempt(**_: object) -> None:
    """For the SDK's `before-send` event: one more HTTP request of the exchange under way."""
    exchange = _under_way.get()
    if exchange is not None:
        exchange.attempts += 1


class RequestObserver:
    """Turns exchanges into events, for one bucket."""

    def __init__(self, bucket: str, on_request: OnRequest | None = None) -> None:
        self._bucket = bucket
        self._on_request = on_request

    @property
    def watches(self) -> bool:
        """Whether anybody is told of requests."""
        return self._on_request is not None or _logger.isEnabledFor(logging.INFO)

    @contextmanager
    def exchange(self, operation: str, key: str) -> Iterator[Exchange]:
        """Around one request: the caller notes what it learns in the `Exchange`."""
        exchange = Exchange()
        token = _under_way.set(exchange)
        started_at, begin = time.time(), time.perf_counter()
        try:
            yield exchange
        except CheckpointError as error:
            exchange.outcome = error.code
            raise
        except asyncio.CancelledError:
            exchange.outcome = "cancelled"
            raise
        except BaseException:
            exchange.outcome = "error"
            raise
        finally:
            duration = time.perf_counter() - begin
            _under_way.reset(token)
            self._tell(operation, key, exchange, started_at, duration)

    def _tell(self, operation: str, key: str, exchange: Exchange, started_at: float, duration: float) -> None:
        facts = exchange.answer.get("ResponseMetadata", {})
        event = RequestEvent(
            operation,
            self._bucket,
            key,
            exchange.bytes,
            started_at,
            duration,
            exchange.attempts,
            exchange.outcome,
            int(facts.get("HTTPStatusCode") or 0),
            str(facts.get("RequestId") or ""),
            str(facts.get("HostId") or ""),
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
