"""The objects of one step, read and written whole: the state, and the active tasks that it carries or names.

A committed state has its tasks in one of two places. If they fit, they are in its metadata (`active-inline`): the step
is one object, and the snapshot object is a copy for people and tools. Otherwise the metadata names a snapshot object by
its write id, and that object was there before the state. A state that was `save`d has the tasks of `save_active`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple

from s3_checkpoint._concurrency.gather import both
from s3_checkpoint._concurrency.offload import off_loop
from s3_checkpoint._format.codec import ActiveCodec, StateCodec
from s3_checkpoint._format.json_codec import Body
from s3_checkpoint._format.keys import RunKeys, is_write_id
from s3_checkpoint._format.metadata import ObjectMetadata
from s3_checkpoint._format.size_estimate import LARGE_BYTES, estimated_bytes
from s3_checkpoint.errors import StateDecodingError
from s3_checkpoint.models import ActiveSnapshot, InlineTasks, Migration, SnapshotObjects, StateT
from s3_checkpoint.object_store import (
    ObjectAttributes,
    ObjectHead,
    ObjectStore,
    ObjectTooLargeError,
    Refused,
    StoredObject,
    Written,
)

READ_ATTEMPTS = 4
"""How often a read starts over when what it was led to is deleted or replaced before it gets there."""


class StateObject(NamedTuple):
    """A state as stored, not decoded yet, and its metadata."""

    step: int
    stored: StoredObject
    metadata: ObjectMetadata


class StoredStep(NamedTuple):
    """A whole step as stored: its state, not decoded yet, and its own active tasks."""

    state: StateObject
    active: list[ActiveSnapshot]


class StepDraft(NamedTuple):
    """A step ready to be created: the state object, and the snapshot object if one is to be written."""

    state: bytes
    state_attributes: ObjectAttributes
    metadata: ObjectMetadata
    """That of the state object."""
    active: Sequence[ActiveSnapshot] = ()
    snapshot: bytes | None = None
    snapshot_attributes: ObjectAttributes | None = None

    @property
    def is_one_object(self) -> bool:
        """Whether the state object is the step by itself; else its snapshot must be there before it."""
        return not self.metadata.active or bool(self.metadata.active_inline)

    def out_of_order(self) -> StepDraft:
        """The same, marked as created when later steps were there already."""
        metadata = replace(self.metadata, out_of_order="1")
        attributes = replace(self.state_attributes, metadata=metadata.build())
        return self._replace(metadata=metadata, state_attributes=attributes)


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
        inline_tasks: InlineTasks = "auto",
        bodies_encrypted: bool = False,
        snapshot_objects: SnapshotObjects = "always",
    ) -> None:
        self._store = store
        self._inline_tasks = inline_tasks
        self._bodies_encrypted = bodies_encrypted
        self._snapshot_objects = snapshot_objects
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

    async def draft(self, state: StateT, active: Sequence[ActiveSnapshot], write_id: str) -> StepDraft:
        """The step that a commit of `state` and `active` is to create. No request.

        `StateEncodingError` if the state or a payload does not round-trip.
        """
        state_body, active_body = await self.encode_state(state), await self.encode_active(active)
        named = ObjectMetadata(
            write_id=write_id,
            digest=state_body.digest,
            active=write_id,
            active_digest=active_body.digest,
            schema_version=str(self._state.schema_version),
        )
        inline = named.with_inline_tasks(active_body.data) if self._may_inline(active, active_body) else None
        of_state = state_body.attributes(inline or named)
        if inline is not None and self._snapshot_objects == "when_large":
            return StepDraft(state_body.data, of_state, inline, tuple(active))
        of_snapshot = active_body.attributes(
            ObjectMetadata(write_id=write_id, digest=active_body.digest, copy="1" if inline else "")
        )
        return StepDraft(state_body.data, of_state, inline or named, tuple(active), active_body.data, of_snapshot)

    def _may_inline(self, active: Sequence[ActiveSnapshot], body: Body) -> bool:
        if self._inline_tasks == "never" or body.encoding is not None:
            return False
        in_clear = self._bodies_encrypted and any(task.payload is not None for task in active)
        return self._inline_tasks == "always" or not in_clear

    async def save_state(self, run: RunKeys, step: int, body: Body, write_id: str) -> None:
        """Writes the state object over whatever is there; it carries and names no tasks. 1 PUT."""
        metadata = ObjectMetadata(write_id=write_id, digest=body.digest, schema_version=str(self._state.schema_version))
        await self._store.put(run.state(step), body.data, body.attributes(metadata), mode="overwrite")

    async def save_active(self, run: RunKeys, step: int, body: Body, write_id: str) -> None:
        """Writes the tasks of `step` over those there, for a state that carries and names none. 1 PUT."""
        metadata = ObjectMetadata(write_id=write_id, digest=body.digest)
        await self._store.put(run.active(step), body.data, body.attributes(metadata), mode="overwrite")

    async def create_state(self, run: RunKeys, step: int, draft: StepDraft) -> Written | Refused:
        """Creates the state object. 1 PUT."""
        return await self._store.put(run.state(step), draft.state, draft.state_attributes, mode="create")

    async def put_snapshot(self, run: RunKeys, step: int, draft: StepDraft) -> None:
        """Writes the snapshot object under its own key; nothing where the draft has none. 1 PUT."""
        if draft.snapshot is not None and draft.snapshot_attributes is not None:
            key = run.committed_active(step, draft.metadata.active)
            await self._store.put(key, draft.snapshot, draft.snapshot_attributes, mode="overwrite")

    async def get_state(self, run: RunKeys, step: int) -> StateObject | None:
        """The state object of `step`, or None if there is none. 1 GET."""
        stored = await self._get(run.state(step), self._state.max_stored_bytes)
        return StateObject(step, stored, ObjectMetadata.of(stored.head)) if stored else None

    async def get_step(self, run: RunKeys, step: int) -> StoredStep | None:
        """The whole step, or None if there is none. 1 GET; 1 more if the state does not carry its tasks inline.

        When the snapshot that the state names is not there, the state is read again: it may have been replaced or
        removed since. `StateDecodingError` if the same state still names it, or if the tasks cannot be trusted.
        """
        missing = ""
        for _ in range(READ_ATTEMPTS):
            found = await self.get_state(run, step)
            if found is None:
                return None
            named = self._snapshot_key(run, step, found.metadata)
            if named is not None and named == missing:
                break
            active = await self._tasks(run, step, found.metadata, named)
            if active is not None:
                return StoredStep(found, active)
            missing = named or ""
        raise self._snapshot_gone(missing)

    async def get_step_and_next(self, run: RunKeys, step: int) -> tuple[StoredStep | None, ObjectHead | None]:
        """As `get_step`, and the head of the state after it, None if that is not there. 1 HEAD more, at the same time.

        `step` is not the greatest that there can be.
        """
        return await both(self.get_step(run, step), self._store.head(run.state(step + 1)))

    async def has_step(self, run: RunKeys, step: int) -> bool:
        """Whether the state of `step` is there. 1 HEAD."""
        return await self._store.head(run.state(step)) is not None

    def inline_tasks(self, run: RunKeys, step: int, head: ObjectHead) -> list[ActiveSnapshot] | None:
        """The tasks that the state of `step` with this head carries; None if it carries none. No request.

        `StateDecodingError` for tasks that cannot be trusted.
        """
        metadata = ObjectMetadata.of(head)
        if not (metadata.active and metadata.active_inline):
            return None
        return self._active.decode_inline(self.bucket, run.state(step), metadata)

    async def tasks_of(self, run: RunKeys, step: int, head: ObjectHead) -> list[ActiveSnapshot] | None:
        """The tasks of the state with this head; None if it was `save`d without any, or what it names is gone.

        No request where the state carries them; else 1 GET. `StateDecodingError` for tasks that cannot be trusted.
        """
        metadata = ObjectMetadata.of(head)
        named = self._snapshot_key(run, step, metadata)
        if named is None:
            return await self._get_snapshot(run.active(step))
        return await self._tasks(run, step, metadata, named)

    async def get_active(self, run: RunKeys, step: int) -> list[ActiveSnapshot]:
        """The tasks of the step; for a state that is not there, those of `save_active`; else none.

        1 GET and 1 HEAD, sent together; 1 GET more if the state names a snapshot and does not carry its tasks inline.
        That no state is there rests on the HEAD, and that S3 is what answers on the GET sent with it.
        """
        missing = ""
        for _ in range(READ_ATTEMPTS):
            saved, head = await both(self._get_snapshot(run.active(step)), self._store.head(run.state(step)))
            metadata = ObjectMetadata.of(head) if head else ObjectMetadata()
            named = self._snapshot_key(run, step, metadata)
            if named is None:
                return saved or []
            if named == missing:
                break
            active = await self._tasks(run, step, metadata, named)
            if active is not None:
                return active
            missing = named
        raise self._snapshot_gone(missing)

    async def decode_state(self, run: RunKeys, found: StateObject) -> StateT:
        """The state. No request; `StateDecodingError` if it cannot be trusted."""
        stored = found.stored
        return await off_loop(_is_large(stored), self._state.decode, self.bucket, run.state(found.step), stored)

    async def is_same_step(self, run: RunKeys, ours: StepDraft, theirs: StateObject) -> bool:
        """Whether what is stored is a commit of an equal state with equal tasks, as their types call equal.

        No request where the digests tell; 1 GET for tasks that are not inline.
        """
        if theirs.metadata.same_content(ours.metadata):
            return True
        if not theirs.metadata.active or theirs.metadata.schema_version != ours.metadata.schema_version:
            return False
        try:
            state = await self.decode_state(run, theirs)
            named = self._snapshot_key(run, theirs.step, theirs.metadata)
            active = await self._tasks(run, theirs.step, theirs.metadata, named)
        except StateDecodingError:
            return False  # whatever that is, it is not ours
        our_state = Body(ours.state, ours.metadata.digest, ours.state_attributes.content_encoding)

        def same() -> bool:
            return self._state.same(self._state.round_trip(our_state), state)

        return (
            active is not None
            and self._active.same(ours.active, active)
            and await off_loop(_is_large(theirs.stored), same)
        )

    async def draft_of_fork(self, run: RunKeys, step: int, write_id: str, origin: str) -> StepDraft | None:
        """The step as another run is to begin with it; None if it is not there. Requests: those of `get_step`.

        Body and schema version stay as stored. The tasks become the new step's own, those of `save_active` too.
        """
        whole = await self.get_step(run, step)
        if whole is None:
            return None
        stored = whole.state.stored
        metadata = replace(whole.state.metadata, write_id=write_id, origin=origin, out_of_order="")
        snapshot = snapshot_attributes = None
        if metadata.active or whole.active:
            inline = bool(metadata.active_inline)
            body = await self.encode_active(whole.active)
            digest = metadata.active_digest if inline else body.digest
            metadata = replace(metadata, active=write_id, active_digest=digest)
            if not inline or self._snapshot_objects == "always":
                snapshot = body.data
                of_snapshot = ObjectMetadata(write_id=write_id, digest=body.digest, copy="1" if inline else "")
                snapshot_attributes = body.attributes(of_snapshot)
        attributes = replace(stored.head.attributes, metadata=metadata.build())
        return StepDraft(stored.body, attributes, metadata, whole.active, snapshot, snapshot_attributes)

    async def _tasks(
        self, run: RunKeys, step: int, metadata: ObjectMetadata, named: str | None
    ) -> list[ActiveSnapshot] | None:
        """The tasks that a state with this metadata has; None if they are at `named`, and nothing is there."""
        if named is not None and metadata.active_inline:
            return self._active.decode_inline(self.bucket, run.state(step), metadata)
        active = await self._get_snapshot(named or run.active(step), metadata.active_digest)
        return active if active is not None or named is not None else []

    async def _get_snapshot(self, key: str, digest: str = "") -> list[ActiveSnapshot] | None:
        """The tasks at `key`, or None if nothing is there. 1 GET. `digest`: what a state object says it must have."""
        stored = await self._get(key, self._active.max_stored_bytes)
        if stored is None:
            return None
        return await off_loop(_is_large(stored), self._active.decode, self.bucket, key, stored, digest=digest or None)

    async def _get(self, key: str, max_bytes: int) -> StoredObject | None:
        try:
            return await self._store.get(key, max_bytes=max_bytes)
        except ObjectTooLargeError as error:
            raise StateDecodingError(self.bucket, key, error.detail) from error

    def _snapshot_key(self, run: RunKeys, step: int, metadata: ObjectMetadata) -> str | None:
        """The key of the snapshot that the state names; None where it names none.

        Metadata comes from outside: what cannot be a write id never becomes part of a key.
        """
        if not metadata.active:
            return None
        if not is_write_id(metadata.active):
            problem = f"the write id it names, {ascii(metadata.active)[:80]}, is none"
            raise StateDecodingError(self.bucket, run.state(step), problem)
        return run.committed_active(step, metadata.active)

    def _snapshot_gone(self, key: str) -> StateDecodingError:
        return StateDecodingError(self.bucket, key, "the active snapshot that the step names is gone")


def _is_large(stored: StoredObject) -> bool:
    """Whether reading it takes milliseconds; compressed, it is taken for eight times its size."""
    return len(stored.body) * (8 if stored.head.attributes.content_encoding else 1) >= LARGE_BYTES
