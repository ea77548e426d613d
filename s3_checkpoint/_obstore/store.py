"""The object store on obstore: blocking calls in threads, one attempt each, repeats and outcomes counted here.

obstore's async calls are not used: what they run in its threads can abort a process that ends. Why is told in
`s3_checkpoint._concurrency.blocking_calls`.

What obstore does not have is made of what it has:

- **A page of a listing** is what the first answer of a fresh listing holds; the token is the last key. A page of fewer
  keys than 1,000 is cut from a whole one.
- **A prefix that ends inside a segment** is listed from its parent, beginning at the prefix.
- **An empty listing** is believed only if the server also answers like S3 where nothing is: obstore takes any page of
  markup for a listing without keys.
- **A copy** is a GET and a PUT: obstore takes any answer of status 200 for a copy that was made.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import obstore

from s3_checkpoint._concurrency.blocking_calls import BlockingCalls
from s3_checkpoint._concurrency.one_loop import check_usable, closed_in_progress
from s3_checkpoint._error_codes import ABSENT_CODES, WRITES, is_absent, is_refusal, odd_answer
from s3_checkpoint._obstore.answers import Told, error_of, told_by
from s3_checkpoint._obstore.client import LARGE_BYTES, check_key, client_for, longest_s
from s3_checkpoint.errors import AccessDeniedError, CheckpointError, StoreError, StoreUnavailableError
from s3_checkpoint.object_store import (
    PAGE_KEYS,
    ListedObject,
    Match,
    ObjectAttributes,
    ObjectHead,
    ObjectTooLargeError,
    Page,
    PutMode,
    Refused,
    StoredObject,
    Written,
    check_prefix,
)
from s3_checkpoint.request_events import Exchange, OnRequest, RequestObserver
from s3_checkpoint.settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")

_NO_DATE = datetime.fromtimestamp(0, UTC)
"""What obstore says where an answer has no `Last-Modified`."""
_HIGHEST = "\U0010ffff"
_CONTENT = {"Content-Type", "Content-Encoding", "Content-Language", "Content-Disposition", "Cache-Control"}
ABSENT_NAME = "s3-checkpoint-is-anything-answering"
"""The name of an object that is nowhere: see `_confirm_empty`."""
_MOST_BACKOFF_S = 20.0


def full_jitter(attempt: int) -> float:
    """Seconds to wait after the `attempt`-th attempt: up to 1, 2, 4, …, 20. As the SDK's standard mode has it."""
    return random.random() * min(2.0 ** (attempt - 1), _MOST_BACKOFF_S)  # noqa: S311


class ObstoreObjectStore:
    """`ObjectStore` on one bucket, with a client of its own.

    Belongs to the event loop it is made in: used from another loop it raises `LifecycleError`, as it does once closed.
    """

    whole_pages = True
    """A LIST of one key costs a page of 1,000: see `object_store.lists_whole_pages`."""

    def __init__(
        self,
        settings: S3Settings,
        on_request: OnRequest | None = None,
        *,
        backoff: Callable[[int], float] = full_jitter,
    ) -> None:
        """Makes the client; no request is sent. `backoff` says how many seconds follow the n-th failed attempt.

        Raises:
            ConfigurationError: What `client_for` raises.
        """
        self._settings = settings
        self._client = client_for(settings)
        self._large_client: S3Store | None = None
        self._observer = RequestObserver(settings.bucket, on_request)
        self._backoff = backoff
        self._loop = asyncio.get_running_loop()
        self._calls = BlockingCalls(
            self._loop,
            settings.max_connections,
            longest_s=settings.connect_timeout_s + settings.read_timeout_s + 1,
            name="s3-checkpoint-obstore",
        )
        self._listing_s = longest_s(settings)
        self._waiting: set[asyncio.Future[Any]] = set()
        self._closed = False

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._settings.bucket

    @property
    def ordered(self) -> bool:
        """True: directory buckets are refused with this transport."""
        return True

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it belongs to."""
        return self._loop

    def close(self) -> None:
        """From now on every call raises `LifecycleError`, calls in progress too.

        A request that has been sent is not called back: whether a write takes effect is unknown.
        """
        self._closed = True
        self._calls.close()
        for future in self._waiting:
            if not future.done():
                future.set_exception(closed_in_progress())

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """See `ObjectStore.get`. An answer without a `Content-Length` is an error."""
        check_key(self.bucket, key)
        with self._request("GetObject", key) as exchange:
            try:
                body, meta, attributes = await self._ask("GetObject", key, exchange, _get, self._client, key, max_bytes)
            except _Absent:
                return None
            head = self._head("GetObject", key, meta, attributes)
            if body is None:
                raise ObjectTooLargeError(self.bucket, key, head.size, max_bytes)
            exchange.bytes = len(body)
            return StoredObject(body, head)

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`. A HEAD's 404 has no body: conclude nothing from None that a GET must confirm."""
        check_key(self.bucket, key)
        with self._request("HeadObject", key) as exchange:
            try:
                meta, attributes = await self._ask("HeadObject", key, exchange, _head, self._client, key)
            except _Absent:
                return None
            return self._head("HeadObject", key, meta, attributes)

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        """See `ObjectStore.put`."""
        check_key(self.bucket, key)
        named = {"Content-Type": attributes.content_type, **attributes.metadata}
        if attributes.content_encoding:
            named["Content-Encoding"] = attributes.content_encoding
        precondition: Any = {"e_tag": mode.etag} if isinstance(mode, Match) else mode
        with self._request("PutObject", key) as exchange:
            exchange.bytes = len(body)
            try:
                etag = await self._ask(
                    "PutObject",
                    key,
                    exchange,
                    _put,
                    self._client_for_body(len(body)),
                    key,
                    body,
                    named,
                    self._settings.object_tags or None,
                    precondition,
                    conditional=mode != "overwrite",
                    matching=isinstance(mode, Match),
                )
            except _RefusedAnswer as refused:
                return Refused(refused.told.code, refused.told.status)
            if not etag:
                raise odd_answer("PutObject", self.bucket, key, "it has no ETag")
            return Written(etag, repeated=exchange.attempts > 1)

    async def list(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str | None = None,
        delimiter: str = "",
        limit: int = PAGE_KEYS,
    ) -> Page:
        """See `ObjectStore.list`. 1 request; one more, a GET, where the listing holds nothing from its beginning.

        With a delimiter: 1 request per 1,000 groups and keys under a prefix that ends with it, whatever the limit;
        else 1 request per group.
        """
        after = token if token is not None else start_after
        with self._request("ListObjectsV2", prefix) as exchange:
            if delimiter:
                page = await self._groups(exchange, prefix, after, delimiter, limit)
            else:
                page = await self._keys(exchange, prefix, after, limit)
            check_prefix(self, prefix, page)
        if not page.objects and not page.prefixes and page.next_token is None:
            await self._confirm_empty(prefix)
        return page

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`. The first key that S3 refuses is raised; the others of its batch are gone."""
        for key in keys:
            check_key(self.bucket, key)
        for start in range(0, len(keys), PAGE_KEYS):
            batch = list(keys[start : start + PAGE_KEYS])
            while batch:
                with self._request("DeleteObjects", batch[0]) as exchange:
                    try:
                        await self._ask("DeleteObjects", batch[0], exchange, obstore.delete, self._client, batch)
                        break
                    except _Absent as absent:
                        # A store that minds a key that is not there: ask for the others, of which it then tells.
                        missing = absent.told.key
                if missing not in batch:
                    raise odd_answer("DeleteObjects", self.bucket, batch[0], f"it tells of another key, {missing}")
                batch.remove(missing)

    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        """See `ObjectStore.copy`. 2 requests, a GET and a PUT; objects of up to `max_state_bytes` as stored."""
        stored = await self.get(source, max_bytes=self._settings.max_state_bytes)
        if stored is None:
            return False
        await self.put(target, stored.body, attributes or stored.head.attributes, mode="overwrite")
        return True

    # One request

    def _request(self, operation: str, key: str) -> AbstractContextManager[Exchange]:
        check_usable(self._loop, closed=self._closed)
        if self._observer.watches:
            return self._observer.exchange(operation, key)
        return nullcontext(Exchange())

    async def _ask(
        self,
        operation: str,
        key: str,
        exchange: Exchange,
        function: Callable[..., T],
        *args: Any,
        conditional: bool = False,
        matching: bool = False,
    ) -> T:
        """What `function(*args)` gives, after as many attempts as the settings allow.

        Raises our errors, `_Absent` for an answer that there is no such object, `_RefusedAnswer` for a precondition
        that does not hold.
        """
        for attempt in range(1, self._settings.max_attempts + 1):
            exchange.attempts += 1
            try:
                result = await self._wait(self._calls.call(function, *args), operation, key)
            except (CheckpointError, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # a panic in Rust is no `Exception`
                told = told_by(error)
                if told is not None:
                    _note(exchange, told)
                    if is_absent(operation, told.code, told.status) and not conditional and operation not in WRITES:
                        exchange.outcome = "absent"
                        raise _Absent(told) from None
                    if operation == "DeleteObjects" and told.status == 200 and told.code in ABSENT_CODES:
                        raise _Absent(told) from None
                    gone = matching and is_absent("PutObject", told.code, told.status)
                    if conditional and (gone or is_refusal(told.code, told.status)):
                        exchange.outcome = "refused"
                        raise _RefusedAnswer(told) from None
                ours = error_of(error, told, operation, self.bucket, key)
                again = isinstance(ours, StoreUnavailableError) and (told is None or told.status != 409)
                if not again or attempt == self._settings.max_attempts:
                    raise ours from error
            else:
                exchange.answer = _SUCCESS
                return result
            await self._pause(self._backoff(attempt), operation, key)
        raise AssertionError("max_attempts is at least 1")

    async def _wait(self, future: asyncio.Future[T], operation: str, key: str) -> T:
        self._waiting.add(future)
        try:
            if operation != "ListObjectsV2":
                return await future
            # Inside one call, obstore follows pages that are empty and say that the listing continues, without an end.
            async with asyncio.timeout(self._listing_s) as limit:
                return await future
        except TimeoutError:
            if operation == "ListObjectsV2" and limit.expired():
                raise StoreError(operation, self.bucket, key, "its listing never ends") from None
            raise
        finally:
            self._waiting.discard(future)

    async def _pause(self, seconds: float, operation: str, key: str) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(seconds, _wake, future)
        try:
            await self._wait(future, "", key)
        finally:
            timer.cancel()

    def _client_for_body(self, size: int) -> S3Store:
        if size <= LARGE_BYTES:
            return self._client
        if self._large_client is None:
            self._large_client = client_for(self._settings, large=True)
        return self._large_client

    def _head(self, operation: str, key: str, meta: Any, attributes: Any) -> ObjectHead:
        if meta["last_modified"] == _NO_DATE:
            raise odd_answer(operation, self.bucket, key, "it has no date")
        metadata = {name.lower(): value for name, value in attributes.items() if name not in _CONTENT}
        content = ObjectAttributes(
            attributes.get("Content-Type", ""), attributes.get("Content-Encoding") or None, metadata
        )
        return ObjectHead(content, meta["e_tag"] or "", meta["size"], meta["last_modified"])

    # Listings

    async def _keys(self, exchange: Exchange, prefix: str, after: str, limit: int) -> Page:
        parent = prefix[: prefix.rfind("/") + 1]
        inside = parent != prefix
        # From its parent's keys, those before the prefix are passed over; no key of ours is between them.
        offset = max(after, _just_before(prefix)) if inside else after
        wanted = PAGE_KEYS if inside else limit
        chunk = await self._ask("ListObjectsV2", prefix, exchange, _list, self._client, parent, offset, wanted)
        if chunk and offset and chunk[0]["path"] <= offset and not offset.endswith("/"):
            raise StoreError(
                "ListObjectsV2", self.bucket, prefix, "the store does not honour StartAfter, which listings rely on"
            )
        last = chunk[-1]["path"] if chunk else ""
        found = [_listed(o) for o in chunk if o["path"] != parent[:-1]]
        if inside:
            found = [entry for entry in found if entry.key.startswith(prefix)]
        if after.endswith("/"):  # obstore drops that slash
            found = [entry for entry in found if entry.key > after]
        ends = len(chunk) < wanted or (inside and last > prefix and not last.startswith(prefix))
        if len(found) > limit:
            return Page.of(found[:limit], (), found[limit - 1].key)
        return Page.of(found, (), None if ends else last)

    async def _groups(self, exchange: Exchange, prefix: str, after: str, delimiter: str, limit: int) -> Page:
        if delimiter != "/":
            raise StoreError("ListObjectsV2", self.bucket, prefix, f"obstore groups by / alone, not by {delimiter!r}")
        if prefix and not prefix.endswith("/"):
            return await self._groups_inside(exchange, prefix, after, limit)
        answer = await self._ask(
            "ListObjectsV2", prefix, exchange, obstore.list_with_delimiter, self._client, prefix or None
        )
        entries: dict[str, ListedObject | None] = {f"{group}/": None for group in answer["common_prefixes"]}
        for o in answer["objects"]:
            if o["path"] != prefix[:-1]:
                entries[o["path"]] = _listed(o)
        names = sorted(name for name in entries if name > after)
        return _page_of_groups(names, entries, limit, more=False)

    async def _groups_inside(self, exchange: Exchange, prefix: str, after: str, limit: int) -> Page:
        entries: dict[str, ListedObject | None] = {}
        token: str | None = max(after, _just_before(prefix))
        while token is not None and len(entries) <= limit:
            if token.endswith("/"):
                token += _HIGHEST  # behind the whole group
            page = await self._keys(exchange, prefix, token, PAGE_KEYS)
            token = page.next_token
            for entry in page.objects:
                cut = entry.key.find("/", len(prefix))
                if cut < 0:
                    entries[entry.key] = entry
                elif (group := entry.key[: cut + 1]) not in entries:
                    entries[group] = None
                    token = group
                    break
        return _page_of_groups(sorted(entries), entries, limit, more=token is not None)

    async def _confirm_empty(self, prefix: str) -> None:
        """Raises `StoreError` unless the server answers like S3 for an object that is not there.

        Any page of HTML is a listing without keys to obstore, and an empty listing means that there is no run.
        """
        key = prefix[: prefix.rfind("/") + 1] + ABSENT_NAME
        with self._request("GetObject", key) as exchange:
            try:
                await self._ask("GetObject", key, exchange, _get, self._client, key, 0)
            except _Absent:
                return
            except AccessDeniedError:
                return  # S3 said so, to a role that may list and not read
        raise odd_answer(
            "ListObjectsV2", self.bucket, prefix, "it has no keys, but the server has any object asked for"
        )


def _listed(found: Any) -> ListedObject:
    """An entry of obstore's listing."""
    return ListedObject(found["path"], found["size"], found["last_modified"], (found.get("e_tag") or "").strip('"'))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _just_before(prefix: str) -> str:
    """A key that is less than all with this prefix, near them, and one that obstore takes; empty if there is none."""
    last = ord(prefix[-1])
    if not ord("!") < last < 0x7F:
        return "" if prefix[-2:-1] == "/" else prefix[:-1]
    before = "." if prefix[-1] == "0" else chr(last - 1)  # a slash would leave a segment empty
    return prefix[:-1] + before + _HIGHEST


def _page_of_groups(names: Sequence[str], entries: dict[str, ListedObject | None], limit: int, *, more: bool) -> Page:
    shown = names[:limit]
    objects = [entry for name in shown if (entry := entries[name]) is not None]
    groups = [name for name in shown if entries[name] is None]
    return Page.of(objects, groups, shown[-1] if len(names) > limit or (more and shown) else None)


_SUCCESS = {"ResponseMetadata": {"HTTPStatusCode": 200}}


def _note(exchange: Exchange, told: Told) -> None:
    exchange.answer = {
        "ResponseMetadata": {
            "HTTPStatusCode": told.status,
            "RequestId": told.request_id,
            "HostId": told.host_id,
        }
    }


class _Absent(Exception):  # noqa: N818 - an answer, not an error
    def __init__(self, told: Told) -> None:
        super().__init__(told.code)
        self.told = told


class _RefusedAnswer(Exception):  # noqa: N818
    def __init__(self, told: Told) -> None:
        super().__init__(told.code)
        self.told = told


# In a thread


def _get(client: S3Store, key: str, max_bytes: int) -> tuple[bytes | None, Any, Any]:
    """The body (None if it is too large: it is not read), and what describes it."""
    result = obstore.get(client, key)
    meta = result.meta
    body = result.bytes().to_bytes() if meta["size"] <= max_bytes else None
    return body, meta, result.attributes


def _head(client: S3Store, key: str) -> tuple[Any, Any]:
    result = obstore.get(client, key, options={"head": True})
    return result.meta, result.attributes


def _put(client: S3Store, key: str, body: bytes, attributes: Any, tags: Any, mode: Any) -> str | None:
    return obstore.put(client, key, body, attributes=attributes, tags=tags, mode=mode, use_multipart=False)["e_tag"]


def _list(client: S3Store, parent: str, offset: str, count: int) -> Sequence[Any]:
    return next(obstore.list(client, parent or None, offset=offset or None, chunk_size=count), ())
