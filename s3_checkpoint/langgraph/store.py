"""`S3Store`: LangGraph's long-term memory on an object store, sync and async on one instance."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Unpack

from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._concurrency.offload import off_loop
from s3_checkpoint._format.keys import new_write_id
from s3_checkpoint._format.memory_keys import item_key, memories_prefix, namespace_prefix
from s3_checkpoint._format.size_estimate import LARGE_BYTES, estimated_bytes
from s3_checkpoint._format.thread_keys import check_prefix
from s3_checkpoint._runs.grace import check_grace
from s3_checkpoint._transports import opening_of, source_of
from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.langgraph.grace import GRACE
from s3_checkpoint.langgraph.item_filter import check_condition, check_filter, literal_prefix
from s3_checkpoint.langgraph.item_record import ItemCodec, ItemRecord
from s3_checkpoint.langgraph.item_store import READS_AT_ONCE, ItemStore, NewItem
from s3_checkpoint.langgraph.object_cache import CACHE_BYTES
from s3_checkpoint.langgraph.opening import Opened, settings_of
from s3_checkpoint.object_store import ObjectStore, utc_now
from s3_checkpoint.request_events import OnRequest
from s3_checkpoint.settings import Compression, S3Options, S3Settings

MAX_SEARCH_ITEMS = 10_000
"""By default, the items that one search or listing of namespaces goes over: 10 LISTs, and at most as many GETs."""
MAX_TTL_MINUTES = 100 * 366 * 24 * 60
"""A hundred years: what is added to the time of day must still be a time."""


class S3Store(Opened[ItemStore], BaseStore):
    """Keeps LangGraph's long-term memory in a bucket: `builder.compile(store=…)`. From any thread and any event loop.

        with S3Store.from_conn_string("s3://my-bucket/my-prefix") as store:      # or `async with`
            graph = builder.compile(checkpointer=saver, store=store)

    Each item is one JSON object. Of two puts the later one counts; each is made over one that was seen, and
    `created_at` stays that of the first. Items with a TTL are not returned once it is over; `sweep_ttl` removes them.
    There is no vector index: `query` raises `NotImplementedError`, and `index` has no effect.

    Requests, for each method of `BaseStore` (sync, and async with an `a` in front):

    - `get`: 1 GET. 1 PUT more if it renews a TTL.
    - `put`: 1 PUT. If the item is there, and this process has neither read nor written it, or another one has changed
      it since: 1 GET and 1 PUT more.
    - `delete`: 1 DELETE.
    - `search`: 1 LIST per 1,000 items in the namespace and below, then `offset + limit` GETs, 32 at a time; with
      `filter` one for each item, those written last first, until enough match. None for an item that a search or `get`
      of this process has read and that has not changed since. 1 PUT for each returned item whose TTL is renewed.
    - `list_namespaces`: 1 LIST per 1,000 items under the literal beginning of the `prefix`; 1 GET for each namespace
      with a label that is hashed, because it takes more than 80 bytes in a key.
    - `batch`: those of its operations, reads before writes, each kind together.

    All raise `AccessDeniedError`, `ConfigurationError`, `StoreUnavailableError` (every call can be repeated),
    `LifecycleError` (after `close`), `StoreError`, `InvalidArgumentError` (no request was made, but for a search or
    listing of namespaces over more than `max_search_items`: nothing was written), LangGraph's `InvalidNamespaceError`
    (a `ValueError`), and readers `StateDecodingError` (what is stored cannot be trusted). `put` raises
    `StateEncodingError`, with the path, for a value that JSON cannot hold; nothing was written.
    """

    supports_ttl: bool = True
    ttl_config: TTLConfig | None

    def __init__(
        self,
        source: S3Settings | ObjectStore | str | None = None,
        *,
        ttl: TTLConfig | None = None,
        prefix: str | None = None,
        compression: Compression | None = None,
        max_state_bytes: int | None = None,
        conditional_writes: bool | None = None,
        session: object | None = None,
        on_request: OnRequest | None = None,
        max_search_items: int = MAX_SEARCH_ITEMS,
        cache_bytes: int = CACHE_BYTES,
        now: Callable[[], datetime] = utc_now,
        new_id: Callable[[], str] = new_write_id,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """A store on an open object store, or from settings: then its first call opens a client, as of `S3Saver`.

        No request.

        Args:
            source: As of `S3Saver`; both can share a prefix, and an open store.
            ttl: LangGraph's `default_ttl` (minutes) and `refresh_on_read` (default True). What is over is never
                returned, whatever `omit_expired` says; `sweep_interval_minutes` is refused, as nothing runs by itself.
            prefix: This one to `conditional_writes` are those of `S3Settings`, and given here for a store. Default: no
                prefix, at most 400 bytes.
            compression: Default: none.
            max_state_bytes: Of an item; default 64 MiB.
            conditional_writes: Default: yes. Without them, of two puts at once one may be lost unseen, and the first
                put of an item in a process reads it.
            session: As in `connect`; only with settings.
            on_request: As in `connect`; only with settings.
            max_search_items: The most items that one search, or listing of namespaces, goes over: 1 or more.
            cache_bytes: Up to how many bytes of what this process has read are kept for searches. 0: nothing is kept.
            now: The time of day, in UTC, by which items expire; within minutes of that of other workers.
            new_id: Makes the ids by which writes are told apart: unique ones.
            sleep: Waits between attempts of racing puts.
            jitter: 0 … 1, by chance: how long.

        Raises:
            InvalidArgumentError: A prefix of over 400 bytes, a size out of bounds, or a `ttl` that cannot be.
            ConfigurationError: Text that is neither a bucket's name nor such a URL.
        """
        source = source_of(source)
        settings = settings_of(
            source,
            prefix=prefix,
            compression=compression,
            max_state_bytes=max_state_bytes,
            conditional_writes=conditional_writes,
        )
        for name, size, least in (
            ("max_state_bytes", settings.max_state_bytes, 0),
            ("cache_bytes", cache_bytes, 0),
            ("max_search_items", max_search_items, 1),
        ):
            _check_count(name, size, least)
        self.ttl_config = _checked_ttl_config(ttl)
        self._prefix = check_prefix(settings.prefix)
        self._codec = ItemCodec(compression=settings.compression, max_bytes=settings.max_state_bytes)
        make = partial(
            ItemStore,
            prefix=self._prefix,
            codec=self._codec,
            conditional_writes=settings.conditional_writes,
            max_search_items=max_search_items,
            cache_bytes=cache_bytes,
            now=now,
            new_id=new_id,
            sleep=sleep,
            jitter=jitter,
        )
        self._root = memories_prefix(self._prefix)
        self._opening = opening_of(
            source,
            make,
            session=session,
            on_request=on_request,
            thread="s3-checkpoint-langgraph-store",
        )

    @classmethod
    def from_conn_string(
        cls,
        conn_string: str,
        *,
        ttl: TTLConfig | None = None,
        session: object | None = None,
        on_request: OnRequest | None = None,
        max_search_items: int = MAX_SEARCH_ITEMS,
        cache_bytes: int = CACHE_BYTES,
        **settings: Unpack[S3Options],
    ) -> S3Store:
        """A store for `s3://bucket[/prefix]`: a context manager, sync and async, that its first call opens if need be.

        `settings` are those of `S3Settings`; others come from the environment (`S3_CHECKPOINT_…`). No request. Raises
        `ConfigurationError` for another form of URL, and for settings out of bounds.
        """
        return cls(
            S3Settings.from_url(conn_string, **settings),
            ttl=ttl,
            session=session,
            on_request=on_request,
            max_search_items=max_search_items,
            cache_bytes=cache_bytes,
        )

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """The results of the operations, in their order: reads see the items as before the batch, then puts are made.

        Of several puts of one key the last is made. All are checked before any request. If a put fails, others of the
        batch may have been made; the batch can be repeated.

        Requests:
            Those of its operations, as the class tells; all deletes together 1 DELETE per 1,000.

        Raises:
            NotImplementedError: A search has a `query`. No request was made.
        """
        return self._opening.call(self._prepared(ops).run)

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """See `batch`."""
        given = list(ops)
        values = [op.value for op in given if isinstance(op, PutOp)]
        large = sum(estimated_bytes(value, LARGE_BYTES) for value in values) >= LARGE_BYTES
        batch = await off_loop(large, self._prepared, given)
        return await self._opening.acall(batch.run)

    def sweep_ttl(self, *, grace: timedelta = GRACE) -> int:
        """Items whose TTL was over `grace` ago, by the store's clock, are removed; none is ever returned, swept or not.

        S3 removes what is at a key, whatever it is. So an item that is put again, `grace` or more after it was over, in
        the moment between this call's look at it and its removal, is lost. `grace` is the time after which workers do
        not come back to an item; where they may come back at any time, sweep while they are stopped.

        Requests:
            1 LIST per 1,000 items, 1 HEAD for each item, 1 DELETE per 100 of which some are over.

        Args:
            grace: Zero or more; default one hour.

        Returns:
            How many items were removed.
        """
        return self._opening.call(partial(ItemStore.sweep, grace=check_grace(grace)))

    async def asweep_ttl(self, *, grace: timedelta = GRACE) -> int:
        """See `sweep_ttl`."""
        return await self._opening.acall(partial(ItemStore.sweep, grace=check_grace(grace)))

    def _prepared(self, ops: Iterable[Op]) -> _Batch:
        """The operations, checked and encoded."""
        batch = _Batch()
        for index, op in enumerate(ops):
            batch.size += 1
            if isinstance(op, GetOp):
                _check_namespace(op.namespace)
                read = partial(_get, object_key=self._key(op.namespace, op.key), refresh=op.refresh_ttl)
                batch.reads[index] = read
            elif isinstance(op, SearchOp):
                self._check_search(op)
                batch.reads[index] = partial(_search, query=op)
            elif isinstance(op, ListNamespacesOp):
                self._check_listing(op)
                batch.reads[index] = partial(ItemStore.namespaces, query=op)
            elif isinstance(op, PutOp):
                _check_namespace(op.namespace)
                object_key = self._key(op.namespace, op.key)
                batch.writes[object_key] = None if op.value is None else self._new_item(object_key, op)
            else:
                raise InvalidArgumentError("ops", type(op).__name__, "must be GetOp, PutOp, SearchOp, ListNamespacesOp")
        return batch

    def _key(self, namespace: Sequence[str], key: object) -> str:
        if not isinstance(key, str):
            raise InvalidArgumentError("key", ascii(key)[:80], "must be text")
        return item_key(self._prefix, namespace, key)

    def _new_item(self, object_key: str, op: PutOp) -> NewItem:
        if not isinstance(op.value, Mapping):
            raise InvalidArgumentError("value", type(op.value).__name__, "must be a dict")
        _check_minutes("ttl", op.ttl)
        value = self._codec.encode_value(op.value)
        return NewItem(object_key, tuple(op.namespace), op.key, value, op.ttl)

    def _check_search(self, op: SearchOp) -> None:
        if op.query:
            raise NotImplementedError(
                "S3Store has no vector index, so it cannot rank items by `query`; search by namespace and `filter`, "
                "or keep what is searched by meaning in a store with an index"
            )
        _check_namespace(op.namespace_prefix)
        _check_count("limit", op.limit, 0)
        _check_count("offset", op.offset, 0)
        check_filter(op.filter or {})
        namespace_prefix(self._prefix, op.namespace_prefix)

    def _check_listing(self, op: ListNamespacesOp) -> None:
        conditions = op.match_conditions or ()
        for condition in conditions:
            check_condition(condition)
            _check_namespace(condition.path)
        _check_count("limit", op.limit, 0)
        _check_count("offset", op.offset, 0)
        if op.max_depth is not None:
            _check_count("max_depth", op.max_depth, 0)
        namespace_prefix(self._prefix, literal_prefix(conditions))


@dataclass(slots=True)
class _Batch:
    """Operations, checked and encoded: what happens in the store's loop."""

    size: int = 0
    reads: dict[int, Callable[[ItemStore], Coroutine[Any, Any, Result]]] = field(default_factory=dict)
    """By their place in the batch."""
    writes: dict[str, NewItem | None] = field(default_factory=dict)
    """The last put of each key; None: it is deleted."""

    async def run(self, items: ItemStore) -> list[Result]:
        """The results, in the order of the operations."""
        results: list[Result] = [None] * self.size
        found = await gather_bounded((read(items) for read in self.reads.values()), limit=READS_AT_ONCE)
        for index, result in zip(self.reads, found, strict=True):
            results[index] = result
        deleted = [object_key for object_key, item in self.writes.items() if item is None]
        calls = [items.put(item) for item in self.writes.values() if item is not None]
        if deleted:
            calls.append(items.delete(deleted))
        await gather_bounded(calls, limit=READS_AT_ONCE)
        return results


async def _get(items: ItemStore, *, object_key: str, refresh: bool) -> Item | None:
    found = await items.get(object_key, refresh=refresh)
    return None if found is None else Item(**_fields(found))


async def _search(items: ItemStore, *, query: SearchOp) -> list[SearchItem]:
    return [SearchItem(**_fields(found)) for found in await items.search(query)]


def _fields(found: ItemRecord) -> dict[str, Any]:
    return {
        "value": found.value,
        "key": found.key,
        "namespace": found.namespace,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


def _check_namespace(namespace: Sequence[Any]) -> None:
    """As `BaseStore`'s methods check it; operations given to `batch` have not passed them."""
    if isinstance(namespace, str):
        raise InvalidNamespaceError(f"a namespace must be a tuple of labels, not one text: {ascii(namespace)[:200]}")
    for label in namespace:
        problem = (
            f"must be text, not {type(label).__name__}"
            if not isinstance(label, str)
            else "cannot be empty"
            if not label
            else "cannot hold periods ('.')"
            if "." in label
            else "cannot hold NUL"
            if "\x00" in label
            else None
        )
        if problem:
            raise InvalidNamespaceError(f"a label of a namespace {problem}: {ascii(namespace)[:200]}")


def _check_count(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:
        raise InvalidArgumentError(name, repr(value)[:80], f"must be an int of {least} or more")


def _check_minutes(name: str, value: object) -> None:
    if value is None:
        return
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not known or not 0 < value <= MAX_TTL_MINUTES:  # type: ignore[operator]  # it is a number
        reason = f"must be minutes, more than 0 and at most {MAX_TTL_MINUTES:,}, or None"
        raise InvalidArgumentError(name, repr(value)[:80], reason)


def _checked_ttl_config(ttl: TTLConfig | None) -> TTLConfig | None:
    if ttl is None:
        return None
    _check_minutes("default_ttl", ttl.get("default_ttl"))
    if ttl.get("sweep_interval_minutes") is not None:
        given = repr(ttl["sweep_interval_minutes"])[:80]
        raise InvalidArgumentError("sweep_interval_minutes", given, "must be left out: call sweep_ttl in a job instead")
    return ttl
