"""An open store on a bucket, by the transport that the settings name: each is imported when it is asked for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, nullcontext, suppress
from typing import TYPE_CHECKING, TypeVar

from s3_checkpoint._concurrency.gc_pause import collector_paused
from s3_checkpoint._concurrency.open_once import OpenOnce
from s3_checkpoint.errors import ConfigurationError
from s3_checkpoint.object_store import ObjectStore, check_store
from s3_checkpoint.request_events import OnRequest
from s3_checkpoint.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

T = TypeVar("T")


def import_transport(settings: S3Settings | str | None) -> str:
    """Imports the library that these settings, or the environment, name, before a store is opened; returns its name."""
    if isinstance(settings, S3Settings):
        name: str = settings.transport
    else:
        name = os.environ.get("S3_CHECKPOINT_TRANSPORT") or S3Settings.model_fields["transport"].default
    if name == "obstore":
        with suppress(ImportError):  # told when the store is opened
            import s3_checkpoint._obstore.store
    else:
        import s3_checkpoint._s3.client  # noqa: F401
    return name


@asynccontextmanager
async def open_store(
    settings: S3Settings,
    client: S3Client | None = None,
    session: object | None = None,
    *,
    on_request: OnRequest | None = None,
) -> AsyncIterator[ObjectStore]:
    """A store on the bucket of the settings, open inside the block.

    Requests: none but those that the credentials need.

    Args:
        settings: Where and how; `transport` names the library that sends the requests.
        client: An open S3 client to use instead of making one; it is not closed. With `aiobotocore` only.
        session: A session of aioboto3 or aiobotocore to make the client from. With `aiobotocore` only.
        on_request: Called after each request.

    Yields:
        A store that belongs to the running event loop.

    Raises:
        ConfigurationError: No client can be made of the settings, the extra of the transport is not installed, or a
            `client` or `session` was given to a transport that uses neither.
    """
    if settings.transport == "obstore":
        if client is not None or session is not None:
            raise ConfigurationError(
                "`client` and `session` are the SDK's, and transport='obstore' uses neither; leave one of them out",
                settings.bucket,
            )
        try:
            import obstore  # noqa: F401 - told apart from an import that fails inside
        except ImportError as error:
            raise ConfigurationError(
                "transport='obstore' needs the extra of that name: pip install 's3-checkpoint[obstore]'",
                settings.bucket,
                f"{type(error).__name__}: {error}",
            ) from error
        from s3_checkpoint._obstore.store import ObstoreObjectStore

        with closing(ObstoreObjectStore(settings, on_request)) as light:
            yield light
        return
    # The SDK takes a quarter of a second to import; a caller that only constructs does not wait for it.
    from s3_checkpoint._s3.client import client_for
    from s3_checkpoint._s3.store import S3ObjectStore

    async with client_for(settings, session) if client is None else nullcontext(client) as used:
        with closing(S3ObjectStore(used, settings, on_request)) as store:
            yield store


def source_of(source: S3Settings | ObjectStore | str | None) -> S3Settings | ObjectStore:
    """A store as it is; else what `S3Settings.resolve` makes of it.

    Raises:
        ConfigurationError: As when settings are made.
        InvalidArgumentError: It is neither.
    """
    if source is None or isinstance(source, S3Settings | str):
        return S3Settings.resolve(source)
    check_store(source, ", S3Settings, a bucket's name or an s3:// URL")
    return source


def opening_of(
    source: S3Settings | ObjectStore,
    make: Callable[[ObjectStore], T],
    *,
    session: object | None = None,
    on_request: OnRequest | None,
    thread: str,
) -> OpenOnce[T]:
    """How to open what `make` makes: on a client of its own, from settings, or on a store that its owner closes.

    Args:
        source: Settings, or an open store.
        make: Called with the open store.
        session: As of `open_store`; only with settings.
        on_request: As of `open_store`; only with settings.
        thread: The name of the thread that the requests are made in; not where the store has a loop.
    """
    if not isinstance(source, S3Settings):
        return OpenOnce(lambda: nullcontext(make(source)), name=thread, loop=source.loop)

    @asynccontextmanager
    async def new() -> AsyncIterator[T]:
        with collector_paused():
            import_transport(source)
        async with open_store(source, session=session, on_request=on_request) as store:
            yield make(store)

    return OpenOnce(new, name=thread)
