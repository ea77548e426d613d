"""`S3Saver`: LangGraph's checkpointer interface on an object store, sync and async on one instance."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Unpack

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from s3_checkpoint._format.keys import new_write_id
from s3_checkpoint._format.thread_keys import ThreadKeys, check_prefix, threads_prefix
from s3_checkpoint._leases.lease_object import LeaseObject
from s3_checkpoint._transports import opening_of, source_of
from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.langgraph.calls import Calls
from s3_checkpoint.langgraph.conversion import Conversion
from s3_checkpoint.langgraph.grace import GRACE, Grace
from s3_checkpoint.langgraph.known_values import KnownValues
from s3_checkpoint.langgraph.object_cache import CACHE_BYTES
from s3_checkpoint.langgraph.opening import Opened, settings_of
from s3_checkpoint.langgraph.thread_store import ThreadStore
from s3_checkpoint.lease import TTL_S, EitherLease, check_conditional_writes, terms_of
from s3_checkpoint.object_store import ObjectStore, utc_now
from s3_checkpoint.request_events import OnRequest
from s3_checkpoint.settings import Compression, S3Options, S3Settings


class S3Saver(Opened[ThreadStore], BaseCheckpointSaver[str]):
    """Keeps the checkpoints of LangGraph threads in a bucket. Every method can be called from any thread and any loop.

        with S3Saver.from_conn_string("s3://my-bucket/my-prefix") as saver:      # or `async with`
            graph = builder.compile(checkpointer=saver)

    Each sync method has an async one, `a…`, which does the same. Requests are made in an event loop of the saver's own;
    payloads are encoded and decoded by `self.serde`, in the caller's thread. Copies (`copy.copy`, `with_allowlist`)
    share everything but `serde`.

    Apart from what each method names, all raise `AccessDeniedError`, `ConfigurationError`, `StoreUnavailableError`
    (after a write its outcome is unknown; every call can be repeated), `LifecycleError` (after `close`), `StoreError`,
    `InvalidArgumentError` (no request was made), and readers `StateDecodingError` (what is stored cannot be trusted, or
    the serializer refuses it).
    """

    def __init__(
        self,
        source: S3Settings | ObjectStore | str | None = None,
        *,
        serde: SerializerProtocol | None = None,
        inline_bytes: int = 64 * 1024,
        prefix: str | None = None,
        compression: Compression | None = None,
        max_state_bytes: int | None = None,
        conditional_writes: bool | None = None,
        session: object | None = None,
        on_request: OnRequest | None = None,
        grace: timedelta = GRACE,
        cache_bytes: int = CACHE_BYTES,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = new_write_id,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """A saver on an open store, or from settings: then its first call opens a client, as entering and `setup` do.

        No request. What is not closed is closed at the end of the process.

        Args:
            source: A store is used in the loop it belongs to (`store.loop`), and closed by its owner. Text is a
                bucket's name or `s3://bucket[/prefix]`: other settings then come from the environment. Default: all of
                them do.
            serde: The serializer of values, writes and metadata; default: LangGraph's own.
            inline_bytes: A channel value of so many bytes or more is stored once per version, and referred to; smaller
                ones are part of each checkpoint.
            prefix: This one to `conditional_writes` are those of `S3Settings`, and given here for a store. Default: no
                prefix, at most 400 bytes.
            compression: Default: none.
            max_state_bytes: Of a checkpoint, a value, or the writes of a task; default 64 MiB.
            conditional_writes: Default: yes.
            session: As in `connect`; only with settings.
            on_request: As in `connect`; only with settings.
            grace: How long `prune` and `delete_for_runs` leave alone what a put in flight may rely on, and twice as
                long as a put relies on a large value that it has seen. All savers of a thread need the same one.
                `timedelta(0)` is for threads whose workers are stopped: then what nothing refers to goes at once, and a
                put that reuses a value always looks first.
            cache_bytes: Up to how many bytes of what this process has written or read are kept, so that a read asks
                only for what is new; shared by copies of the saver. 0: nothing is kept, and checkpoints with delta
                channels carry no copies of what their ancestors wrote. Default: 32 MiB.
            now: The time of day, in UTC; within minutes of the store's.
            monotonic: Seconds that no clock setting changes.
            new_id: Makes the ids by which writes of the same value are told apart: unique ones.
            sleep: Waits between attempts of racing `put_writes`.
            jitter: 0 … 1, by chance: how long, and what makes versions of forks different.

        Raises:
            InvalidArgumentError: A prefix of over 400 bytes, a negative size, or a negative `grace`.
            ConfigurationError: Text that is neither a bucket's name nor such a URL, or no bucket is named.
        """
        super().__init__(serde=serde)
        source = source_of(source)
        settings = settings_of(
            source,
            prefix=prefix,
            compression=compression,
            max_state_bytes=max_state_bytes,
            conditional_writes=conditional_writes,
        )
        self._inline_bytes, self._max_bytes = inline_bytes, settings.max_state_bytes
        sizes = {"inline_bytes": inline_bytes, "max_state_bytes": self._max_bytes, "cache_bytes": cache_bytes}
        for name, size in sizes.items():
            if size < 0:
                raise InvalidArgumentError(name, str(size), "must be 0 or more bytes")
        self._grace, self._new_id, self._chance = Grace(grace, now=now, monotonic=monotonic), new_id, jitter
        self._prefix, self._conditional_writes = check_prefix(settings.prefix), settings.conditional_writes
        self._known = KnownValues()
        make = partial(
            ThreadStore,
            prefix=self._prefix,
            compression=settings.compression,
            max_bytes=self._max_bytes,
            conditional_writes=self._conditional_writes,
            grace=self._grace,
            new_id=new_id,
            cache_bytes=cache_bytes,
            sleep=sleep,
            jitter=jitter,
        )
        self._bucket = source.bucket
        self._root = threads_prefix(self._prefix)
        self._opening = opening_of(
            source,
            make,
            session=session,
            on_request=on_request,
            thread="s3-checkpoint-langgraph",
        )

    @classmethod
    def from_conn_string(
        cls,
        conn_string: str,
        *,
        serde: SerializerProtocol | None = None,
        inline_bytes: int = 64 * 1024,
        session: object | None = None,
        on_request: OnRequest | None = None,
        grace: timedelta = GRACE,
        cache_bytes: int = CACHE_BYTES,
        **settings: Unpack[S3Options],
    ) -> S3Saver:
        """A saver for `s3://bucket[/prefix]`: a context manager, sync and async, that its first call opens if need be.

        No request.

        Args:
            conn_string: The URL.
            serde: This and the next five are those of `S3Saver`.
            inline_bytes: See `S3Saver`.
            session: See `S3Saver`.
            on_request: See `S3Saver`.
            grace: See `S3Saver`.
            cache_bytes: See `S3Saver`.
            settings: Those of `S3Settings`; others come from the environment (`S3_CHECKPOINT_…`).

        Raises:
            ConfigurationError: Another form of URL, or settings out of bounds.
        """
        return cls(
            S3Settings.from_url(conn_string, **settings),
            serde=serde,
            inline_bytes=inline_bytes,
            session=session,
            on_request=on_request,
            grace=grace,
            cache_bytes=cache_bytes,
        )

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """A checkpoint is stored as a child of the one `config` names; one with the same id is replaced.

        A checkpoint that can be seen has all its values, whatever `prune`, `delete_thread`, `delete_for_runs` and
        `copy_thread` do at the same time in other processes.

        Requests: 1 PUT; before it, together, 1 PUT per large value that the parent does not have, and for the first
        checkpoint of a run (metadata `run_id`) in a namespace 1. Before them 1 HEAD per large value that it shares with
        the parent, if this process has neither written nor read that within half of `grace`; 1 PUT more if it is gone.

        Args:
            config: The parent's: thread, namespace and, but for the first of a namespace, checkpoint id.
            checkpoint: Its id is part of the key; not changed.
            metadata: Completed from `config` by LangGraph's `get_checkpoint_metadata`.
            new_versions: The channels that changed since the parent, with their versions.

        Returns:
            The config that leads to it.

        Raises:
            StateEncodingError: The serializer refuses a value, or it is too large. Nothing was written.
            StoreError: A delta channel's snapshot, which the checkpoint builds on and does not hold, was deleted with
                its thread. The checkpoint was not written.
        """
        return self._calls.put(config, checkpoint, metadata, new_versions).run(self._opening)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `put`."""
        return await self._calls.put(config, checkpoint, metadata, new_versions).arun(self._opening)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """The pending writes of a task are stored with the checkpoint `config` names, which may be still to come.

        A write at an index that the task has written before is left out; of special channels (error, scheduled,
        interrupt, resume) the last write stays.

        Requests: 1 PUT; one for each kind, together, where a call has both; after an earlier call for the same task 1
        LIST, 1 GET and 1 PUT more.

        Args:
            config: With the checkpoint's id.
            writes: (channel, value); the position is the index, but for special channels, which have one of their own.
            task_id: The task's.
            task_path: The first key of the order in which a run applies writes.

        Raises:
            StateEncodingError: The serializer refuses a write, or the object that would hold the task's writes of a
                kind, those of earlier calls included, is larger than a reader takes. That object was not written.
        """
        self._calls.put_writes(config, writes, task_id, task_path).run(self._opening)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """See `put_writes`."""
        await self._calls.put_writes(config, writes, task_id, task_path).arun(self._opening)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint `config` names, or the newest of its namespace.

        What a put has left that did not know of its thread's deletion is passed over, with a warning in the log of
        `s3_checkpoint.langgraph`.

        Requests: 1 LIST, then, together, 1 GET for it, one per task with pending writes and one per large value: two
        round trips, whatever the length of the history. Of what this process has written or read and the LIST shows
        unchanged, none: the newest checkpoint of a thread it works on takes one round trip.

        Args:
            config: Thread and namespace ("" by default); a checkpoint id that is absent, None or "" means the newest.

        Returns:
            Pending writes are in the order of task path, task id and index. None if the checkpoint is not there.
        """
        return self._calls.get_tuple(config).run(self._opening)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `get_tuple`."""
        return await self._calls.get_tuple(config).arun(self._opening)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, newest id first, read as far as iterated.

        A checkpoint that cannot be read is an error where its thread was asked for; of all threads it is left out, with
        a warning in the log of `s3_checkpoint.langgraph`, so that none hides the others.

        Requests: 1 LIST per 1,000 keys, with a namespace only as far as needed; then the reads of `get_tuple` for up to
        `limit` checkpoints together. With `filter`, the checkpoints are read first, and what belongs to those that
        match after.

        Args:
            config: None: all threads; without `checkpoint_ns`: all namespaces; "": the root's alone.
            filter: Metadata that must be equal.
            before: Only lesser ids than the one it names.
            limit: The most checkpoints, counted after `filter`: 0 …; default: all.

        Yields:
            What `get_tuple` gives of each.
        """
        next_chunk = self._calls.chunks(config, filter, before, limit)
        while found := next_chunk().run(self._opening):
            yield from found

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """See `list`."""
        next_chunk = self._calls.chunks(config, filter, before, limit)
        while found := await next_chunk().arun(self._opening):
            for item in found:
                yield item

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """What delta channels are rebuilt from: their writes since the nearest stored value, and that value.

        Requests: 1 LIST per 1,000 keys, then, together, at most log2(ancestors) + 4 GETs, where the ancestors were put
        by processes with a cache; without one, their objects, 16 checkpoints together, then 32, and so on. None for no
        channels.

        Args:
            config: As for `get_tuple`.
            channels: Their names.

        Returns:
            Per channel `writes`, oldest first, of the ancestors of the checkpoint `config` names, back to and including
            the one that stores a value, which is the `seed`; without one, back to the first.
        """
        return self._calls.delta_history(config, channels).run(self._opening) if channels else {}

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `get_delta_channel_history`."""
        return await self._calls.delta_history(config, channels).arun(self._opening) if channels else {}

    def lease(
        self,
        thread_id: str,
        ttl_s: float = TTL_S,
        *,
        purpose: str = "",
        holder: str | None = None,
        at_most_s: float | None = None,
    ) -> EitherLease:
        """A lease on a thread, for `with` or `async with`: inside the block no other worker gets it. No request yet.

            with saver.lease(thread_id) as held:              # LeaseHeldError for the second click
                graph.invoke(message, {"configurable": {"thread_id": thread_id}})

        It is renewed in the loop of the saver's store, whatever the block does; a block of `async with` is cancelled
        when the lease is lost. It saves work, and keeps LangGraph's threads from two runs at once: a checkpoint is put
        whether or not its worker holds a lease. `delete_thread` removes it, and its holder loses it.

        Requests: To take it 1 GET and 1 PUT, and the first time in a process 1 refused PUT together with the GET; if
        another worker holds it, 1 GET. 1 PUT for each renewal, three within `ttl_s`; 1 PUT to give it back.

        Args:
            thread_id: The thread; it need not have checkpoints.
            ttl_s: Seconds that the lease outlives its holder, 1 … 86,400.
            purpose: What for, for people: at most 200 characters. It is in the `LeaseHeldError` of rivals.
            holder: Who, for people: at most 200 characters. Default: this machine's name and the process id.
            at_most_s: Seconds after which it is not renewed any more and so counts as lost, 1 or more.

        Returns:
            A lease; entering it gives a `SyncHeld` or a `Held`. Entering raises `LeaseHeldError` if another holds it,
            and leaving if it was lost.

        Raises:
            InvalidArgumentError: An argument is out of bounds.
            ConfigurationError: `conditional_writes` is off; on entering, the store has no `If-Match`.
        """
        check_conditional_writes(self._conditional_writes, self._bucket)
        terms = terms_of(ttl_s, purpose=purpose, holder=holder, at_most_s=at_most_s)
        key = ThreadKeys.of(self._prefix, str(thread_id)).lease
        return EitherLease(
            lambda function: self._opening.acall(lambda threads: function(threads.objects)),
            lambda function: self._opening.call(lambda threads: function(threads.objects)),
            partial(LeaseObject, key=key, new_id=self._new_id),
            terms,
        )

    def delete_thread(self, thread_id: str) -> None:
        """Removes everything of a thread, until a listing shows nothing; call again if it was cut short.

        Checkpoints go first, so whatever cuts it short leaves what can be seen whole. A put of another process that is
        in flight may bring a checkpoint back, whole; its values, younger than `grace` and not yet referred to, stay.
        One that only reuses values stays invisible. To be sure that nothing comes back, stop the thread's workers
        before, and use a saver with `grace=timedelta(0)`.

        Requests: 1 LIST per 1,000 objects, at least 2 if there are any; 1 DELETE per 1,000 checkpoints, per 1,000 other
        objects and per 1,000 runs; 1 HEAD per value younger than `grace` that no checkpoint referred to.

        Args:
            thread_id: One that is not there is no error.

        Raises:
            StoreUnavailableError: Also if workers continue to write to the thread.
        """
        self._calls.delete_thread(thread_id).run(self._opening)

    async def adelete_thread(self, thread_id: str) -> None:
        """See `delete_thread`."""
        await self._calls.delete_thread(thread_id).arun(self._opening)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Removes the checkpoints, in all threads, whose metadata names one of these runs, with their writes.

        Large values that nothing refers to any more are marked, and removed by a `prune` a grace period later; without
        `grace` at once. Delta channels of later runs that are rebuilt from the checkpoints are lost.

        Requests: 1 LIST per run, 1 per namespace it has checkpoints in (and per 1,000 keys there), all of them twice;
        per namespace 1 DELETE per 1,000 checkpoints and per 1,000 writes, 1 HEAD and 1 COPY per value to be marked; 1
        DELETE for what leads from the runs to them.

        Args:
            run_ids: Those that are not there are no error.

        Raises:
            TypeError: A bare str was given.
            StoreUnavailableError: Also if workers continue to write under one of the runs.
        """
        self._calls.delete_for_runs(run_ids).run(self._opening)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `delete_for_runs`."""
        await self._calls.delete_for_runs(run_ids).arun(self._opening)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all of a thread inside the store, the oldest checkpoint first; a source that is not there is no error.

        A copy that is cut short is the thread as it was earlier; calling again completes it.

        Requests: 1 LIST per 1,000 objects, and again if the source loses some; 1 COPY each, those of checkpoints one
        after another; 1 PUT per run and namespace, and for a target id whose segment is hashed.

        Args:
            source_thread_id: It stays as it is.
            target_thread_id: Checkpoints that it has stay, unless the source has one of the same id.

        Raises:
            StoreError: The source was deleted in between.
            StateDecodingError: A checkpoint refers to a value which is not there. All that are older have been copied.
        """
        self._calls.copy_thread(source_thread_id, target_thread_id).run(self._opening)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """See `copy_thread`."""
        await self._calls.copy_thread(source_thread_id, target_thread_id).arun(self._opening)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Removes history, of each thread.

        `keep_latest` keeps the newest whole checkpoint of each namespace, with its writes and values, newer ones that
        have lost a value, and the ancestors its delta channels are rebuilt from; `delete` or `delete_all` keeps
        nothing, as `delete_thread`. A value that nothing refers to any more is marked, and removed by a `prune` that
        comes a grace period later; without `grace` at once.

        Requests: per thread 1 LIST per 1,000 objects; per namespace 1 DELETE per 1,000 checkpoints, per 1,000 writes
        and per 1,000 values removed, the GETs of `get_delta_channel_history` where delta channels are used, and 1 HEAD
        per value that nothing refers to (but for those younger than `grace` that nothing has referred to), 1 COPY for
        each mark.

        Args:
            thread_ids: Those that are not there are no error.
            strategy: "keep_latest", "delete" or "delete_all".

        Raises:
            TypeError: A bare str was given.
            InvalidArgumentError: Another strategy.
            AccessDeniedError: Also if values may not be marked (`s3:PutObject`); checkpoints have been removed then.
        """
        self._calls.prune(thread_ids, strategy).run(self._opening)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `prune`."""
        await self._calls.prune(thread_ids, strategy).arun(self._opening)

    def get_next_version(self, current: str | int | float | None, channel: None) -> str:
        """The version after `current`, as text that sorts; of two forks of one checkpoint, different ones.

        Args:
            current: None for a channel's first; also what other savers count with: int, float, or text that begins with
                the count.
            channel: Not used.

        Returns:
            The count, 32 digits, and a chance part.
        """
        count = int(str(current).split(".", 1)[0]) if current is not None else 0
        return f"{count + 1:032}.{self._chance():016}"

    @property
    def _calls(self) -> Calls:
        conversion = Conversion(self.serde, self._bucket, self._inline_bytes, self._max_bytes)
        return Calls(self._prefix, conversion, self._known, self._grace, self._new_id)
