"""The saver's calls, each written once: what happens in the store's loop, and what the caller's thread makes of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._concurrency.offload import off_loop
from s3_checkpoint._concurrency.open_once import OpenOnce
from s3_checkpoint._format.size_estimate import LARGE_BYTES, estimated_bytes
from s3_checkpoint._format.thread_keys import ThreadKeys, run_segment
from s3_checkpoint.errors import InvalidArgumentError, StateDecodingError, StoreError, StoreUnavailableError
from s3_checkpoint.langgraph import copying, removal
from s3_checkpoint.langgraph.conversion import DELTA_COUNTERS, Conversion
from s3_checkpoint.langgraph.delta_channels import DeltaChain, Lineage
from s3_checkpoint.langgraph.grace import Grace
from s3_checkpoint.langgraph.history import History
from s3_checkpoint.langgraph.known_values import KnownValues
from s3_checkpoint.langgraph.place import Place
from s3_checkpoint.langgraph.records import CheckpointRecord, Payload
from s3_checkpoint.langgraph.thread_store import PutOutcome, StoredCheckpoint, ThreadStore

R = TypeVar("R")

_PUTS = 5
"""Times a put is made because values it reuses were deleted; each time fewer are left that can be."""


class Operation(NamedTuple):
    """What happens in the store's loop."""

    run: Callable[[ThreadStore], Coroutine[Any, Any, Any]]
    size: Callable[[Any], int] = lambda _: 0
    """Bytes of its result that the caller's thread has to decode."""


Steps = Generator[Operation, Any, R]
"""A call: it runs in the caller's thread, but for the operations it yields, whose results it is sent."""


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """A call of the saver, written once for its sync and its async form."""

    steps: Steps[R]
    encoded: Callable[[], int] = lambda: 0
    """About the bytes that the steps have to encode."""

    def run(self, opening: OpenOnce[ThreadStore]) -> R:
        """What the call gives; blocks until then."""
        operation, result = self._step(None)
        while operation is not None:
            operation, result = self._step(opening.call(operation.run))
        return cast("R", result)

    async def arun(self, opening: OpenOnce[ThreadStore]) -> R:
        """`run`, without blocking the running loop: much is encoded and decoded in a thread."""
        encodes_much = self.encoded() >= LARGE_BYTES
        operation, result = await off_loop(encodes_much, self._step, None)
        while operation is not None:
            answer = await opening.acall(operation.run)
            large = encodes_much or operation.size(answer) >= LARGE_BYTES
            operation, result = await off_loop(large, self._step, answer)
        return cast("R", result)

    def _step(self, answer: Any) -> tuple[Operation | None, R | None]:
        """The next operation, or else the result."""
        try:
            return self.steps.send(answer), None
        except StopIteration as end:  # must not leave a thread by way of a future
            return None, end.value


@dataclass(frozen=True, slots=True)
class Calls:
    """The saver's calls; arguments are checked at once. `conversion` is that of the moment."""

    prefix: str
    conversion: Conversion
    known: KnownValues
    grace: Grace
    new_id: Callable[[], str]

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> Call[RunnableConfig]:
        """See `S3Saver.put`."""
        steps = self._put(Place.of(config), checkpoint, get_checkpoint_metadata(config, metadata), new_versions)
        return Call(steps, lambda: estimated_bytes(checkpoint, LARGE_BYTES))

    def _put(
        self, parent: Place, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> Steps[RunnableConfig]:
        """Puts the checkpoint; where values that it reuses are gone, again with them, from the checkpoint at hand."""
        keys = ThreadKeys.of(self.prefix, parent.thread_id).namespace(parent.namespace)
        encode = partial(
            self.conversion.encode, keys, parent, checkpoint, metadata, new_versions, self.known.of(parent)
        )
        latest = self.grace.now()
        lineage = Lineage()
        counters: Any = metadata.get(DELTA_COUNTERS)
        if counters and parent.checkpoint_id is not None:
            find = partial(Lineage.of, keys=keys, parent_id=parent.checkpoint_id, channels=frozenset(counters))
            lineage = yield Operation(find)
        again: dict[str, Payload | None] = {}
        for _ in range(_PUTS):
            # Of two puts within one second of the store's clock, this tells readers which one is the later.
            latest = max(latest + timedelta(microseconds=1), self.grace.now())
            encoded, refs = encode(write_id=self.new_id(), now=latest, lineage=lineage, again=again)
            outcome: PutOutcome = yield Operation(partial(ThreadStore.put, keys=keys, checkpoint=encoded))
            if not outcome.lost:
                place = parent._replace(checkpoint_id=encoded.id)
                self.known.note(
                    place,
                    {channel: value._replace(seen=outcome.seen[value.ref.name]) for channel, value in refs.items()},
                )
                return place.config
            for channel, value in refs.items():
                ref = value.ref
                if ref.name not in outcome.lost or ref.name in encoded.values:
                    continue
                again[channel] = None
                if value.delta:  # a checkpoint may leave it out, and its ancestors may be gone too
                    body: bytes | None = yield Operation(partial(ThreadStore.value, keys=keys, name=ref.name))
                    if body is None:
                        told = "a delta channel's snapshot was deleted with its thread; the checkpoint was not stored"
                        raise StoreError("PutObject", self.conversion.bucket, keys.value(ref.name), told)
                    again[channel] = (ref.tag, body)
        told = "what it refers to was deleted again and again"
        raise StoreUnavailableError(
            "PutObject", self.conversion.bucket, keys.directory(encoded.id), outcome_unknown=True, detail=told
        )

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> Call[None]:
        """See `S3Saver.put_writes`."""
        place = Place.of(config)
        if place.checkpoint_id is None:
            raise InvalidArgumentError("checkpoint_id", "", "must be given, as config['configurable']['checkpoint_id']")
        keys = ThreadKeys.of(self.prefix, place.thread_id).namespace(place.namespace)
        checkpoint_id = place.checkpoint_id

        def steps() -> Steps[None]:
            rows = self.conversion.encode_writes(writes, task_path)
            yield Operation(lambda threads: threads.put_writes(keys, checkpoint_id, str(task_id), rows))

        return Call(steps(), lambda: estimated_bytes(writes, LARGE_BYTES))

    def get_tuple(self, config: RunnableConfig) -> Call[CheckpointTuple | None]:
        """See `S3Saver.get_tuple`."""
        place = Place.of(config)
        keys = ThreadKeys.of(self.prefix, place.thread_id).namespace(place.namespace)
        find = partial(ThreadStore.find, keys=keys, checkpoint_id=place.checkpoint_id)

        def steps() -> Steps[CheckpointTuple | None]:
            stored: StoredCheckpoint | None = yield Operation(find, lambda found: found.size if found else 0)
            return None if stored is None else self._decode(place.thread_id, stored)

        return Call(steps())

    def chunks(
        self,
        config: RunnableConfig | None,
        filter: Mapping[str, Any] | None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None,
        limit: int | None,
    ) -> Callable[[], Call[list[CheckpointTuple]]]:
        """See `S3Saver.list`; each call gives the tuples of the next chunk, the last one none."""
        place = Place.of(config) if config else None
        namespace = config["configurable"].get("checkpoint_ns") if config else None
        before_id = before["configurable"].get("checkpoint_id") if before else None
        wanted = dict(filter or {})

        def keep(key: str, record: CheckpointRecord) -> bool:
            metadata: Mapping[str, Any] = self.conversion.decode_metadata(key, record)
            return all(metadata.get(name) == value for name, value in wanted.items())

        history = History(
            place.thread_id if place else None,
            namespace,
            checkpoint_id=place.checkpoint_id if place else None,
            before=str(before_id) if before_id else None,
            keep=keep if wanted else None,
            limit=limit,
        )

        def steps() -> Steps[list[CheckpointTuple]]:
            found: list[CheckpointTuple] = []
            while not found:  # all of a chunk may be left out
                chunk: list[tuple[str, StoredCheckpoint]] = yield Operation(
                    history.next_chunk, lambda chunk: sum(stored.size for _, stored in chunk)
                )
                if not chunk:
                    break
                for thread_id, stored in chunk:
                    try:
                        found.append(self._decode(thread_id, stored))
                    except StateDecodingError as error:
                        history.leave_out(error)
            return found

        return lambda: Call(steps())

    def delta_history(self, config: RunnableConfig, channels: Sequence[str]) -> Call[Mapping[str, DeltaChannelHistory]]:
        """See `S3Saver.get_delta_channel_history`."""
        place = Place.of(config)
        names = tuple(channels)

        def steps() -> Steps[Mapping[str, DeltaChannelHistory]]:
            read = partial(DeltaChain.read, place=place, channels=names)
            chain: DeltaChain = yield Operation(read, lambda chain: chain.size)
            return {channel: self.conversion.decode_history(chain, channel) for channel in names}

        return Call(steps())

    def delete_thread(self, thread_id: str) -> Call[None]:
        """See `S3Saver.delete_thread`."""
        return self._removal(lambda threads: removal.delete_thread(threads, str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> Call[None]:
        """See `S3Saver.delete_for_runs`."""
        runs = [run_segment(run_id) for run_id in _texts("run_ids", run_ids)]
        return self._removal(lambda threads: removal.delete_for_runs(threads, runs))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> Call[None]:
        """See `S3Saver.copy_thread`."""
        source, target = str(source_thread_id), str(target_thread_id)
        return Call(_one_step(lambda threads: copying.copy_thread(threads, source, target)))

    def prune(self, thread_ids: Sequence[str], strategy: str) -> Call[None]:
        """See `S3Saver.prune`."""
        threads_ids = _texts("thread_ids", thread_ids)
        one: Callable[[ThreadStore, str], Coroutine[Any, Any, None]]
        if strategy == "keep_latest":
            one = partial(removal.prune_thread, unseeded=self.conversion.unseeded)
        elif strategy in ("delete", "delete_all"):
            one = removal.delete_thread
        else:
            raise InvalidArgumentError(
                "strategy", repr(strategy)[:80], "must be 'keep_latest', 'delete' or 'delete_all'"
            )

        async def run(threads: ThreadStore) -> None:
            await gather_bounded((one(threads, thread_id) for thread_id in threads_ids), limit=8)

        return self._removal(run)

    def _decode(self, thread_id: str, stored: StoredCheckpoint) -> CheckpointTuple:
        found, known = self.conversion.decode(thread_id, stored)
        self.known.note(Place.of(found.config), known)
        return found

    def _removal(self, run: Callable[[ThreadStore], Coroutine[Any, Any, None]]) -> Call[None]:
        async def removing(threads: ThreadStore) -> None:
            try:
                await run(threads)
            finally:
                self.known.clear()

        return Call(_one_step(removing))


def _one_step(run: Callable[[ThreadStore], Coroutine[Any, Any, None]]) -> Steps[None]:
    yield Operation(run)


def _texts(argument: str, ids: Sequence[str]) -> list[str]:
    if isinstance(ids, str | bytes):
        raise TypeError(f"{argument} must be a sequence of ids, not one: its characters would be taken for ids")
    return list(dict.fromkeys(str(item) for item in ids))
