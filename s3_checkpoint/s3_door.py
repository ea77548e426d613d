"""The one door between a store on S3 and the SDK: who may go through it, and what comes back out of it.

Usable at all before a request: open, and in the loop it belongs to. Behind it, only our errors: the SDK's, the HTTP
library's and the event loop's end here. Whoever is inside when it is closed is sent away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

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

    @contextmanager
    def request(self, operation: str, key: str) -> Iterator[Exchange]:
        """Around one request. Raises our errors only, and what the block itself raises of them."""
        if self.closed:
            raise LifecycleError("this checkpointer is closed; use it inside its `async with connect(...)` block")
        if asyncio.get_running_loop() is not self.loop:
            raise LifecycleError(
                "this checkpointer was opened in another event loop; open one inside this loop with "
                "`async with connect(...)`, or use SyncS3Checkpointer, which has a loop of its own"
            )
        with self._observer.exchange(operation, key) as exchange, self._until_closed():
            try:
                yield exchange
            except ClientError as error:
                exchange.answer = error.response
                message = str(error.response.get("Error", {}).get("Message", ""))
                raise error_for(operation, self._bucket, key, code_of(error), status_of(error), message) from error
            except _CONFIGURATION_ERRORS as error:
                problem = "the request could not be made as configured"
                if isinstance(error, sdk.NoCredentialsError):
                    problem = "no credentials were found; give a profile, a role, or an access key and its secret"
                raise ConfigurationError(problem, self._bucket, str(error)) from error
            except EXCHANGE_ERRORS as error:
                if _is_of_the_loop(error):
                    raise LifecycleError(_FOREIGN_CLIENT) from error
                detail = f"{type(error).__name__}: {error}"[:300]
                raise StoreUnavailableError(
                    operation, self._bucket, key, outcome_unknown=operation in WRITES, detail=detail
                ) from error
            except CheckpointError:
                raise
            except Exception as error:
                if type(error) is RuntimeError:
                    raise LifecycleError(_FOREIGN_CLIENT) from error
                # The SDK's parsers let through what they stumble over: a date that is none is a bare ValueError.
                detail = f"its answer cannot be understood: {type(error).__name__}: {error}"[:300]
                raise StoreError(operation, self._bucket, key, detail) from error

    @contextmanager
    def _until_closed(self) -> Iterator[None]:
        task = asyncio.current_task()
        if task is None:  # driven by hand: there is nothing to cancel
            yield
            return
        cancelled_before = task.cancelling()
        self._inside.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task in self._sent_away and task.uncancel() <= cancelled_before:
                raise LifecycleError(
                    "this checkpointer was closed while the call was under way; whether a write took effect is "
                    "unknown. Wait for all calls before leaving the `async with connect(...)` block"
                ) from None
            raise
        finally:
            self._inside.discard(task)
            self._sent_away.discard(task)


_FOREIGN_CLIENT = (
    "the client cannot be used here: it was opened in another event loop, or is closed; "
    "open it, and the checkpointer with it, inside this loop"
)


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
