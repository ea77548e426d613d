"""Items of long-term memory as objects: read, put, deleted, found, swept, as LangGraph's operations ask for them.

**The last put counts, and none is lost unseen.** A put replaces exactly the write that this process knows of
(`If-Match`), or creates (`If-None-Match`). Refused, what is there is read. Our own write id: it had landed. Another's:
the put is made over that one, and keeps its `created_at`. So puts of many workers come one after the other, each over
one that was seen.

**Expiry** is in the item, by the clock of the process that put it. A reader returns none that is over. Only a sweep
removes: items that ended `grace` ago, by the store's clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import NamedTuple

from langgraph.store.base import ListNamespacesOp, SearchOp

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._concurrency.offload import off_loop
from s3_checkpoint._format.memory_keys import ItemName, item_key, memories_prefix, namespace_prefix, parse_item
from s3_checkpoint._format.metadata import ObjectMetadata
from s3_checkpoint.errors import InvalidArgumentError, StateDecodingError, StoreUnavailableError
from s3_checkpoint.langgraph.item_filter import literal_prefix, matches, namespace_matches
from s3_checkpoint.langgraph.item_record import ItemCodec, ItemRecord, parse_time
from s3_checkpoint.langgraph.object_cache import ObjectCache
from s3_checkpoint.object_store import (
    ListedObject,
    Match,
    ObjectStore,
    ObjectTooLargeError,
    PutMode,
    StoredObject,
    Written,
    pages,
)

READS_AT_ONCE = 32
PUT_ATTEMPTS = 100
"""Writers that a put may lose to; each time it has seen another put succeed."""
SWEPT_AT_ONCE = 100
"""Items that a sweep looks at before it removes those of them that are over: few, so that it removes what it has just
seen."""
KNOWN_ITEMS = 10_000
LARGE_BYTES = 64 * 1024
"""More is encoded and decoded in a thread."""


class NewItem(NamedTuple):
    """A put, ready to be made."""

    object_key: str
    namespace: tuple[str, ...]
    key: str
    value: bytes
    """Its JSON."""
    ttl_minutes: float | None


class _Known(NamedTuple):
    """A write of an item that this process has read or made: what a put over it has to know."""

    etag: str
    created_at: datetime
    expires_at: datetime | None


class _Found(NamedTuple):
    """An item as it was read, over or not."""

    object_key: str
    record: ItemRecord
    known: _Known
    """What a put over it has to know."""


class ItemStore:
    """Items under one prefix of an open store. To be used in the store's event loop."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        prefix: str,
        codec: ItemCodec,
        conditional_writes: bool,
        max_search_items: int,
        cache_bytes: int,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self.objects = store
        self.prefix = prefix
        self._codec = codec
        self._conditional_writes = conditional_writes
        self._max_search_items = max_search_items
        self._cache = ObjectCache(cache_bytes)
        self._now = now
        self._new_id = new_id
        self._sleep = sleep
        self._jitter = jitter
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def get(self, object_key: str, *, refresh: bool) -> ItemRecord | None:
        """The item; None if there is none, or if it is over. 1 GET; 1 PUT if its time to live is renewed."""
        found = await self._read(object_key)
        if found is None or found.record.is_expired(self._now()):
            return None
        return await self._refreshed(found) if refresh else found.record

    async def put(self, item: NewItem) -> None:
        """The item is stored over whatever is there. 1 PUT; 1 GET and 1 PUT more for each write that was not known."""
        write_id = self._new_id()
        before = self._known.get(item.object_key)
        if before is None and not self._conditional_writes:
            found = await self._read(item.object_key)
            before = found.known if found else None
        for attempt in range(PUT_ATTEMPTS):
            now = self._now()
            is_alive = before is not None and (before.expires_at is None or before.expires_at > now)
            record = ItemRecord(
                namespace=item.namespace,
                key=item.key,
                value={},
                created_at=before.created_at if before is not None and is_alive else now,
                updated_at=now,
                write_id=write_id,
                ttl_minutes=item.ttl_minutes,
                expires_at=None if item.ttl_minutes is None else now + timedelta(minutes=item.ttl_minutes),
            )
            if await self._write(item.object_key, record, item.value, before):
                return
            found = await self._read(item.object_key)
            if found is not None and found.record.write_id == write_id:
                return
            theirs = found.known if found else None
            if theirs == before:  # refused though nothing has changed: another write was in progress
                await self._sleep(min(1.0, 0.05 * 2**attempt) * (0.5 + self._jitter()))
            before = theirs
        raise StoreUnavailableError(
            "PutObject",
            self.objects.bucket,
            item.object_key,
            outcome_unknown=False,
            detail=f"other writers were first {PUT_ATTEMPTS} times",
        )

    async def _write(self, object_key: str, record: ItemRecord, value: bytes, before: _Known | None) -> bool:
        """Whether it was written, over `before` and nothing else; where no answer came, what is read back tells."""
        mode: PutMode = "overwrite"
        if self._conditional_writes:
            mode = Match(before.etag) if before else "create"
        body, attributes = await off_loop(len(value) > LARGE_BYTES, self._codec.encode, record, value)
        try:
            answer = await self.objects.put(object_key, body, attributes, mode=mode)
        except StoreUnavailableError as error:
            if not error.outcome_unknown:
                raise
            found = await self._read(object_key)
            if found is None or found.record.write_id != record.write_id:
                raise error from None
            return True
        if isinstance(answer, Written):
            self._remember(object_key, _Known(answer.etag, record.created_at, record.expires_at))
            return True
        return False

    async def delete(self, object_keys: Sequence[str]) -> None:
        """The items are gone. 1 DELETE per 1,000."""
        for object_key in object_keys:
            self._known.pop(object_key, None)
        await self.objects.delete(object_keys)

    async def search(self, query: SearchOp) -> list[ItemRecord]:
        """The items that match, those written last first. 1 LIST per 1,000 items, 1 GET for each that is read."""
        if query.limit == 0:
            return []
        wanted_fields = query.filter or {}
        listed = await self._listed(namespace_prefix(self.prefix, query.namespace_prefix))
        listed.sort(key=lambda entry: entry[0].key)
        listed.sort(key=lambda entry: entry[0].last_modified, reverse=True)
        wanted = query.offset + query.limit
        found: list[_Found] = []
        at = 0
        while at < len(listed) and len(found) < wanted:
            chunk = listed[at : at + (READS_AT_ONCE if wanted_fields else wanted - len(found))]
            at += len(chunk)
            read = await gather_bounded((self._read_listed(entry) for entry, _ in chunk), limit=READS_AT_ONCE)
            now = self._now()
            found += [
                item
                for item in read
                if item is not None and not item.record.is_expired(now) and matches(item.record.value, wanted_fields)
            ]
        page = found[query.offset : wanted]
        if not query.refresh_ttl:
            return [item.record for item in page]
        return await gather_bounded(map(self._refreshed, page), limit=READS_AT_ONCE)

    async def namespaces(self, query: ListNamespacesOp) -> list[tuple[str, ...]]:
        """The namespaces that items are in, ascending. 1 LIST per 1,000 items, 1 GET for each that is hashed."""
        conditions = query.match_conditions or ()
        listed = await self._listed(namespace_prefix(self.prefix, literal_prefix(conditions)))
        by_labels: dict[tuple[str, ...], list[ListedObject]] = {}
        for entry, name in listed:
            by_labels.setdefault(name.labels, []).append(entry)
        found = await gather_bounded(
            (self._namespace(ItemName(labels, ""), entries) for labels, entries in by_labels.items()),
            limit=READS_AT_ONCE,
        )
        kept = {
            namespace[: query.max_depth]
            for namespace in found
            if namespace is not None and all(namespace_matches(namespace, condition) for condition in conditions)
        }
        return sorted(kept)[query.offset : query.offset + query.limit]

    async def _namespace(self, name: ItemName, entries: Iterable[ListedObject]) -> tuple[str, ...] | None:
        """The labels in clear; where they are hashed, as the first item tells that is still there."""
        if (namespace := name.namespace) is not None:
            return namespace
        for entry in entries:
            if (found := await self._read_listed(entry)) is not None:
                return found.record.namespace
        return None

    async def sweep(self, grace: timedelta) -> int:
        """Removes the items that were over `grace` ago. 1 LIST per 1,000 items, 1 HEAD for each, 1 DELETE per 100."""
        removed = 0
        async with aclosing(pages(self.objects, memories_prefix(self.prefix))) as listing:
            async for page in listing:
                keys = [key for key in page.keys if parse_item(self.prefix, key)]
                for start in range(0, len(keys), SWEPT_AT_ONCE):
                    chunk = keys[start : start + SWEPT_AT_ONCE]
                    over = await gather_bounded((self._is_over(key, grace) for key in chunk), limit=READS_AT_ONCE)
                    gone = [key for key, is_over in zip(chunk, over, strict=True) if is_over]
                    if gone:
                        await self.delete(gone)
                    removed += len(gone)
        return removed

    async def _is_over(self, object_key: str, grace: timedelta) -> bool:
        head = await self.objects.head(object_key)
        if head is None:
            return False
        text = ObjectMetadata.parse(head.attributes.metadata).expires_at
        now = head.date or self._now()  # of this process where the store does not say when it gave this answer
        try:
            return bool(text) and parse_time(text) + grace <= now
        except (ValueError, OverflowError):
            raise StateDecodingError(self.objects.bucket, object_key, "its expires-at is no time") from None

    async def _listed(self, prefix: str) -> list[tuple[ListedObject, ItemName]]:
        found: list[tuple[ListedObject, ItemName]] = []
        async with aclosing(pages(self.objects, prefix)) as listing:
            async for page in listing:
                named = ((entry, parse_item(self.prefix, entry.key)) for entry in page.objects)
                found += [(entry, name) for entry, name in named if name is not None]
                if len(found) > self._max_search_items:
                    raise InvalidArgumentError(
                        "namespace",
                        ascii(prefix)[:80],
                        f"holds more than {self._max_search_items} items, which is what max_search_items lets one "
                        "search or listing go over; name a longer namespace, or allow more. Nothing was written",
                    )
        return found

    async def _refreshed(self, found: _Found) -> ItemRecord:
        """The item, its time to live renewed where that is due. 1 PUT then, over what was read and nothing else.

        Refused, another worker has put or renewed it since: then there is nothing to do.
        """
        renewed = found.record.renewed(self._now(), self._new_id())
        if renewed is not None:
            value = self._codec.encode_value(renewed.value)
            await self._write(found.object_key, renewed, value, found.known)
        return found.record

    async def _read(self, object_key: str) -> _Found | None:
        """What is at a key, over or not. 1 GET."""
        try:
            stored = await self.objects.get(object_key, max_bytes=self._codec.max_stored_bytes)
        except ObjectTooLargeError as error:
            raise StateDecodingError(self.objects.bucket, object_key, error.detail) from error
        if stored is None:
            self._known.pop(object_key, None)
            return None
        return await self._decoded(object_key, stored)

    async def _read_listed(self, entry: ListedObject) -> _Found | None:
        """The item with this entry of a listing; None if it is gone. 1 GET, unless this process has read it before."""
        cached: StoredObject | None = self._cache.get(entry.key, "", entry.etag)
        return await self._read(entry.key) if cached is None else await self._decoded(entry.key, cached)

    async def _decoded(self, object_key: str, stored: StoredObject) -> _Found:
        large = len(stored.body) > LARGE_BYTES
        record = await off_loop(large, self._codec.decode, self.objects.bucket, object_key, stored)
        if not self._is_at(record, object_key):
            raise StateDecodingError(self.objects.bucket, object_key, "it holds another item than its key says")
        known = _Known(stored.head.etag, record.created_at, record.expires_at)
        self._remember(object_key, known)
        self._cache.put(object_key, "", stored.head.etag.strip('"'), stored, len(stored.body))
        return _Found(object_key, record, known)

    def _is_at(self, record: ItemRecord, object_key: str) -> bool:
        try:
            return item_key(self.prefix, record.namespace, record.key) == object_key
        except InvalidArgumentError:
            return False

    def _remember(self, object_key: str, known: _Known) -> None:
        self._known[object_key] = known
        self._known.move_to_end(object_key)
        if len(self._known) > KNOWN_ITEMS:
            self._known.popitem(last=False)
