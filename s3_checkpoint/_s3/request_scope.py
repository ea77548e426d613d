"""The one door between a store on S3 and the SDK: who may go through it, and what comes back out of it.

Usable at all before a request: open, and in the loop it belongs to. Behind it, only our errors: the SDK's, the HTTP
library's and the event loop's end here. Whoever is inside when it is closed is sent away.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

import aiohttp
from botocore import exceptions as sdk
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from s3_checkpoint._error_codes import WRITES, error_for
from s3_checkpoint._s3.http_session import NotS3Error
from s3_checkpoint._s3.machine_faults import PROBLEMS, described, machine_fault, without_userinfo
from s3_checkpoint.errors import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    LifecycleError,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint.request_events import Exchange, RequestObserver

EXCHANGE_ERRORS = (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError)
"""No answer, or none that can be understood: asking again may help."""

_FOR_CREDENTIALS = ("AssumeRole", "GetRoleCredentials", "GetSessionToken", "CreateToken", "CreateOAuth2Token")
"""How the operations begin that the SDK asks of other services, before it asks S3."""


class S3Door:
    """Belongs to the event loop it is made in."""

    def __init__(self, bucket: str, observer: RequestObserver) -> None:
        self.bucket = bucket
        self._observer = observer
        self._inside: set[asyncio.Task[object]] = set()
        self._sent_away: set[asyncio.Task[object]] = set()
        self.loop = asyncio.get_running_loop()
        self.closed = False

    def close(self) -> None:
        """From now on nobody enters, and calls under way end with `LifecycleError`.

        Left alone, they would wait for a client that is gone; or the SDK would open connections that nobody closes.
        """
        self.closed = True
        for task in self._inside:
            task.cancel()
            self._sent_away.add(task)

    def request(self, operation: str, key: str) -> AbstractContextManager[Exchange]:
        """Around one request. Raises our errors only, and what the block itself raises of them."""
        if self.closed:
            raise LifecycleError("this checkpointer is closed; use it inside its `async with connect(...)` block")
        if asyncio.get_running_loop() is not self.loop:
            raise LifecycleError(
                "this checkpointer was opened in another event loop; open one inside this loop with "
                "`async with connect(...)`, or use SyncS3Checkpointer, which has a loop of its own"
            )
        if self._observer.watches:
            return self._watched(operation, key)
        return _Visit(self, operation, key, Exchange())

    @contextmanager
    def _watched(self, operation: str, key: str) -> Iterator[Exchange]:
        with self._observer.exchange(operation, key) as exchange, _Visit(self, operation, key, exchange):
            yield exchange

    def enter(self, task: asyncio.Task[object] | None) -> None:
        """`task` is inside; None if what is inside is driven by hand: then there is nothing to cancel."""
        if task is not None:
            self._inside.add(task)

    def leave(self, task: asyncio.Task[object] | None) -> bool:
        """`task` is no longer inside; whether it was sent away."""
        sent_away = task in self._sent_away
        if task is not None:
            self._inside.discard(task)
            self._sent_away.discard(task)
        return sent_away

    def ours(self, error: Exception, operation: str, key: str, exchange: Exchange) -> CheckpointError:
        """The error of ours that stands for one of the SDK, the HTTP library or the event loop."""
        bucket, write = self.bucket, operation in WRITES
        if isinstance(error, ClientError):
            exchange.answer = error.response
            return _error_of_answer(error, operation, bucket, key)
        if fault := machine_fault(error):
            return ConfigurationError(fault.problem, bucket, fault.detail)
        if _is_of_the_loop(error):
            return LifecycleError(
                "the client cannot be used here: it was opened in another event loop, or is closed; "
                "open it, and the checkpointer with it, inside this loop"
            )
        detail = described(error)
        if isinstance(error, NotS3Error):
            detail = f"its answer is not S3's: {error}"
            if write:
                return StoreUnavailableError(operation, bucket, key, outcome_unknown=True, detail=detail)
            return StoreError(operation, bucket, key, detail)
        if isinstance(error, EXCHANGE_ERRORS):
            return StoreUnavailableError(operation, bucket, key, outcome_unknown=write, detail=detail)
        if isinstance(error, (ValueError, ResponseParserError)):
            # The SDK's parsers let through what they stumble over: a date that is none is a bare ValueError.
            detail = f"its answer cannot be understood: {detail}"
        else:
            detail = f"internal: the SDK failed inside: {detail}"
        return StoreError(operation, bucket, key, detail[:300], outcome_unknown=write)


class _Visit:
    """One request on its way through the door. A class, as a generator for each request costs more than it explains."""

    __slots__ = ("_cancelled_before", "_door", "_exchange", "_key", "_operation", "_task")

    def __init__(self, door: S3Door, operation: str, key: str, exchange: Exchange) -> None:
        self._door, self._operation, self._key, self._exchange = door, operation, key, exchange

    def __enter__(self) -> Exchange:
        self._task = asyncio.current_task()
        self._cancelled_before = self._task.cancelling() if self._task else 0
        self._door.enter(self._task)
        return self._exchange

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        sent_away = self._door.leave(self._task)
        if isinstance(error, asyncio.CancelledError):
            if sent_away and self._task and self._task.uncancel() <= self._cancelled_before:
                raise LifecycleError(
                    "this checkpointer was closed while the call was under way; whether a write took effect is "
                    "unknown. Wait for all calls before leaving the `async with connect(...)` block"
                ) from None
        elif isinstance(error, ConfigurationError) and not error.bucket:
            # From below the SDK, where the bucket is not known.
            raise ConfigurationError(error.problem, self._door.bucket, error.detail) from (error.__cause__ or error)
        elif isinstance(error, Exception) and not isinstance(error, CheckpointError):
            raise self._door.ours(error, self._operation, self._key, self._exchange) from error


_OF_THE_LOOP = re.compile(r"\bloop\b|\bclosed\b|inside a task", re.IGNORECASE)


def _is_of_the_loop(error: BaseException) -> bool:
    """Whether this is, or wraps, what asyncio says of futures of another loop, or of a closed one."""
    inner = error.__cause__ or error.__context__ if type(error) is sdk.HTTPClientError else error
    return type(inner) is RuntimeError and _OF_THE_LOOP.search(str(inner)) is not None


def _error_of_answer(error: ClientError, operation: str, bucket: str, key: str) -> CheckpointError:
    """Our error for an answer: S3's, or of the service that the SDK had asked for credentials before."""
    code, status = code_of(error), status_of(error)
    message = without_userinfo(str(error.response.get("Error", {}).get("Message", "")))
    asked = error.operation_name
    if asked == "CreateSession" and (status == 403 or code == "AccessDenied"):
        return AccessDeniedError(bucket, key, "s3express:CreateSession", f"{code}: {message}"[:300])
    if str(asked).startswith(_FOR_CREDENTIALS):
        detail = f"{asked}: {code}: {message}"[:300]
        if status >= 500 or status == 429 or "Throttl" in code:
            return StoreUnavailableError(operation, bucket, key, outcome_unknown=False, detail=detail)
        return ConfigurationError(PROBLEMS["CredentialRetrievalError"], bucket, detail)
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region, location = headers.get("x-amz-bucket-region", ""), headers.get("location", "")
    host = urlsplit(location).hostname or "" if location else ""
    return error_for(operation, bucket, key, code, status, message, region=region, location=host[:100])


def code_of(error: ClientError) -> str:
    """S3's own word for what went wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status, or 0."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
