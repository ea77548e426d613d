"""The one door between a store on S3 and the SDK: who may go through it, and what comes back out of it.

Usable at all before a request: open, and in the loop it belongs to. Behind it, only our errors: the SDK's, the HTTP
library's and the event loop's end here. Whoever is inside when it is closed is sent away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import aiohttp
from botocore import exceptions as sdk
from botocore.exceptions import BotoCoreError, ClientError

from s3_checkpoint.errors import (
    CheckpointError,
    ConfigurationError,
    LifecycleError,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint.request_events import Exchange, RequestObserver
from s3_checkpoint.s3_errors import WRITES, error_for

_CONFIGURATION_ERRORS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.TokenRetrievalError,
    sdk.SSOError,
    sdk.ProfileNotFound,
    sdk.NoRegionError,
    sdk.InvalidRegionError,
    sdk.EndpointProviderError,
    sdk.ParamValidationError,
    sdk.SSLError,
    sdk.ProxyConnectionError,
    sdk.UnsupportedS3ConfigurationError,
    sdk.UnsupportedS3AccesspointConfigurationError,
)
"""What the SDK raises before, or instead of, asking the store; every other `BotoCoreError` is a failed exchange."""

EXCHANGE_ERRORS = (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError)
"""No answer, or none that can be understood: asking again may help."""


class S3Door:
    """Belongs to the event loop it is made in."""

    def __init__(self, bucket: str, observer: RequestObserver) -> None:
        self._bucket = bucket
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
        if isinstance(error, ClientError):
            exchange.answer = error.response
            message = str(error.response.get("Error", {}).get("Message", ""))
            return error_for(operation, self._bucket, key, code_of(error), status_of(error), message)
        if isinstance(error, _CONFIGURATION_ERRORS):
            problem = "the request could not be made as configured"
            if isinstance(error, sdk.NoCredentialsError):
                problem = "no credentials were found; give a profile, a role, or an access key and its secret"
            return ConfigurationError(problem, self._bucket, str(error))
        if type(error) is RuntimeError or _is_of_the_loop(error):
            return LifecycleError(
                "the client cannot be used here: it was opened in another event loop, or is closed; "
                "open it, and the checkpointer with it, inside this loop"
            )
        if isinstance(error, EXCHANGE_ERRORS):
            detail = f"{type(error).__name__}: {error}"[:300]
            return StoreUnavailableError(
                operation, self._bucket, key, outcome_unknown=operation in WRITES, detail=detail
            )
        # The SDK's parsers let through what they stumble over: a date that is none is a bare ValueError.
        detail = f"its answer cannot be understood: {type(error).__name__}: {error}"[:300]
        return StoreError(operation, self._bucket, key, detail)


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
        elif isinstance(error, Exception) and not isinstance(error, CheckpointError):
            raise self._door.ours(error, self._operation, self._key, self._exchange) from error


def _is_of_the_loop(error: BaseException) -> bool:
    """Whether the SDK wraps what asyncio says of futures of another loop, or of a closed one."""
    inner = error.__cause__ or error.__context__
    return type(error) is sdk.HTTPClientError and type(inner) is RuntimeError


def code_of(error: ClientError) -> str:
    """S3's own word for what went wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status, or 0."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
