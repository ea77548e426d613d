"""Object stores around object stores: the base of every fault, and two that are none.

`SmallPages` makes long listings of short ones, `PrefixedStore` an empty store of a part of one that is in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypedDict, TypeVar, Unpack

from s3_checkpoint._error_codes import WRITES
from s3_checkpoint.errors import StoreUnavailableError
from s3_checkpoint.object_store import (
    PAGE_KEYS,
    ObjectAttributes,
    ObjectHead,
    ObjectStore,
    Page,
    PutMode,
    Refused,
    StoredObject,
    Written,
    lists_whole_pages,
)

T = TypeVar("T")
Send: TypeAlias = Callable[[], Awaitable[T]]
"""Performs a request, once for each call of it."""
Verb: TypeAlias = Literal["GetObject", "HeadObject", "PutObject", "ListObjectsV2", "DeleteObjects", "CopyObject"]
"""A request by S3's name for it."""

EVERY = 2**63
"""More requests than any test makes: `Aim(times=EVERY)` meets all of them."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request on its way: what is asked, of which key (or prefix), and for a PUT how."""

    verb: Verb
    key: str
    mode: PutMode | None = None


@dataclass(slots=True)
class Aim:
    """Meets the `first` … `first + times - 1`-th of the requests with this verb whose key contains `under`."""

    verb: Verb | None = None
    """None: any."""
    under: str = ""
    first: int = 1
    times: int = 1
    met: int = field(default=0, init=False)
    """Requests with this verb under this key, so far."""

    def meets(self, request: Request) -> bool:
        """Counts the request, and says whether it is one of those."""
        if (self.verb and request.verb != self.verb) or self.under not in request.key:
            return False
        self.met += 1
        return self.first <= self.met < self.first + self.times


class ListOptions(TypedDict, total=False):
    """The options of `ObjectStore.list`, to be passed on."""

    start_after: str
    token: str | None
    delimiter: str
    limit: int


class StoreWrapper:
    """An object store that passes everything on, through one method that a fault overrides."""

    def __init__(self, store: ObjectStore, aim: Aim | None = None) -> None:
        """Acts on the requests that `aim` meets. Default: the first one."""
        self.store: ObjectStore = store
        self.aim: Aim = aim or Aim()

    @property
    def bucket(self) -> str:
        """That of the store within."""
        return self.store.bucket

    @property
    def ordered(self) -> bool:
        """As the store within."""
        return self.store.ordered

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """That of the store within."""
        return self.store.loop

    @property
    def whole_pages(self) -> bool:
        """As the store within."""
        return lists_whole_pages(self.store)

    async def around(self, request: Request, send: Send[T]) -> T:
        """One request: `send()` performs it, once for each call of it."""
        return await send()

    def unavailable(self, request: Request, detail: str) -> StoreUnavailableError:
        """What a store raises that had no answer to `request`: the outcome of a write is unknown."""
        return StoreUnavailableError(
            request.verb, self.bucket, request.key, outcome_unknown=request.verb in WRITES, detail=detail
        )

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """See `ObjectStore.get`."""
        return await self.around(Request("GetObject", key), lambda: self.store.get(key, max_bytes=max_bytes))

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`."""
        return await self.around(Request("HeadObject", key), lambda: self.store.head(key))

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        """See `ObjectStore.put`."""
        return await self.around(
            Request("PutObject", key, mode), lambda: self.store.put(key, body, attributes, mode=mode)
        )

    async def list(self, prefix: str, **options: Unpack[ListOptions]) -> Page:
        """See `ObjectStore.list`."""
        return await self.around(Request("ListObjectsV2", prefix), lambda: self.store.list(prefix, **options))

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        await self.around(Request("DeleteObjects", keys[0] if keys else ""), lambda: self.store.delete(keys))

    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        """See `ObjectStore.copy`."""
        return await self.around(
            Request("CopyObject", target), lambda: self.store.copy(source, target, attributes=attributes)
        )


class SmallPages(StoreWrapper):
    """No fault: a store whose pages hold `keys` keys, so that a run of a few steps is a long one."""

    def __init__(self, store: ObjectStore, keys: int) -> None:
        super().__init__(store)
        self.keys: int = keys

    async def list(self, prefix: str, **options: Unpack[ListOptions]) -> Page:
        """See `ObjectStore.list`; at most `keys` keys, whatever `limit` allows."""
        options["limit"] = min(options.get("limit", PAGE_KEYS), self.keys)
        return await self.store.list(prefix, **options)


class PrefixedStore(StoreWrapper):
    """No fault: a store whose keys all lie under `prefix` in the store within, and which sees no others.

    A bucket that is in use can so be an empty one for a test. In errors keys are those of the store within.
    """

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        super().__init__(store)
        self.prefix: str = prefix

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """See `ObjectStore.get`."""
        return await self.store.get(self.prefix + key, max_bytes=max_bytes)

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`."""
        return await self.store.head(self.prefix + key)

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        """See `ObjectStore.put`."""
        return await self.store.put(self.prefix + key, body, attributes, mode=mode)

    async def list(self, prefix: str, **options: Unpack[ListOptions]) -> Page:
        """See `ObjectStore.list`."""
        if start_after := options.get("start_after"):
            options["start_after"] = self.prefix + start_after
        page = await self.store.list(self.prefix + prefix, **options)
        cut = len(self.prefix)
        return replace(page, keys=[key[cut:] for key in page.keys], prefixes=[prefix[cut:] for prefix in page.prefixes])

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        await self.store.delete([self.prefix + key for key in keys])

    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        """See `ObjectStore.copy`."""
        return await self.store.copy(self.prefix + source, self.prefix + target, attributes=attributes)
