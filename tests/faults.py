"""What can go wrong between a checkpointer and its store, as wrappers of a few lines around any object store.

Each acts on the requests that its `Aim` meets and passes the others on. They nest: `AnswerLost(Conflict409(store))`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, TypeVar, cast

from s3_checkpoint._error_codes import ACTIONS, WRITES
from s3_checkpoint.errors import AccessDeniedError, StoreUnavailableError
from s3_checkpoint.object_store import (
    PAGE_KEYS,
    ListedObject,
    ObjectAttributes,
    ObjectHead,
    ObjectStore,
    Page,
    PutMode,
    Refused,
    StoredObject,
    Written,
)

T = TypeVar("T")
Send = Callable[[], Awaitable[T]]
Verb = Literal["GetObject", "HeadObject", "PutObject", "ListObjectsV2", "DeleteObjects", "CopyObject"]


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
    under: str = ""
    first: int = 1
    times: int = 1
    met: int = field(default=0, init=False)

    def meets(self, request: Request) -> bool:
        """Counts the request, and says whether it is one of those."""
        if (self.verb and request.verb != self.verb) or self.under not in request.key:
            return False
        self.met += 1
        return self.first <= self.met < self.first + self.times


def state_put(*, first: int = 1, times: int = 1) -> Aim:
    """The commit point: the PUT of a state object."""
    return Aim("PutObject", "/steps/", first, times)


class Wrapper:
    """Passes everything on, through one method that a fault overrides."""

    def __init__(self, store: ObjectStore, aim: Aim | None = None) -> None:
        self.store = store
        self.aim = aim or Aim()

    @property
    def bucket(self) -> str:
        return self.store.bucket

    @property
    def ordered(self) -> bool:
        return self.store.ordered

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        return self.store.loop

    async def around(self, request: Request, send: Send[T]) -> T:
        """One request: `send()` performs it, once for each call of it."""
        return await send()

    def unavailable(self, request: Request, detail: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            request.verb, self.bucket, request.key, outcome_unknown=request.verb in WRITES, detail=detail
        )

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        return await self.around(Request("GetObject", key), lambda: self.store.get(key, max_bytes=max_bytes))

    async def head(self, key: str) -> ObjectHead | None:
        return await self.around(Request("HeadObject", key), lambda: self.store.head(key))

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        return await self.around(
            Request("PutObject", key, mode), lambda: self.store.put(key, body, attributes, mode=mode)
        )

    async def list(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str | None = None,
        delimiter: str = "",
        limit: int = PAGE_KEYS,
    ) -> Page:
        return await self.around(
            Request("ListObjectsV2", prefix),
            lambda: self.store.list(prefix, start_after=start_after, token=token, delimiter=delimiter, limit=limit),
        )

    async def delete(self, keys: Sequence[str]) -> None:
        await self.around(Request("DeleteObjects", keys[0] if keys else ""), lambda: self.store.delete(keys))

    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        return await self.around(
            Request("CopyObject", target), lambda: self.store.copy(source, target, attributes=attributes)
        )


class Crash(BaseException):
    """The process is gone: nothing after the request in hand happens. No `except Exception` holds it up."""


class CrashBefore(Wrapper):
    """The process dies before the request leaves."""

    async def around(self, request: Request, send: Send[T]) -> T:
        if self.aim.meets(request):
            raise Crash
        return await send()


class CrashAfter(Wrapper):
    """The process dies once the request has taken effect, before its answer arrives."""

    async def around(self, request: Request, send: Send[T]) -> T:
        answer = await send()
        if self.aim.meets(request):
            raise Crash
        return answer


class AnswerLost(Wrapper):
    """The request takes effect, its answer does not arrive, and the HTTP client sends it again."""

    async def around(self, request: Request, send: Send[T]) -> T:
        if self.aim.meets(request):
            await send()
        return await send()


class Unanswered(Wrapper):
    """Time-out: no answer ever. Whether the request took effect (`landed`) cannot be seen from here."""

    def __init__(self, store: ObjectStore, aim: Aim | None = None, *, landed: bool) -> None:
        super().__init__(store, aim)
        self.landed = landed

    async def around(self, request: Request, send: Send[T]) -> T:
        if not self.aim.meets(request):
            return await send()
        if self.landed:
            await send()
        raise self.unavailable(request, "ReadTimeoutError")


class Conflict409(Wrapper):
    """A conditional PUT is refused because another write is under way, though in the end none of them lands.

    `code`: S3 says `ConditionalRequestConflict`, Ceph RGW `ConcurrentModification`.
    """

    def __init__(self, store: ObjectStore, aim: Aim | None = None, *, code: str = "ConditionalRequestConflict") -> None:
        super().__init__(store, aim or state_put())
        self.code = code

    async def around(self, request: Request, send: Send[T]) -> T:
        if request.mode not in (None, "overwrite") and self.aim.meets(request):
            return cast("T", Refused(self.code))
        return await send()


class SlowDown503(Wrapper):
    """The store asks for patience until the client's attempts are used up; the request took no effect."""

    async def around(self, request: Request, send: Send[T]) -> T:
        if self.aim.meets(request):
            raise self.unavailable(request, "SlowDown: Please reduce your request rate.")
        return await send()


class Denied(Wrapper):
    """The credentials may not do this."""

    async def around(self, request: Request, send: Send[T]) -> T:
        if self.aim.meets(request):
            raise AccessDeniedError(self.bucket, request.key, ACTIONS[request.verb], "AccessDenied")
        return await send()


class CorruptBody(Wrapper):
    """What is read is not what was written: `damage` makes one body of another."""

    def __init__(self, store: ObjectStore, damage: Callable[[bytes], bytes], aim: Aim | None = None) -> None:
        super().__init__(store, aim or Aim("GetObject"))
        self.damage = damage

    async def around(self, request: Request, send: Send[T]) -> T:
        answer = await send()
        if isinstance(answer, StoredObject) and self.aim.meets(request):
            return cast("T", replace(answer, body=self.damage(answer.body)))
        return answer


class ListedButGone(Wrapper):
    """A listing shows keys that are not there (any more): `names` are put under each prefix that is listed."""

    def __init__(self, store: ObjectStore, names: Sequence[str], aim: Aim | None = None) -> None:
        super().__init__(store, aim or Aim("ListObjectsV2"))
        self.names = names

    async def around(self, request: Request, send: Send[T]) -> T:
        answer = await send()
        if isinstance(answer, Page) and self.aim.meets(request):
            gone = [ListedObject(request.key + name, 2, datetime(2026, 1, 1, tzinfo=UTC)) for name in self.names]
            objects = sorted([*answer.objects, *gone], key=lambda line: line.key.encode())
            return cast("T", Page.of(objects, answer.prefixes, answer.next_token))
        return answer


class SmallPages(Wrapper):
    """No fault: a store whose pages hold `keys` keys, so that a run of a few steps is a long one."""

    def __init__(self, store: ObjectStore, keys: int) -> None:
        super().__init__(store)
        self.keys = keys

    async def list(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str | None = None,
        delimiter: str = "",
        limit: int = PAGE_KEYS,
    ) -> Page:
        limit = min(limit, self.keys)
        return await self.store.list(prefix, start_after=start_after, token=token, delimiter=delimiter, limit=limit)
