"""What can go wrong between an application and its store, as wrappers around any object store:

    store = Outage(MemoryStore())
    async with connect(Research, store=store) as checkpointer:
        store.down = True
        await checkpointer.resume(run_id)       # StoreUnavailableError

Each acts on the requests that its `Aim` meets and passes the others on. They nest: `AnswerLost(Conflict409(store))`.
A fault of one's own is a `StoreWrapper` with another `around`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

from s3_checkpoint._error_codes import ACTIONS
from s3_checkpoint.errors import AccessDeniedError
from s3_checkpoint.object_store import ListedObject, ObjectStore, Page, Refused, StoredObject
from s3_checkpoint.testing.wrappers import EVERY, Aim, Request, Send, StoreWrapper, T


def state_put(*, first: int = 1, times: int = 1) -> Aim:
    """Meets the commit point: the PUT of a state object."""
    return Aim("PutObject", "/steps/", first, times)


class Outage(StoreWrapper):
    """The store is away as long as `down` is True: no request arrives, each raises `StoreUnavailableError`."""

    def __init__(self, store: ObjectStore, *, down: bool = False) -> None:
        super().__init__(store)
        self.down: bool = down

    async def around(self, request: Request, send: Send[T]) -> T:
        """Sends the request only while the store is there."""
        if self.down:
            raise self.unavailable(request, "EndpointConnectionError")
        return await send()


class Slow(StoreWrapper):
    """Each request that the aim meets (default: every one) waits for `pause()` before it is sent."""

    def __init__(self, store: ObjectStore, pause: Callable[[], Awaitable[object]], aim: Aim | None = None) -> None:
        """`pause` is `lambda: asyncio.sleep(0.2)`, or the `wait` of an `asyncio.Event` that the test sets."""
        super().__init__(store, aim or Aim(times=EVERY))
        self.pause: Callable[[], Awaitable[object]] = pause

    async def around(self, request: Request, send: Send[T]) -> T:
        """Waits, then sends."""
        if self.aim.meets(request):
            await self.pause()
        return await send()


class Crash(BaseException):
    """The process is gone: nothing after the request in hand happens. No `except Exception` holds it up."""


class CrashBefore(StoreWrapper):
    """The process dies before the request leaves: `Crash` is raised."""

    async def around(self, request: Request, send: Send[T]) -> T:
        """Raises in the place of sending."""
        if self.aim.meets(request):
            raise Crash
        return await send()


class CrashAfter(StoreWrapper):
    """The process dies once the request has taken effect, before its answer arrives: `Crash` is raised."""

    async def around(self, request: Request, send: Send[T]) -> T:
        """Sends, and raises in the place of the answer."""
        answer = await send()
        if self.aim.meets(request):
            raise Crash
        return answer


class AnswerLost(StoreWrapper):
    """The request takes effect, its answer does not arrive, and the HTTP client sends it again."""

    async def around(self, request: Request, send: Send[T]) -> T:
        """Sends twice, and gives the second answer."""
        if self.aim.meets(request):
            await send()
        return await send()


class Unanswered(StoreWrapper):
    """Time-out: no answer ever. Whether the request took effect (`landed`) cannot be seen by the caller."""

    def __init__(self, store: ObjectStore, aim: Aim | None = None, *, landed: bool) -> None:
        super().__init__(store, aim)
        self.landed: bool = landed

    async def around(self, request: Request, send: Send[T]) -> T:
        """Sends if it is to land, and raises either way."""
        if not self.aim.meets(request):
            return await send()
        if self.landed:
            await send()
        raise self.unavailable(request, "ReadTimeoutError")


class Conflict409(StoreWrapper):
    """A conditional PUT is refused because another write is in progress, though in the end none of them lands.

    `code`: S3 says `ConditionalRequestConflict`, Ceph RGW `ConcurrentModification`. Default aim: the first PUT of a
    state.
    """

    def __init__(self, store: ObjectStore, aim: Aim | None = None, *, code: str = "ConditionalRequestConflict") -> None:
        super().__init__(store, aim or state_put())
        self.code: str = code

    async def around(self, request: Request, send: Send[T]) -> T:
        """Refuses in the place of sending."""
        if request.mode not in (None, "overwrite") and self.aim.meets(request):
            return cast("T", Refused(self.code))
        return await send()


class SlowDown503(StoreWrapper):
    """The store asks for patience until the client's attempts are used up; the request took no effect."""

    async def around(self, request: Request, send: Send[T]) -> T:
        """Raises in the place of sending."""
        if self.aim.meets(request):
            raise self.unavailable(request, "SlowDown: Please reduce your request rate.")
        return await send()


class Denied(StoreWrapper):
    """The credentials may not do this."""

    async def around(self, request: Request, send: Send[T]) -> T:
        """Raises in the place of sending."""
        if self.aim.meets(request):
            raise AccessDeniedError(self.bucket, request.key, ACTIONS[request.verb], "AccessDenied")
        return await send()


class CorruptBody(StoreWrapper):
    """What is read is not what was written: `damage` makes one body of another. Default aim: the first GET."""

    def __init__(self, store: ObjectStore, damage: Callable[[bytes], bytes], aim: Aim | None = None) -> None:
        super().__init__(store, aim or Aim("GetObject"))
        self.damage: Callable[[bytes], bytes] = damage

    async def around(self, request: Request, send: Send[T]) -> T:
        """Sends, and damages the answer."""
        answer = await send()
        if isinstance(answer, StoredObject) and self.aim.meets(request):
            return cast("T", replace(answer, body=self.damage(answer.body)))
        return answer


class ListedButGone(StoreWrapper):
    """A listing shows keys that are not there (any more): `names` are put under each prefix that is listed."""

    def __init__(self, store: ObjectStore, names: Sequence[str], aim: Aim | None = None) -> None:
        super().__init__(store, aim or Aim("ListObjectsV2"))
        self.names: Sequence[str] = names

    async def around(self, request: Request, send: Send[T]) -> T:
        """Sends, and adds to the answer."""
        answer = await send()
        if isinstance(answer, Page) and self.aim.meets(request):
            gone = [ListedObject(request.key + name, 2, datetime(2026, 1, 1, tzinfo=UTC)) for name in self.names]
            objects = sorted([*answer.objects, *gone], key=lambda entry: entry.key.encode())
            return cast("T", Page.of(objects, answer.prefixes, answer.next_token))
        return answer
