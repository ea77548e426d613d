"""What the saver and the store have in common: whose settings they follow, and `setup`."""

from __future__ import annotations

from typing import Protocol, TypeVar

from s3_checkpoint._concurrency.open_once import AsyncOpened, SyncOpened
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.settings import OF_A_STORE, S3Settings


class OnObjects(Protocol):
    """What is made on an open object store."""

    objects: ObjectStore
    """The object store."""


T = TypeVar("T", bound=OnObjects)


def settings_of(source: S3Settings | ObjectStore, **given: object) -> S3Settings:
    """The settings to follow: what is `given`, not None; else those of `source`, which for a store are the defaults."""
    settings = source if isinstance(source, S3Settings) else OF_A_STORE
    return settings.model_copy(update={name: value for name, value in given.items() if value is not None})


class Opened(SyncOpened[T], AsyncOpened[T]):
    """What opens a client by its first call, on entering or in `setup`, where it was made from settings."""

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

    async def _check_bucket(self, opened: T) -> None:
        await opened.objects.list(self._root, limit=1)
