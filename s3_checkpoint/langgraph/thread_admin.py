"""What an operator does to LangGraph threads: see which there are and what waits, look back, compare, prune, delete.

Read without the application: values as JSON (`json_view`), no type of theirs imported, nothing unpickled.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import JsonValue

from s3_checkpoint._concurrency.gather import both, gather_bounded
from s3_checkpoint._format.json_diff import Change
from s3_checkpoint._format.keys import encode_segment
from s3_checkpoint._format.thread_keys import (
    NamespaceKeys,
    ThreadKeys,
    is_hashed,
    parse_namespace,
    parse_segment,
    parse_thread,
    threads_prefix,
)
from s3_checkpoint._runs.retention import Retention
from s3_checkpoint.errors import InvalidArgumentError, StateDecodingError
from s3_checkpoint.langgraph.conversion import Conversion
from s3_checkpoint.langgraph.history import History
from s3_checkpoint.langgraph.json_view import TYPE, JsonViews, decryption_of
from s3_checkpoint.langgraph.place import Place
from s3_checkpoint.langgraph.records import CheckpointRecord
from s3_checkpoint.langgraph.retention import prune_thread
from s3_checkpoint.langgraph.saver import S3Saver
from s3_checkpoint.langgraph.thread_listing import (
    FIRST_PAGE_KEYS,
    ListedCheckpoint,
    all_objects,
    by_namespace,
    checkpoints,
    newest_checkpoint,
)
from s3_checkpoint.langgraph.thread_store import GoneError, StoredCheckpoint, ThreadStore
from s3_checkpoint.langgraph.thread_views import (
    TASKS,
    CheckpointView,
    PrunedThread,
    ThreadActivity,
    ThreadStatus,
    ThreadUsage,
    asked,
    changes_between,
    checkpoint_view,
)
from s3_checkpoint.object_store import Page, pages, utc_now

_logger = logging.getLogger("s3_checkpoint.langgraph")
T = TypeVar("T")

THREADS_AT_ONCE = 16
LONG_IDS_READ = 1000
"""The most ids too long for a key that are read to find one by its beginning."""
_LOOKS = 3
"""Times the newest checkpoint is looked for, where it was gone when it was read."""


class ThreadAdmin:
    """The operator's calls, on the threads that `saver` sees. From any event loop; the saver must be open.

    Values are JSON views of what is stored: fields of messages and of the application's types, `{"@type": …, "size":
    …}` for what has no such form. Encrypted payloads are shown as such, unless the saver's serializer encrypts itself.

    Every call raises `InvalidArgumentError` for arguments out of bounds, before any request; `StateDecodingError` for
    stored objects that cannot be trusted; and `AccessDeniedError`, `ConfigurationError`, `StoreUnavailableError`,
    `LifecycleError` or `StoreError` when the store does not do as asked.

    Args:
        saver: Its store, prefix and grace are used; it is not closed.
        now: The clock that ages are measured with, in UTC.
    """

    def __init__(self, saver: S3Saver, *, now: Callable[[], datetime] = utc_now) -> None:
        if not isinstance(saver, S3Saver):
            raise InvalidArgumentError("saver", type(saver).__name__, "must be an S3Saver")
        self._saver = saver
        self._now = now

    async def threads(self, *, after: str | None = None) -> AsyncIterator[str]:
        """The ids of all threads, in the order of their keys.

        Requests:
            1 LIST per 1,000 threads, as the iteration gets there; 1 GET for each id of more than about 100 bytes.

        Args:
            after: Only threads behind this one.

        Yields:
            Each id once. One that cannot be read is left out, with a warning in the log of `s3_checkpoint.langgraph`.
        """
        async with aclosing(self._segments(after)) as found:
            async for segments in found:
                for thread_id in await self._ids(segments):
                    yield thread_id

    async def find(self, beginning: str, *, limit: int = 100) -> list[str]:
        """The ids of threads that begin with `beginning`.

        Requests:
            2 LISTs together. Where they show nothing, 1 LIST and 1 GET for each of up to 1,000 ids that are too long
            for a key.

        Args:
            beginning: Of the id, or all of it.
            limit: The most ids: 1 …

        Returns:
            The one that is equal first, the others in the order of their keys; `[]` if there are none.

        Raises:
            InvalidArgumentError: `limit` is out of bounds; before any request.
        """
        if limit < 1:
            raise InvalidArgumentError("limit", str(limit), "must be 1 or more")
        prefix = self._prefix
        exact = ThreadKeys.of(prefix, beginning)
        begins = f"{threads_prefix(prefix)}{encode_segment(beginning)}"

        async def look(threads: ThreadStore) -> tuple[Page, Page]:
            return await both(
                threads.objects.list(exact.root, limit=1), threads.objects.list(begins, delimiter="/", limit=1000)
            )

        same, page = await self._run(look)
        found = [beginning] if same.keys else []
        segments = [parse_thread(prefix, group) for group in page.prefixes]
        ids = [text for segment in segments if segment is not None and (text := parse_segment(segment)) is not None]
        found += [text for text in ids if text != beginning]
        if not found:
            found = [text for text in await self._long_ids() if text.startswith(beginning)]
        return found[:limit]

    async def namespaces(self, thread_id: str) -> list[str]:
        """The namespaces of the thread that hold something.

        Requests:
            1 LIST per 1,000 namespaces; 1 LIST and 1 GET for each whose name is too long for a key.

        Args:
            thread_id: The thread.

        Returns:
            Ascending: "" for the graph itself, and those of its subgraphs; `[]` for an unknown thread.
        """
        keys = ThreadKeys.of(self._prefix, thread_id)

        async def look(threads: ThreadStore) -> list[str]:
            found = [
                namespace
                async for page in pages(threads.objects, keys.root, delimiter="/")
                for group in page.prefixes
                if (namespace := parse_namespace(self._prefix, group + "/")) is not None
            ]
            names = await gather_bounded(_name(threads, one) for one in found)
            return [name for name in names if name is not None]

        return sorted(await self._run(look))

    async def activity(self, thread_id: str | None = None) -> AsyncIterator[ThreadActivity]:
        """As `threads`, each with its newest checkpoint in the root namespace: time, next nodes, status.

        Requests:
            Those of `threads`; for each thread 1 LIST, then, together, 1 GET for the checkpoint and 1 for each task
            with pending writes of a kind; 1 GET more where `Send` tasks wait whose arguments are large. 16 threads at
            a time.

        Args:
            thread_id: Only this one: then no LIST of threads, and `StateDecodingError` if it cannot be read. A thread
                that is not there gives an activity all None.

        Yields:
            In the order of `threads`. A thread whose newest checkpoint cannot be read has the status `UNREADABLE`.
        """
        if thread_id is not None:
            yield await self._activity(thread_id)
            return
        async with aclosing(self._segments()) as found:
            async for segments in found:
                for start in range(0, len(segments), THREADS_AT_ONCE):
                    ids = await self._ids(segments[start : start + THREADS_AT_ONCE])
                    activities = gather_bounded(
                        (self._activity_if_readable(text) for text in ids), limit=THREADS_AT_ONCE
                    )
                    for one in await activities:
                        yield one

    async def checkpoint(
        self, thread_id: str, checkpoint_id: str | None = None, *, namespace: str = ""
    ) -> CheckpointView | None:
        """The checkpoint with this id, or the newest of the namespace.

        Requests:
            1 LIST, then, together, 1 GET for it, 1 per large value and 1 per task with pending writes of a kind.

        Args:
            thread_id: The thread.
            checkpoint_id: Default: the newest.
            namespace: A subgraph's; default: the graph itself.

        Returns:
            None if it is not there.
        """
        keys = ThreadKeys.of(self._prefix, thread_id).namespace(namespace)
        stored = await self._run(lambda threads: threads.find(keys, checkpoint_id))
        return None if stored is None else self._view(thread_id, stored)

    async def checkpoint_ids(self, thread_id: str, *, namespace: str = "") -> list[str]:
        """The ids of the checkpoints of the namespace, newest first; nothing of them is read.

        Requests:
            1 LIST per 1,000 objects of the namespace, but for its large values.

        Args:
            thread_id: The thread.
            namespace: A subgraph's; default: the graph itself.

        Returns:
            `[]` for an unknown thread.
        """
        keys = ThreadKeys.of(self._prefix, thread_id).namespace(namespace)

        async def look(threads: ThreadStore) -> list[str]:
            async with aclosing(checkpoints(threads.objects, keys)) as found:
                return [one.id async for one in found if one.heads]

        return await self._run(look)

    async def checkpoints_since(
        self, thread_id: str, checkpoint_id: str | None, *, namespace: str = ""
    ) -> list[tuple[str, int]]:
        """The ids of the checkpoints not older than `checkpoint_id`.

        Requests:
            1 LIST, of 200 keys; 1 more per 1,000 keys where those do not show `checkpoint_id`.

        Args:
            thread_id: The thread.
            checkpoint_id: None: the newest alone.
            namespace: A subgraph's; default: the graph itself.

        Returns:
            Newest first, each id with the number of its objects, which grows with pending writes.
        """
        keys = ThreadKeys.of(self._prefix, thread_id).namespace(namespace)

        async def look(threads: ThreadStore) -> list[tuple[str, int]]:
            newer: list[tuple[str, int]] = []
            async with aclosing(checkpoints(threads.objects, keys, page_keys=FIRST_PAGE_KEYS)) as found:
                async for one in found:
                    if checkpoint_id is not None and one.id < checkpoint_id:
                        break
                    if one.heads:
                        newer.append((one.id, len(one.names)))
                        if checkpoint_id is None:
                            break
            return newer

        return await self._run(look)

    async def history(
        self, thread_id: str, *, namespace: str = "", limit: int | None = None, before: str | None = None
    ) -> AsyncIterator[CheckpointView]:
        """The checkpoints of the namespace, read as far as iterated.

        Requests:
            1 LIST per 1,000 keys, then those of `checkpoint` for 8 checkpoints together, then 16, then 32 at a time.

        Args:
            thread_id: The thread.
            namespace: A subgraph's; default: the graph itself.
            limit: The most checkpoints: 0 …
            before: Only checkpoints with lesser ids than this one.

        Yields:
            Newest first; nothing for an unknown thread.
        """
        if limit is not None and limit < 0:
            raise InvalidArgumentError("limit", str(limit), "must be 0 or more")
        history = History(thread_id, namespace, before=before, limit=limit)
        while chunk := await self._run(history.next_chunk):
            for _, stored in chunk:
                yield self._view(thread_id, stored)

    async def delta_writes(self, view: CheckpointView) -> dict[str, JsonValue]:
        """What the delta channels of a checkpoint are rebuilt from.

        The graph's reducers, which make the value of it, are the application's.

        Requests:
            As `S3Saver.get_delta_channel_history`; none without delta channels.

        Args:
            view: The checkpoint.

        Returns:
            `{"seed": …, "writes": […]}` for each channel, the writes oldest first; no seed where none is stored.
        """
        if not view.delta_channels:
            return {}
        reader = copy.copy(self._saver)
        reader.serde = self._views
        config = Place(view.thread_id, view.namespace, view.id).config
        found = await reader.aget_delta_channel_history(config=config, channels=view.delta_channels)
        return {
            channel: {
                **({"seed": history["seed"]} if "seed" in history else {}),
                "writes": [w[2] for w in history["writes"]],
            }
            for channel, history in found.items()
        }

    async def diff(
        self, thread_id: str, before: str | None, after: str | None = None, *, namespace: str = ""
    ) -> list[tuple[str, Change]]:
        """What changed between two checkpoints of a namespace.

        Requests:
            Those of `checkpoint`, twice.

        Args:
            thread_id: The thread.
            before: The earlier checkpoint's id; None compares with nothing at all.
            after: The later one's; default: the newest.
            namespace: A subgraph's; default: the graph itself.

        Returns:
            Each change with the root of its path: values `$`, next nodes `$next`, pending writes `$writes`.

        Raises:
            InvalidArgumentError: A checkpoint is not stored.
        """
        new = await self._must(thread_id, after, namespace)
        return changes_between(None if before is None else await self._must(thread_id, before, namespace), new)

    async def copy(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `S3Saver.copy_thread`, whose requests, arguments and errors it has."""
        await self._saver.acopy_thread(source_thread_id, target_thread_id)

    async def prune(
        self,
        thread_id: str,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        dry_run: bool = False,
    ) -> PrunedThread:
        """Of each namespace of the thread, only the checkpoints to be kept are left, with their writes and values.

        Never goes the newest whole checkpoint of a namespace, nor an ancestor that a delta channel of a kept one is
        rebuilt from. A namespace of a subgraph's call goes whole with the root checkpoint that made the call. Large
        values that nothing refers to any more are marked, and removed by a prune a grace period later; by a saver
        without grace, at once. Safe while workers put, and to repeat.

        Requests:
            1 LIST per 1,000 objects of the thread. Where delta channels are used, 1 GET per checkpoint kept, and 1 per
            ancestor kept for them. Per namespace that something goes of, 1 DELETE per 1,000 checkpoints, per 1,000
            writes and per 1,000 values, 1 HEAD per value that nothing refers to, and 1 COPY for each mark. With
            `dry_run`, no DELETE, HEAD or COPY.

        Args:
            thread_id: The thread; one that is not there is no error.
            keep_last: The number of checkpoints to keep in each namespace, counted from the newest: 1 …
            older_than: Only checkpoints stored longer ago than this go; zero or more. With both, a checkpoint goes only
                if both let it go.
            dry_run: Count only.

        Returns:
            What was removed; with `dry_run`, what would be.

        Raises:
            InvalidArgumentError: Neither rule is given, or one is out of bounds; before any request.
        """
        rule = Retention(keep_last, older_than)

        async def remove(threads: ThreadStore) -> PrunedThread:
            return await prune_thread(threads, thread_id, rule, self._unseeded, now=self._now(), dry_run=dry_run)

        removed = await self._run(remove)
        return removed if dry_run else self._logged("thread pruned", removed)

    async def prune_all(
        self,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        dry_run: bool = False,
        on_thread: Callable[[PrunedThread], None] | None = None,
    ) -> list[PrunedThread]:
        """As `prune` on every thread, 16 at a time.

        Requests:
            Those of `threads`, and of `prune` for each.

        Args:
            keep_last: This and the next two are those of `prune`.
            older_than: See `prune`.
            dry_run: See `prune`.
            on_thread: Called after each.

        Returns:
            What was removed of each, in the order in which they were done.

        Raises:
            InvalidArgumentError: As `prune`; before any request.
            AccessDeniedError: And the other errors of the store: the first one ends it. Threads done until then stay
                pruned, and calling again continues with the others.
        """
        Retention(keep_last, older_than)
        done: list[PrunedThread] = []

        async def one(thread_id: str) -> None:
            pruned = await self.prune(thread_id, keep_last=keep_last, older_than=older_than, dry_run=dry_run)
            done.append(pruned)
            if on_thread is not None:
                on_thread(pruned)

        ids = [thread_id async for thread_id in self.threads()]
        await gather_bounded((one(thread_id) for thread_id in ids), limit=THREADS_AT_ONCE)
        return done

    async def delete(self, thread_id: str, *, dry_run: bool = False) -> PrunedThread:
        """As `S3Saver.delete_thread`: nothing of the thread is left.

        Requests:
            1 LIST per 1,000 objects, to count; then those of `S3Saver.delete_thread`. With `dry_run`, the count alone.

        Args:
            thread_id: The thread; one that is not there is no error.
            dry_run: Count only.

        Returns:
            What was there when it was counted, all of it gone now; with `dry_run`, what would go.
        """
        keys = ThreadKeys.of(self._prefix, thread_id)

        async def count(threads: ThreadStore) -> PrunedThread:
            found = await all_objects(threads.objects, keys.root)
            namespaces = by_namespace(threads.prefix, found)
            size = sum(one.size for one in found)
            heads = sum(bool(one.heads) for namespace in namespaces for one in namespace.checkpoints)
            others = len([one for one in namespaces if one.keys != keys.namespace("")])
            return PrunedThread(thread_id, heads, 0, others, len(found), size, dry_run)

        planned = await self._run(count)
        if dry_run:
            return planned
        await self._saver.adelete_thread(thread_id)
        return self._logged("thread deleted", planned)

    async def usage(self) -> AsyncIterator[ThreadUsage]:
        """What each thread takes, in the order of keys. Current versions only, as `RunAdmin.usage`.

        Requests:
            1 LIST per 1,000 objects under the threads' prefix, in turn; 1 GET for each id of more than about 100 bytes.

        Yields:
            A sum for each thread. One whose id cannot be read is left out, with a warning in the log.
        """
        open_threads: dict[str, _Sum] = {}

        async def is_ordered(threads: ThreadStore) -> bool:
            return threads.objects.ordered

        ordered = await self._run(is_ordered)
        async with aclosing(self._pages(threads_prefix(self._prefix))) as listing:
            async for page in listing:
                for listed in page.objects:
                    segment = parse_thread(self._prefix, listed.key)
                    if segment is not None:
                        open_threads.setdefault(segment, _Sum()).add(listed.size, listed.last_modified)
                if ordered:
                    last = parse_thread(self._prefix, page.objects[-1].key) if page.objects else None
                    ended = [segment for segment in open_threads if segment != last]
                    for usage in await self._usages({segment: open_threads.pop(segment) for segment in ended}):
                        yield usage
        for usage in await self._usages(open_threads):
            yield usage

    @property
    def _prefix(self) -> str:
        return self._saver._prefix

    @property
    def _views(self) -> JsonViews:
        return JsonViews(decryption_of(self._saver.serde))

    async def _run(self, function: Callable[[ThreadStore], Coroutine[Any, Any, T]]) -> T:
        """The call, in the loop that the saver's store belongs to."""
        return await self._saver._opening.acall(function)

    def _unseeded(self, key: str, record: CheckpointRecord) -> frozenset[str]:
        """The delta channels that have no value of their own in a checkpoint."""
        fields = self._views.loads_typed(record.metadata)
        if not isinstance(fields, dict) or TYPE in fields:
            reason = "it is encrypted, so its delta channels are not known; prune with a saver that has the key"
            raise StateDecodingError(self._saver._bucket, key, reason)
        return Conversion(self._views, self._saver._bucket, 0, 0).unseeded(key, record)

    def _view(self, thread_id: str, stored: StoredCheckpoint) -> CheckpointView:
        return checkpoint_view(thread_id, stored, self._saver._bucket, self._views)

    async def _must(self, thread_id: str, checkpoint_id: str | None, namespace: str) -> CheckpointView:
        found = await self.checkpoint(thread_id, checkpoint_id, namespace=namespace)
        if found is None:
            raise InvalidArgumentError("checkpoint_id", str(checkpoint_id), f"is not stored in thread {thread_id!r}")
        return found

    async def _activity_if_readable(self, thread_id: str) -> ThreadActivity:
        """As `_activity`; of a thread that cannot be read, that: none hides the others."""
        try:
            return await self._activity(thread_id)
        except StateDecodingError as error:
            _logger.warning("the newest checkpoint of a thread cannot be read: key=%s", ascii(error.key))
            return ThreadActivity(thread_id, status=ThreadStatus.UNREADABLE)

    async def _activity(self, thread_id: str) -> ThreadActivity:
        keys = ThreadKeys.of(self._prefix, thread_id).namespace("")

        async def read(threads: ThreadStore) -> StoredCheckpoint | None:
            for _ in range(_LOOKS):
                listed = await newest_checkpoint(threads.objects, keys)
                if listed is None:
                    return None
                with contextlib.suppress(GoneError):  # put again, or deleted, since it was listed
                    return await _without_large_values(threads, listed)
            return None

        newest = await self._run(read)
        if newest is None:
            return ThreadActivity(thread_id)
        view = self._view(thread_id, newest)
        waits = tuple(value for write in view.interrupts for value in asked(write.value))
        return ThreadActivity(thread_id, view.id, view.saved_at, view.step, view.status, view.remaining, waits)

    async def _pages(self, prefix: str, delimiter: str = "", start_after: str = "") -> AsyncGenerator[Page, None]:
        listing: list[AsyncGenerator[Page, None]] = []

        async def following(threads: ThreadStore) -> Page | None:
            if not listing:
                listing.append(pages(threads.objects, prefix, delimiter=delimiter, start_after=start_after))
            return await anext(listing[0], None)

        while (page := await self._run(following)) is not None:
            yield page

    async def _segments(self, after: str | None = None) -> AsyncGenerator[list[str], None]:
        # "0" follows "/": behind everything of the thread.
        start_after = "" if after is None else ThreadKeys.of(self._prefix, after).root.removesuffix("/") + "0"
        async with aclosing(self._pages(threads_prefix(self._prefix), "/", start_after)) as listing:
            async for page in listing:
                segments = (parse_thread(self._prefix, group) for group in page.prefixes)
                yield [segment for segment in segments if segment is not None]

    async def _ids(self, segments: Sequence[str]) -> list[str]:
        """The ids behind segments of keys; a thread whose id cannot be read is left out, with a warning in the log."""

        async def one(threads: ThreadStore, segment: str) -> str | None:
            try:
                return await threads.thread_id(NamespaceKeys(self._prefix, segment, "!"))
            except StateDecodingError as error:
                _logger.warning("left out, since the id of the thread cannot be read: key=%s", ascii(error.key))
                return None

        found = [parse_segment(segment) for segment in segments]
        if None in found:
            found = await self._run(lambda threads: gather_bounded(one(threads, segment) for segment in segments))
        return [text for text in found if text is not None]

    async def _long_ids(self) -> list[str]:
        hashed = f"{threads_prefix(self._prefix)}!"
        segments: list[str] = []
        async with aclosing(self._pages(hashed, "/")) as listing:
            async for page in listing:
                found = [parse_thread(self._prefix, group) for group in page.prefixes]
                segments += [segment for segment in found if segment is not None and is_hashed(segment)]
                if len(segments) >= LONG_IDS_READ:
                    break
        return await self._ids(segments[:LONG_IDS_READ])

    async def _usages(self, sums: dict[str, _Sum]) -> list[ThreadUsage]:
        return [
            ThreadUsage(thread_id, total.objects, total.bytes, total.last_modified)
            for segment, total in sums.items()
            for thread_id in await self._ids([segment])
        ]

    @staticmethod
    def _logged(message: str, removed: PrunedThread) -> PrunedThread:
        extra = {"thread_id": removed.thread_id, "checkpoints": removed.checkpoints, "removed_bytes": removed.bytes}
        _logger.info(message, extra=extra)
        return removed


@dataclass(slots=True)
class _Sum:
    """What has been listed of a thread."""

    objects: int = 0
    bytes: int = 0
    last_modified: datetime = field(default=datetime.min.replace(tzinfo=UTC))

    def add(self, size: int, last_modified: datetime) -> None:
        self.objects += 1
        self.bytes += size
        self.last_modified = max(self.last_modified, last_modified)


async def _without_large_values(threads: ThreadStore, listed: ListedCheckpoint) -> StoredCheckpoint:
    """A checkpoint as far as an activity shows it: of its large values the tasks alone."""
    (key, record), writes = await both(threads.read_head(listed), threads.read_writes(listed))
    tasks = record.values.get(TASKS)
    values = await threads.read_values(listed, [tasks.name]) if tasks is not None else {}
    return StoredCheckpoint(listed.keys, key, record, writes, values, seen={})


async def _name(threads: ThreadStore, keys: NamespaceKeys) -> str | None:
    """The name of a namespace; None if nothing is there that tells it."""
    name = parse_segment(keys.segment)
    if name is not None:
        return name
    listed = await newest_checkpoint(threads.objects, keys)
    if listed is None:
        return None
    try:
        return (await threads.read_head(listed))[1].namespace
    except GoneError:
        return None
