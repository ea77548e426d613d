"""Checkpoints and pending writes of threads as objects: written whole, read whole, in bytes.

Knows the object store and the keys; nothing of LangGraph, and not what the payloads say.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from s3_checkpoint._concurrency.gather import both, gather_bounded
from s3_checkpoint._format.compression import compress, decompress
from s3_checkpoint._format.thread_keys import (
    NO_RUN,
    NamespaceKeys,
    ThreadKeys,
    WritesKind,
    WritesName,
    is_hashed,
    is_same_value,
    parse_head,
    parse_segment,
)
from s3_checkpoint.errors import StateDecodingError, StateEncodingError, StoreUnavailableError
from s3_checkpoint.langgraph.grace import Grace, Seen, is_unused
from s3_checkpoint.langgraph.object_cache import ObjectCache
from s3_checkpoint.langgraph.records import CheckpointRecord, ValueRef, WriteRow, WritesRecord
from s3_checkpoint.langgraph.remnants import is_remnant
from s3_checkpoint.langgraph.thread_listing import ListedCheckpoint, newest_checkpoint, one_checkpoint
from s3_checkpoint.object_store import (
    ObjectAttributes,
    ObjectStore,
    ObjectTooLargeError,
    PutMode,
    Refused,
    StoredObject,
    Written,
)

RecordT = TypeVar("RecordT", CheckpointRecord, WritesRecord)

_READS = 3
"""Times a checkpoint is listed and read because something listed was gone: deleted, or put again, since then."""
_LOOKS = 3
"""Times a put looks after the values it refers to, each time held up for longer than it may rely on them."""
_REMEMBERED = 10_000
_VALUE = "value"
"""Stands for name and ETag of large values in the cache: of each key there is only one."""
_INLINE_COMPRESSION = 64 * 1024
"""Bytes up to which compressing takes less time than handing it to a thread."""
_APPENDS = 100
"""Calls that write for one task at the same time; the hundredth loser gives up."""


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint with all that belongs to it, not decoded."""

    keys: NamespaceKeys
    key: str
    """The key of the checkpoint, for messages."""
    record: CheckpointRecord
    writes: tuple[WritesRecord, ...]
    values: Mapping[str, bytes]
    """The large values, by name."""
    seen: Mapping[str, Seen]
    """When each of them was read, by name; without those that were marked as unused then."""

    @property
    def size(self) -> int:
        """Bytes of all payloads, but for those of writes and small change."""
        return sum(map(len, self.values.values())) + sum(len(body) for _, body in self.record.inline.values())


@dataclass(frozen=True, slots=True)
class EncodedCheckpoint:
    """A checkpoint ready to be stored."""

    thread_id: str
    id: str
    name: str
    """The last part of its key."""
    body: bytes
    run: str
    values: Mapping[str, bytes]
    """The large values to be stored with it, by name."""
    reused: Mapping[str, Seen | None]
    """Those it refers to besides, and when each was last seen."""
    record: CheckpointRecord
    """What `body` holds."""


@dataclass(frozen=True, slots=True)
class PutOutcome:
    """What became of a put."""

    lost: frozenset[str] = frozenset()
    """Names of values that are gone, or on their way out: the put has to be made again without them. Empty: stored."""
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """Of a stored checkpoint, when each of its values was written or seen."""


class GoneError(LookupError):
    """Something listed was not there when it was read. Never leaves this package."""


class ThreadStore:
    """Reads and writes checkpoints under one prefix of an open store. Belongs to the store's event loop."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        prefix: str,
        compression: str | None,
        max_bytes: int,
        conditional_writes: bool,
        grace: Grace,
        new_id: Callable[[], str],
        cache_bytes: int = 0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.objects = store
        self.prefix = prefix
        self.grace = grace
        self.new_id = new_id
        self.cache: ObjectCache = ObjectCache(cache_bytes)
        self._compression = compression
        self._max_bytes = max_bytes
        self.conditional_writes = conditional_writes
        self._sleep = sleep
        self._jitter = jitter
        # Objects of incompressible bytes come out a little larger.
        self._max_stored_bytes = max_bytes + max_bytes // 100 + 1024
        self._found_by: set[str] = set()

    async def put(self, keys: NamespaceKeys, checkpoint: EncodedCheckpoint) -> PutOutcome:
        """Stores large values, and what finds the checkpoint again, together; then the checkpoint, which commits them.

        1 PUT, and before it, at once, 1 per value; where this process does so for the first time, 1 for the entry of
        a run, and 1 for a thread id whose segment is hashed. Before them, 1 HEAD for each reused value that was not
        seen within half the grace period: if one is lost, nothing is written. The checkpoint is not sent either while
        what it refers to was written or seen longer ago than that, as a put finds it that was held up in the middle.
        """
        outcome = await self._look_after(keys, checkpoint.reused, self.grace.trusts)
        if outcome.lost:
            return outcome
        began = self.grace.look()
        directory = keys.directory(checkpoint.id)
        await self._put_before(keys, checkpoint, began)
        seen: Mapping[str, Seen] = {**outcome.seen, **dict.fromkeys(checkpoint.values, began)}
        for _ in range(_LOOKS):
            outcome = await self._look_after(keys, seen, self.grace.still_holds)
            if outcome.lost:
                return outcome
            seen = outcome.seen
            if all(map(self.grace.still_holds, seen.values())):
                break
        else:
            slow = "each of its requests took longer than the grace period allows; nothing was committed"
            raise StoreUnavailableError(
                "PutObject", self.objects.bucket, directory + checkpoint.name, outcome_unknown=False, detail=slow
            )
        written = await self._write_record(directory + checkpoint.name, checkpoint.body)
        self._keep(directory, checkpoint.name, written, checkpoint.record, len(checkpoint.body))
        for name, payload in checkpoint.values.items():
            self._keep_value(keys.value(name), payload, seen[name])
        if isinstance(written, Written) and written.repeated:
            # The first attempt may have landed, and its checkpoint been deleted, before this one landed.
            return await self._look_after(keys, seen, lambda _: False)
        return PutOutcome(seen=seen)

    def _keep(self, directory: str, name: str, written: Written | Refused, record: object, size: int) -> None:
        if isinstance(written, Written):
            self.cache.put(directory, name, written.etag.strip('"'), record, size)

    def _keep_value(self, key: str, payload: bytes, seen: Seen) -> None:
        self.cache.put(key, _VALUE, _VALUE, (payload, seen), len(payload))

    async def _put_before(self, keys: NamespaceKeys, checkpoint: EncodedCheckpoint, began: Seen) -> None:
        finders: dict[str, bytes] = {}
        if checkpoint.run != NO_RUN:
            finders[keys.run(checkpoint.run)] = b""
        if is_hashed(keys.thread):
            finders[ThreadKeys(self.prefix, keys.thread).id] = checkpoint.thread_id.encode()
        new = {key: text for key, text in finders.items() if key not in self._found_by}
        await gather_bounded(
            [
                *(self._write(keys.value(value), payload) for value, payload in checkpoint.values.items()),
                *(self._write(key, text, "text/plain; charset=utf-8") for key, text in new.items()),
            ]
        )
        if began.removals == self.grace.look().removals:
            self._found_by.update(new)
        if len(self._found_by) > _REMEMBERED:
            self._found_by.clear()

    async def _look_after(
        self, keys: NamespaceKeys, seen: Mapping[str, Seen | None], holds: Callable[[Any], bool]
    ) -> PutOutcome:
        """HEADs of the values whose evidence does not hold, at once; of what is there, the new evidence."""
        doubtful = [name for name, when in seen.items() if not holds(when)]
        began = self.grace.look()
        heads = await gather_bounded(self.objects.head(keys.value(name)) for name in doubtful)
        lost = {name for name, head in zip(doubtful, heads, strict=True) if head is None or is_unused(head)}
        held = {name: began if name in doubtful else when for name, when in seen.items() if name not in lost}
        return PutOutcome(frozenset(lost), {name: when for name, when in held.items() if when is not None})

    async def value(self, keys: NamespaceKeys, name: str) -> bytes | None:
        """A large value; None if it is gone. 1 GET."""
        found = await self._open(keys.value(name))
        return None if found is None else bytes(found[1])

    def forget(self) -> None:
        """To be called when objects are deleted: what this process wrote may no longer be there."""
        self.grace.removed()
        self._found_by.clear()

    async def put_writes(self, keys: NamespaceKeys, checkpoint_id: str, task_id: str, rows: Sequence[WriteRow]) -> None:
        """Adds the writes of one call; those from index 0 up, and special ones, in an object each, sent together.

        1 PUT for each of the two kinds. Where a call for the same task came before: 1 PUT, LIST and GET more.
        Raises `StateEncodingError` for an object that `get_tuple` would refuse; it is not written.
        """
        regular = [row for row in rows if row.idx >= 0]
        special = [row for row in rows if row.idx < 0]
        kinds: list[tuple[WritesKind, list[WriteRow]]] = [("r", regular), ("s", special)]
        for _, of_kind in kinds:
            self._encode_writes(WritesRecord(task_id, ()).merged(of_kind))
        await gather_bounded(
            self._append(keys, checkpoint_id, WritesName.first(task_id, kind), task_id, of_kind)
            for kind, of_kind in kinds
            if of_kind
        )

    def _encode_writes(self, record: WritesRecord) -> bytes:
        """The object's body: what a reader decompresses, and refuses if it is too large."""
        body = record.encode()
        if len(body) > self._max_bytes:
            written = f"with what the task wrote before it is {len(body)} bytes, more than {self._max_bytes} allowed"
            raise StateEncodingError("$writes", written)
        return body

    async def _append(
        self, keys: NamespaceKeys, checkpoint_id: str, name: WritesName, task_id: str, rows: Sequence[WriteRow]
    ) -> None:
        """Each slot is written once, so calls for one task have an order that all readers agree on."""
        directory = keys.directory(checkpoint_id)
        record = WritesRecord(task_id, ()).merged(rows)
        mode: PutMode = "create" if self.conditional_writes else "overwrite"
        known = self.conditional_writes
        for attempt in range(_APPENDS):
            if known:
                body = self._encode_writes(record)
                written = await self._write_record(f"{directory}{name}", body, mode=mode)
                if not isinstance(written, Refused):
                    self._keep(directory, str(name), written, record, len(body))
                    return
            if attempt > 1:
                await self._sleep(self._jitter() * 0.02 * min(attempt, 10))
            known = True
            listed = await one_checkpoint(self.objects, keys, checkpoint_id)
            last = listed.writes.get((name.task, name.kind)) if listed else None
            if listed is None or last is None:
                continue  # refused for another write in flight, or what was there has been deleted: the same slot again
            there = await self._record(listed, str(last), WritesRecord)
            if there is None:
                continue
            record = there.merged(rows)
            if record == there:
                return  # all of it is there: a repeat, or ours after a lost answer
            name = WritesName(name.task, name.kind, last.slot + 1)
        raise StoreUnavailableError("PutObject", self.objects.bucket, f"{directory}{name}", outcome_unknown=False)

    async def thread_id(self, keys: NamespaceKeys) -> str:
        """The thread id behind keys. No request, but for a hashed segment: 1 GET."""
        text = parse_segment(keys.thread)
        if text is None:
            key = ThreadKeys(self.prefix, keys.thread).id
            found = await self._open(key)
            if found is None:
                raise self.incomplete(key)
            try:
                text = found[1].decode()
            except UnicodeDecodeError as error:
                raise StateDecodingError(self.objects.bucket, key, f"it is no thread id ({error.reason})") from None
        return text

    async def find(self, keys: NamespaceKeys, checkpoint_id: str | None) -> StoredCheckpoint | None:
        """The checkpoint with this id; None: the newest of the namespace. 1 LIST, then everything else at once."""
        if checkpoint_id is not None:
            stored = await self._read(lambda: one_checkpoint(self.objects, keys, checkpoint_id))
            return None if isinstance(stored, ListedCheckpoint) else stored
        remnants: set[str] = set()
        while True:
            stored = await self._read(lambda: newest_checkpoint(self.objects, keys, without=remnants))
            if not isinstance(stored, ListedCheckpoint):
                return stored
            remnants.add(stored.id)

    async def _read(
        self, look: Callable[[], Coroutine[Any, Any, ListedCheckpoint | None]]
    ) -> StoredCheckpoint | ListedCheckpoint | None:
        """What `look` finds, read; only as listed if a put left it of a deleted thread; None if nothing is there."""
        gone = ""
        for _ in range(_READS):
            listed = await look()
            if listed is None or not listed.heads:
                return None
            try:
                return await self.read(listed)
            except GoneError as error:
                gone = str(error)
        assert listed is not None  # noqa: S101 - or nothing would be gone
        if await is_remnant(self.objects, self.read_head, listed, gone, self.grace.period):
            return listed
        raise self.incomplete(gone)

    async def read(self, listed: ListedCheckpoint) -> StoredCheckpoint:
        """A listed checkpoint, with its writes and large values. 1 GET each, all at once. Raises `GoneError`."""
        heads = listed.last_heads
        if len(heads) > 1:  # which of them counts, only their bodies tell
            key, record = await self.read_head(listed)
            return await self.complete(listed, key, record)
        (head, writes), (values, seen) = await both(
            both(self._head(listed, heads[0].name), self.read_writes(listed)),
            self._read_values(listed, heads[0].values),
        )
        return StoredCheckpoint(listed.keys, *head[1:], writes, values, seen)

    async def complete(self, listed: ListedCheckpoint, key: str, record: CheckpointRecord) -> StoredCheckpoint:
        """A checkpoint whose record has been read, with its writes and large values. As `read`, without its GET."""
        names = [ref.name for ref in record.values.values()]
        writes, (values, seen) = await both(self.read_writes(listed), self._read_values(listed, names))
        return StoredCheckpoint(listed.keys, key, record, writes, values, seen)

    async def read_head(self, listed: ListedCheckpoint) -> tuple[str, CheckpointRecord]:
        """Key and record of a listed checkpoint, without what belongs to it. 1 GET. Raises `GoneError`."""
        heads = await gather_bounded(self._head(listed, head.name) for head in listed.last_heads)
        return max(heads, key=lambda head: head[0])[1:]  # of one second, as the store's clock tells: ours decides

    async def read_writes(self, listed: ListedCheckpoint) -> tuple[WritesRecord, ...]:
        """The pending writes of a listed checkpoint. 1 GET per task and kind, at once. Raises `GoneError`."""
        directory = listed.directory
        found = await gather_bounded(self._record(listed, str(name), WritesRecord) for name in listed.writes.values())
        return tuple(_there(record, directory) for record in found)

    async def read_values(self, listed: ListedCheckpoint, names: Sequence[str]) -> dict[str, bytes]:
        """Large values by name. 1 GET each, at once. Raises `GoneError`."""
        return (await self._read_values(listed, names))[0]

    async def _read_values(
        self, listed: ListedCheckpoint, names: Sequence[str]
    ) -> tuple[dict[str, bytes], dict[str, Seen]]:
        """Large values by name, and when those that are not marked as unused were read."""
        found = await gather_bounded(self._value(listed.keys.value(name)) for name in names)
        values = {name: body for name, (body, _) in zip(names, found, strict=True)}
        return values, {name: seen for name, (_, seen) in zip(names, found, strict=True) if seen is not None}

    async def _value(self, key: str) -> tuple[bytes, Seen | None]:
        """A large value, and when it was read; None if it was marked as unused then. Raises `GoneError`.

        It is taken from the cache for as long as a put may rely on it without looking: nothing removes it in that time
        but `delete_thread`.
        """
        payload, seen = self.cache.get(key, _VALUE, _VALUE) or (b"", None)
        if self.grace.trusts(seen):
            return payload, seen
        seen = self.grace.look()
        stored, body = _there(await self._open(key), key)
        if is_unused(stored.head):
            return bytes(body), None
        self._keep_value(key, bytes(body), seen)
        return bytes(body), seen

    async def _head(self, listed: ListedCheckpoint, name: str) -> tuple[int, str, CheckpointRecord]:
        key = listed.directory + name
        record = _there(await self._record(listed, name, CheckpointRecord), key)
        if (head := parse_head(name)) is not None:
            record = replace(record, values=as_named(record.values, head.values))
        return record.saved_at_ns, key, record

    async def _record(self, listed: ListedCheckpoint, name: str, kind: type[RecordT]) -> RecordT | None:
        """A checkpoint or writes, from the cache if the listing shows the ETag known there; else 1 GET."""
        known = self.cache.get(listed.directory, name, listed.etags.get(name, ""))
        if isinstance(known, kind):
            return known
        key = listed.directory + name
        found = await self._open(key)
        if found is None:
            return None
        stored, body = found
        if hashlib.sha256(body).hexdigest() != stored.head.attributes.metadata.get("digest"):
            raise StateDecodingError(self.objects.bucket, key, "its body does not match its digest")
        try:
            record = kind.decode(body)
        except ValueError as error:
            raise StateDecodingError(self.objects.bucket, key, str(error)) from error
        self.cache.put(listed.directory, name, stored.head.etag.strip('"'), record, len(body))
        return record

    async def _open(self, key: str) -> tuple[StoredObject, bytes | bytearray] | None:
        try:
            stored = await self.objects.get(key, max_bytes=self._max_stored_bytes)
        except ObjectTooLargeError as error:
            raise StateDecodingError(self.objects.bucket, key, error.detail) from error
        if stored is None:
            return None
        try:
            return stored, decompress(stored.body, stored.head.attributes.content_encoding, self._max_bytes)
        except ValueError as error:
            raise StateDecodingError(self.objects.bucket, key, str(error)) from error

    async def _write_record(self, key: str, body: bytes, *, mode: PutMode = "overwrite") -> Written | Refused:
        return await self._write(key, body, metadata={"digest": hashlib.sha256(body).hexdigest()}, mode=mode)

    async def _write(
        self,
        key: str,
        body: bytes,
        content_type: str = "application/octet-stream",
        *,
        metadata: Mapping[str, str] | None = None,
        mode: PutMode = "overwrite",
    ) -> Written | Refused:
        attributes = ObjectAttributes(content_type, self._compression, metadata or {})
        if self._compression and len(body) > _INLINE_COMPRESSION:
            body = await asyncio.to_thread(compress, body, self._compression)
        else:
            body = compress(body, self._compression)
        return await self.objects.put(key, body, attributes, mode=mode)

    def incomplete(self, key: str) -> StateDecodingError:
        """The error of a checkpoint whose value is gone."""
        return StateDecodingError(self.objects.bucket, key, "a checkpoint refers to it, and it is not there")


def _there(found: Any, key: str) -> Any:
    if found is None:
        raise GoneError(key)
    return found


def as_named(refs: Mapping[str, ValueRef], names: Sequence[str]) -> dict[str, ValueRef]:
    """The references under the names that the checkpoint's key gives them: those of a copy are its own."""

    def named(ref: ValueRef) -> ValueRef:
        name = next((name for name in names if is_same_value(name, ref.name)), ref.name)
        return ref._replace(name=name)

    return {channel: named(ref) for channel, ref in refs.items()}
