"""How the saver and the store open what they are on, once per process, and close it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from s3_checkpoint._concurrency.open_once import OpenOnce
from s3_checkpoint._transports import open_store
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.request_events import OnRequest
from s3_checkpoint.settings import S3Settings


class OnObjects(Protocol):
    """What is made on an open object store."""

    objects: ObjectStore
    """The object store."""


T = TypeVar("T", bound=OnObjects)


def settings_of(source: S3Settings | ObjectStore, **given: object) -> S3Settings:
    """The settings to follow: what is `given`, not None; else those of `source`, which for a store are the defaults."""
    settings = source if isinstance(source, S3Settings) else S3Settings.model_construct()
    return settings.model_copy(update={name: value for name, value in given.items() if value is not None})


class Opened(Generic[T]):
    """What opens a client on entering or in `setup`, where it was made from settings."""

    _opening: OpenOnce[T]
    _root: str
    """The prefix of all its keys: what `setup` lists."""

    def setup(self) -> None:
        """Opens the client if it is not, and checks that the bucket answers. 1 LIST. Can be repeated."""
        self._opening.open()
        self._opening.call(self._check_bucket)

    async def asetup(self) -> None:
        """See `setup`."""
        await self._opening.aopen()
        await self._opening.acall(self._check_bucket)

    def close(self) -> None:
        """Closes what this opened, and ends its thread. No request. It and its copies are of no use after."""
        self._opening.close()

    async def aclose(self) -> None:
        """See `close`."""
        await self._opening.aclose()

    def __enter__(self) -> Self:
        self._opening.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._opening.aopen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _check_bucket(self, opened: T) -> None:
        await opened.objects.list(self._root, limit=1)


def opening(
    source: S3Settings | ObjectStore,
    make: Callable[[ObjectStore], T],
    *,
    session: object | None,
    on_request: OnRequest | None,
    thread: str,
    example: str,
) -> OpenOnce[T]:
    """How to open what `make` makes: on a client of its own, from settings, or on a store that its owner closes.

    Args:
        source: Settings, or an open store.
        make: Called with the open store.
        session: As in `connect`; only with settings.
        on_request: As in `connect`; only with settings.
        thread: The name of the thread that the requests are made in.
        example: How to enter it, for the error of a call before that.
    """
    if not isinstance(source, S3Settings):
        return OpenOnce(lambda: nullcontext(make(source)), name=thread, loop=source.loop)
    unopened = f"not open yet; use it inside `{example}` (or `async with`), or call setup() (or asetup()) once before"
    return OpenOnce(partial(_open_client, source, session, on_request, make), name=thread, unless_opened=unopened)


@asynccontextmanager
async def _open_client(
    settings: S3Settings, session: object | None, on_request: OnRequest | None, make: Callable[[ObjectStore], T]
) -> AsyncIterator[T]:
    async with open_store(settings, session=session, on_request=on_request) as store:
        yield make(store)
