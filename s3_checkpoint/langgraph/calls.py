"""The saver's calls, each written once: what happens in the store's loop, and what the caller's thread makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)

from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.langgraph import retention
from s3_checkpoint.langgraph.conversion import Conversion, KnownValues, Place
from s3_checkpoint.langgraph.delta_history import DeltaChain
from s3_checkpoint.langgraph.envelope import CheckpointRecord
from s3_checkpoint.langgraph.history import History
from s3_checkpoint.langgraph.home import Home
from s3_checkpoint.langgraph.thread_store import StoredCheckpoint, ThreadStore
from s3_checkpoint.langgraph.together import together
from s3_checkpoint.thread_keys import ThreadKeys, run_segment

T = TypeVar("T")
R = TypeVar("R")

_LARGE_BYTES = 256 * 1024
"""Stored bytes from which decoding would hold up the caller's event loop noticeably, and is given to a thread."""

Chunk = list[tuple[str, StoredCheckpoint]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T, R]):
    """A call to be made: `run` in the store's loop, then `finish` with what it gave."""

    run: Callable[[ThreadStore], Coroutine[Any, Any, T]]
    finish: Callable[[T], R]
    size: Callable[[T], int] = lambda _: 0
    """Bytes that `finish` has to decode."""

    def now(self, home: Home) -> R:
        """Makes it, blocking."""
        return self.finish(home.call(self.run))

    async def later(self, home: Home) -> R:
        """Makes it, without blocking the running loop."""
        result = await home.acall(self.run)
        if self.size(result) >= _LARGE_BYTES:
            return await asyncio.to_thread(self.finish, result)
        return self.finish(result)


@dataclass(frozen=True, slots=True)
class Calls:
    """Makes the calls, checking and encoding their arguments at once. `conversion` is that of the moment."""

    prefix: str
    conversion: Conversion
    known: KnownValues

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Call[None, RunnableConfig]:
        """See `S3Saver.put`."""
        parent = Place.of(config)
        keys = ThreadKeys.of(self.prefix, parent.thread_id).namespace(parent.namespace)
        metadata = get_checkpoint_metadata(config, metadata)
        known = self.known.of(parent)
        encoded, refers_to = self.conversion.encode(keys, parent, checkpoint, metadata, new_versions, known)

        async def run(threads: ThreadStore) -> None:
            await threads.put(keys, encoded)

        def finish(_: None) -> RunnableConfig:
            place = parent._replace(checkpoint_id=encoded.id)
            self.known.note(place, refers_to)
            return place.config

        return Call(run, finish)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Call[None, None]:
        """See `S3Saver.put_writes`."""
        place = Place.of(config)
        if place.checkpoint_id is None:
            raise InvalidArgumentError("checkpoint_id", "", "must be given, as config['configurable']['checkpoint_id']")
        keys = ThreadKeys.of(self.prefix, place.thread_id).namespace(place.namespace)
        rows = self.conversion.encode_writes(writes, task_path)
        return Call(lambda threads: threads.put_writes(keys, place.checkpoint_id or "", str(task_id), rows), _nothing)

    def get_tuple(self, config: RunnableConfig) -> Call[StoredCheckpoint | None, CheckpointTuple | None]:
        """See `S3Saver.get_tuple`."""
        place = Place.of(config)
        keys = ThreadKeys.of(self.prefix, place.thread_id).namespace(place.namespace)

        def run(threads: ThreadStore) -> Coroutine[Any, Any, StoredCheckpoint | None]:
            return threads.latest(keys) if place.checkpoint_id is None else threads.at(keys, place.checkpoint_id)

        def finish(stored: StoredCheckpoint | None) -> CheckpointTuple | None:
            return None if stored is None else self._decode(place.thread_id, stored)

        return Call(run, finish, lambda stored: 0 if stored is None else stored.size)

    def chunks(
        self,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Call[Chunk, list[CheckpointTuple]]:
        """See `S3Saver.list`; made again and again, it gives the tuples chunk by chunk, in the end an empty one."""
        place = Place.of(config) if config else None
        namespace = config["configurable"].get("checkpoint_ns") if config else None
        before_id = before["configurable"].get("checkpoint_id") if before else None
        wanted = dict(filter or {})

        def keep(key: str, record: CheckpointRecord) -> bool:
            metadata: Mapping[str, Any] = self.conversion.decode_metadata(key, record)
            return all(metadata.get(name) == value for name, value in wanted.items())

        started: list[History] = []

        async def run(threads: ThreadStore) -> Chunk:
            if not started:
                history = History(
                    threads,
                    place.thread_id if place else None,
                    namespace,
                    checkpoint_id=place.checkpoint_id if place else None,
                    before=str(before_id) if before_id else None,
                    keep=keep if wanted else None,
                    limit=limit,
                )
                started.append(history)
            return await started[0].next_chunk()

        def finish(chunk: Chunk) -> list[CheckpointTuple]:
            return [self._decode(thread_id, stored) for thread_id, stored in chunk]

        return Call(run, finish, lambda chunk: sum(stored.size for _, stored in chunk))

    def delta_history(
        self, config: RunnableConfig, channels: Sequence[str]
    ) -> Call[DeltaChain, Mapping[str, DeltaChannelHistory]]:
        """See `S3Saver.get_delta_channel_history`."""
        place = Place.of(config)
        names = tuple(channels)
        return Call(
            lambda threads: DeltaChain.read(threads, place, names),
            lambda chain: chain.decode(self.conversion, names),
            lambda chain: chain.size,
        )

    def delete_thread(self, thread_id: str) -> Call[None, None]:
        """See `S3Saver.delete_thread`."""
        return self._removal(lambda threads: retention.delete_thread(threads, str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> Call[None, None]:
        """See `S3Saver.delete_for_runs`."""
        runs = [run_segment(run_id) for run_id in _texts("run_ids", run_ids)]
        return self._removal(lambda threads: retention.delete_for_runs(threads, runs))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> Call[None, None]:
        """See `S3Saver.copy_thread`."""
        source, target = str(source_thread_id), str(target_thread_id)
        return Call(lambda threads: retention.copy_thread(threads, source, target), _nothing)

    def prune(self, thread_ids: Sequence[str], strategy: str) -> Call[None, None]:
        """See `S3Saver.prune`."""
        threads_ids = _texts("thread_ids", thread_ids)
        one: Callable[[ThreadStore, str], Coroutine[Any, Any, None]]
        if strategy == "keep_latest":
            one = partial(retention.prune_thread, unseeded=self.conversion.unseeded)
        elif strategy in ("delete", "delete_all"):
            one = retention.delete_thread
        else:
            raise InvalidArgumentError(
                "strategy", repr(strategy)[:80], "must be 'keep_latest', 'delete' or 'delete_all'"
            )

        async def run(threads: ThreadStore) -> None:
            await together((one(threads, thread_id) for thread_id in threads_ids), at_once=8)

        return self._removal(run)

    def _decode(self, thread_id: str, stored: StoredCheckpoint) -> CheckpointTuple:
        found, known = self.conversion.decode(thread_id, stored)
        self.known.note(Place.of(found.config), known)
        return found

    def _removal(self, run: Callable[[ThreadStore], Coroutine[Any, Any, None]]) -> Call[None, None]:
        async def removing(threads: ThreadStore) -> None:
            try:
                await run(threads)
            finally:
                self.known.clear()

        return Call(removing, _nothing)


def _nothing(_: None) -> None:
    return None


def _texts(argument: str, ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str | bytes):
        raise TypeError(f"{argument} must be a sequence of ids, not one: its characters would be taken for ids")
    return list(dict.fromkeys(str(item) for item in ids))
