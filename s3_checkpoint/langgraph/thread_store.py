"""Checkpoints and pending writes of threads as objects: written whole, read whole, in bytes.

Knows the object store and the keys; nothing of LangGraph, and not what the payloads say.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from s3_checkpoint.compression import compress, decompress
from s3_checkpoint.errors import StateDecodingError, StoreUnavailableError
from s3_checkpoint.langgraph.envelope import CheckpointRecord, WriteRow, WritesRecord
from s3_checkpoint.langgraph.thread_listing import FIRST_PAGE_KEYS, ListedCheckpoint, checkpoints, one_checkpoint
from s3_checkpoint.langgraph.together import together
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore, PutMode, Refused, StoredObject
from s3_checkpoint.thread_keys import (
    NO_RUN,
    NamespaceKeys,
    ThreadKeys,
    WritesKind,
    WritesName,
    is_hashed,
    parse_segment,
)

RecordT = TypeVar("RecordT", CheckpointRecord, WritesRecord)

_READS = 3
"""Times a checkpoint is listed and read anew because something listed was gone: deleted, or put again, meanwhile."""
_REMEMBERED = 10_000
_INLINE_COMPRESSION = 64 * 1024
"""Bytes up to which compressing takes less time than handing it to a thread."""
_APPENDS = 100
"""Calls that write for one task at the same time; the hundredth loser gives up."""


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint with all that belongs to it, not decoded."""

    keys: NamespaceKeys
    key: str
    """Where the checkpoint stands, for messages."""
    record: CheckpointRecord
    writes: tuple[WritesRecord, ...]
    values: Mapping[str, bytes]
    """The large values, by name."""

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
    """The large values to be stored with it, by name; others are there already."""


class GoneError(Exception):
    """Something listed was not there when it was read. Never leaves this package."""


class ThreadStore:
    """Reads and writes checkpoints under one prefix of an open store. Belongs to the store's event loop."""

    def __init__(
        self, store: ObjectStore, *, prefix: str, compression: str | None, max_bytes: int, conditional_writes: bool
    ) -> None:
        self.objects = store
        self.prefix = prefix
        self._compression = compression
        self._max_bytes = max_bytes
        self._conditional_writes = conditional_writes
        # Objects of incompressible bytes come out a little larger.
        self._max_stored_bytes = max_bytes + max_bytes // 100 + 1024
        self._found_by: set[str] = set()

    async def put(self, keys: NamespaceKeys, checkpoint: EncodedCheckpoint) -> None:
        """Stores large values, and what finds the checkpoint again, together; then the checkpoint, which commits them.

        1 PUT, and before it, at once, 1 per value; where this process does so for the first time, 1 for the entry of
        a run, and 1 for a thread id whose segment is hashed.
        """
        finders: dict[str, bytes] = {}
        if checkpoint.run != NO_RUN:
            finders[keys.run(checkpoint.run)] = b""
        if is_hashed(keys.thread):
            finders[ThreadKeys(self.prefix, keys.thread).id] = checkpoint.thread_id.encode()
        new = {key: text for key, text in finders.items() if key not in self._found_by}
        await together(
            [
                *(self._write(keys.value(value), payload) for value, payload in checkpoint.values.items()),
                *(self._write(key, text, "text/plain; charset=utf-8") for key, text in new.items()),
            ]
        )
        self._found_by.update(new)
        await self._write_record(keys.directory(checkpoint.id) + checkpoint.name, checkpoint.body)
        if len(self._found_by) > _REMEMBERED:
            self._found_by.clear()

    def forget(self) -> None:
        """To be called when objects have been deleted: what this process wrote may no longer be there."""
        self._found_by.clear()

    async def put_writes(self, keys: NamespaceKeys, checkpoint_id: str, task_id: str, rows: Sequence[WriteRow]) -> None:
        """Adds the writes of one call; those from index 0 up, and special ones, in an object each, sent together.

        1 PUT for each of the two kinds. Where a call for the same task came before: 1 PUT, LIST and GET more.
        """
        regular = [row for row in rows if row.idx >= 0]
        special = [row for row in rows if row.idx < 0]
        kinds: list[tuple[WritesKind, list[WriteRow]]] = [("r", regular), ("s", special)]
        await together(
            self._append(keys, checkpoint_id, WritesName.first(task_id, kind), task_id, of_kind)
            for kind, of_kind in kinds
            if of_kind
        )

    async def _append(
        self, keys: NamespaceKeys, checkpoint_id: str, name: WritesName, task_id: str, rows: Sequence[WriteRow]
    ) -> None:
        """Each slot is written once, so calls for one task have an order that all readers agree on."""
        directory = keys.directory(checkpoint_id)
        record = WritesRecord(task_id, ()).merged(rows)
        mode: PutMode = "create" if self._conditional_writes else "overwrite"
        known = self._conditional_writes
        for attempt in range(_APPENDS):
            if known and await self._write_record(f"{directory}{name}", record.encode(), mode=mode):
                return
            if attempt > 1:
                await asyncio.sleep(random.uniform(0, 0.02 * min(attempt, 10)))  # noqa: S311 - jitter, not a secret
            known = True
            listed = await one_checkpoint(self.objects, keys, checkpoint_id)
            last = listed.writes.get((name.task, name.kind)) if listed else None
            if last is None:
                continue  # refused for another write under way, or what was there has been deleted: the same slot again
            there = await self._read(f"{directory}{last}", WritesRecord)
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
                raise self._incomplete(key)
            text = found[1].decode()
        return text

    async def latest(self, keys: NamespaceKeys) -> StoredCheckpoint | None:
        """The newest checkpoint of a namespace. 1 LIST, then everything else at once."""
        for _ in range(_READS):
            async with aclosing(checkpoints(self.objects, keys, page_keys=FIRST_PAGE_KEYS)) as found:
                listed = await anext((listed async for listed in found if listed.heads), None)
            if listed is None:
                return None
            try:
                return await self.read(listed)
            except GoneError as error:
                gone = str(error)
        raise self._incomplete(gone)

    async def at(self, keys: NamespaceKeys, checkpoint_id: str) -> StoredCheckpoint | None:
        """The checkpoint with this id. 1 LIST, then everything else at once."""
        for _ in range(_READS):
            listed = await one_checkpoint(self.objects, keys, checkpoint_id)
            if listed is None or not listed.heads:
                return None
            try:
                return await self.read(listed)
            except GoneError as error:
                gone = str(error)
        raise self._incomplete(gone)

    async def read(self, listed: ListedCheckpoint) -> StoredCheckpoint:
        """A listed checkpoint, with its writes and large values. 1 GET each, all at once. Raises `GoneError`."""
        heads, writes, values = await asyncio.gather(
            together(self._head(listed, head.name) for head in listed.heads),
            self.read_writes(listed),
            self.read_values(listed, listed.values),
        )
        key, record = max(heads, key=lambda head: head[0])[1:]
        return StoredCheckpoint(listed.keys, key, record, writes, values)

    async def read_head(self, listed: ListedCheckpoint) -> tuple[str, CheckpointRecord]:
        """Key and record of a listed checkpoint, without what belongs to it. 1 GET. Raises `GoneError`."""
        return max(await together(self._head(listed, head.name) for head in listed.heads), key=lambda head: head[0])[1:]

    async def read_writes(self, listed: ListedCheckpoint) -> tuple[WritesRecord, ...]:
        """The pending writes of a listed checkpoint. 1 GET per task and kind, at once. Raises `GoneError`."""
        directory = listed.directory
        found = await together(self._read(f"{directory}{name}", WritesRecord) for name in listed.writes.values())
        return tuple(_there(record, directory) for record in found)

    async def read_values(self, listed: ListedCheckpoint, names: Sequence[str]) -> dict[str, bytes]:
        """Large values by name. 1 GET each, at once. Raises `GoneError`."""
        found = await together(self._open(listed.keys.value(name)) for name in names)
        return {name: bytes(_there(body, listed.keys.value(name))[1]) for name, body in zip(names, found, strict=True)}

    async def _head(self, listed: ListedCheckpoint, name: str) -> tuple[tuple[object, int], str, CheckpointRecord]:
        key = listed.directory + name
        stored, body = _there(await self._open(key), key)
        record = self._decode(key, stored, body, CheckpointRecord)
        return (stored.head.last_modified, record.saved_at_ns), key, record

    async def _read(self, key: str, kind: type[RecordT]) -> RecordT | None:
        found = await self._open(key)
        return None if found is None else self._decode(key, *found, kind)

    def _decode(self, key: str, stored: StoredObject, body: bytes | bytearray, kind: type[RecordT]) -> RecordT:
        if hashlib.sha256(body).hexdigest() != stored.head.attributes.metadata.get("digest"):
            raise StateDecodingError(self.objects.bucket, key, "its body does not match its digest")
        try:
            return kind.decode(body)
        except ValueError as error:
            raise StateDecodingError(self.objects.bucket, key, str(error)) from error

    async def _open(self, key: str) -> tuple[StoredObject, bytes | bytearray] | None:
        stored = await self.objects.get(key, max_bytes=self._max_stored_bytes)
        if stored is None:
            return None
        try:
            return stored, decompress(stored.body, stored.head.attributes.content_encoding, self._max_bytes)
        except ValueError as error:
            raise StateDecodingError(self.objects.bucket, key, str(error)) from error

    async def _write_record(self, key: str, body: bytes, *, mode: PutMode = "overwrite") -> bool:
        return await self._write(key, body, metadata={"digest": hashlib.sha256(body).hexdigest()}, mode=mode)

    async def _write(
        self,
        key: str,
        body: bytes,
        content_type: str = "application/octet-stream",
        *,
        metadata: Mapping[str, str] | None = None,
        mode: PutMode = "overwrite",
    ) -> bool:
        attributes = ObjectAttributes(content_type, self._compression, metadata or {})
        if self._compression and len(body) > _INLINE_COMPRESSION:
            body = await asyncio.to_thread(compress, body, self._compression)
        else:
            body = compress(body, self._compression)
        return not isinstance(await self.objects.put(key, body, attributes, mode=mode), Refused)

    def _incomplete(self, key: str) -> StateDecodingError:
        return StateDecodingError(self.objects.bucket, key, "a checkpoint refers to it, and it is not there")


def _there(found: Any, key: str) -> Any:
    if found is None:
        raise GoneError(key)
    return found
