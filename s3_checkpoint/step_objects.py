"""The objects of one step, read and written whole: the state, and the active snapshots beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from s3_checkpoint.codec import ActiveCodec, Body, Facts, Migration, StateCodec
from s3_checkpoint.errors import StateDecodingError
from s3_checkpoint.keys import RunKeys, is_write_id
from s3_checkpoint.models import ActiveSnapshot, StateT
from s3_checkpoint.object_store import ObjectStore, PutMode, Refused, StoredObject, Written
from s3_checkpoint.off_loop import off_loop
from s3_checkpoint.size_estimate import LARGE_BYTES, estimated_bytes


@dataclass(frozen=True, slots=True)
class StateObject:
    """A state as stored, not decoded yet, and what its metadata says."""

    step: int
    stored: StoredObject
    facts: Facts


class StepObjects(Generic[StateT]):
    """Reads and writes a step's objects through the codecs. Knows nothing of which step is the latest."""

    def __init__(
        self,
        state_type: Any,
        store: ObjectStore,
        *,
        schema_version: int = 1,
        migrations: Mapping[int, Migration] | None = None,
        compression: str | None = None,
        max_state_bytes: int = 64 * 1024**2,
    ) -> None:
        self._store = store
        self._active = ActiveCodec(compression=compression, max_bytes=max_state_bytes)
        self._state: StateCodec[StateT] = StateCodec(
            state_type,
            schema_version=schema_version,
            migrations=migrations or {},
            compression=compression,
            max_bytes=max_state_bytes,
        )

    @property
    def store(self) -> ObjectStore:
        """The store all of it is in."""
        return self._store

    @property
    def max_stored_bytes(self) -> int:
        """The most bytes a stored state can honestly have."""
        return self._state.max_stored_bytes

    @property
    def bucket(self) -> str:
        """The bucket's name, for messages."""
        return self._store.bucket

    async def encode_state(self, state: StateT) -> Body:
        """The state as a body. No request; `StateEncodingError` if it would not come back as it is."""
        size = estimated_bytes(state)
        return await off_loop(size >= LARGE_BYTES, self._state.encode, state, size)

    async def encode_active(self, active: Sequence[ActiveSnapshot]) -> Body:
        """The tasks as a body. No request; `StateEncodingError` if a payload would not come back as it is."""
        size = estimated_bytes(active)
        return await off_loop(size >= LARGE_BYTES, self._active.encode, active, size)

    def facts(self, state: Body, active: Body, write_id: str) -> Facts:
        """What the state object of a commit will say of itself."""
        return Facts(write_id, state.digest, write_id, active.digest, str(self._state.schema_version))

    async def put_state(
        self, run: RunKeys, step: int, body: Body, write_id: str, *, mode: PutMode, active_digest: str = ""
    ) -> Written | Refused:
        """Writes the state object; with `active_digest` it names the snapshot of the same write id. 1 PUT."""
        attributes = body.attributes(
            write_id,
            schema_version=str(self._state.schema_version),
            active=write_id if active_digest else "",
            active_digest=active_digest,
        )
        return await self._store.put(run.state(step), body.data, attributes, mode=mode)

    async def put_active(self, key: str, body: Body, write_id: str) -> None:
        """Writes a snapshot over whatever is at `key`. 1 PUT."""
        await self._store.put(key, body.data, body.attributes(write_id), mode="overwrite")

    async def get_state(self, run: RunKeys, step: int) -> StateObject | None:
        """The state object of `step`, or None if there is none. 1 GET."""
        stored = await self._store.get(run.state(step), max_bytes=self._state.max_stored_bytes)
        return StateObject(step, stored, Facts.of(stored.head.attributes.metadata)) if stored else None

    async def head_state(self, run: RunKeys, step: int) -> Facts | None:
        """What the state object of `step` says of itself, or None if there is none. 1 HEAD."""
        head = await self._store.head(run.state(step))
        return Facts.of(head.attributes.metadata) if head else None

    async def decode_state(self, run: RunKeys, found: StateObject) -> StateT:
        """The state. No request; `StateDecodingError` if it cannot be trusted."""
        stored = found.stored
        return await off_loop(_is_large(stored), self._state.decode, self.bucket, run.state(found.step), stored)

    async def get_active(self, key: str, digest: str = "") -> list[ActiveSnapshot] | None:
        """The tasks at `key`, or None if nothing is there. 1 GET. `digest`: what a state object says it must have."""
        stored = await self._store.get(key, max_bytes=self._active.max_stored_bytes)
        if stored is None:
            return None
        return await off_loop(_is_large(stored), self._active.decode, self.bucket, key, stored, digest=digest or None)

    async def get_saved_active_and_facts(
        self, run: RunKeys, step: int
    ) -> tuple[list[ActiveSnapshot] | None, Facts | None]:
        """The tasks that `save_active` wrote, and the facts of the state. 1 GET and 1 HEAD, sent together."""
        # Not a TaskGroup: callers are to see our errors, not a group of them.
        saved = asyncio.ensure_future(self.get_active(run.active(step)))
        facts = asyncio.ensure_future(self.head_state(run, step))
        try:
            return await saved, await facts
        finally:
            saved.cancel()
            facts.cancel()
            # Waited for, so that nothing goes on behind a call that has ended.
            await asyncio.gather(saved, facts, return_exceptions=True)

    def snapshot_key(self, run: RunKeys, step: int, facts: Facts) -> str | None:
        """Where the snapshot stands that the state names; None where it names none.

        Metadata comes from outside: what cannot be a write id never becomes part of a key.
        """
        if not facts.active:
            return None
        if not is_write_id(facts.active):
            problem = f"the write id it names, {ascii(facts.active)[:80]}, is none"
            raise StateDecodingError(self.bucket, run.state(step), problem)
        return run.committed_active(step, facts.active)


def _is_large(stored: StoredObject) -> bool:
    """Whether reading it takes milliseconds; compressed, it is taken for eight times its size."""
    return len(stored.body) * (8 if stored.head.attributes.content_encoding else 1) >= LARGE_BYTES
