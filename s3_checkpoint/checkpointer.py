"""The checkpointer: five calls that any store of checkpoints has, and two that need S3's conditional writes.

`save` and `save_active` replace what is there: the last writer wins. `commit` and `resume` treat a step as one thing,
state and active tasks together, written exactly once however many workers try.

**How a commit works.** The state object is the commit point.

    1. PUT active/<step>.<write_id>.json     a key of this attempt's own: nobody else writes or reads it
    2. PUT steps/<step>.json                 with If-None-Match: *, naming that write id

A crash before 2 leaves an object that nothing names; a crash after 2 leaves the whole step. A loser at 2 has disturbed
nothing, since its snapshot has another name.

**What a refusal means.** 412 and 409 are not believed unread: a PUT whose answer was lost is sent again by the HTTP
client and refused by its own success. So the step is read back. Our own write id there, or the same content: committed.
Other content: `StepConflictError`. Nothing there (a 409 between two writers who both failed): try again, with jitter.
"""

from __future__ import annotations

import asyncio
import builtins
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic
from uuid import UUID

from s3_checkpoint.codec import Facts, Migration
from s3_checkpoint.errors import ConfigurationError, StateDecodingError, StepConflictError, StoreUnavailableError
from s3_checkpoint.keys import RunKeys, check_run_id, check_step, new_write_id, run_keys
from s3_checkpoint.models import ActiveSnapshot, Checkpoint, StateT
from s3_checkpoint.object_store import ObjectStore, Written
from s3_checkpoint.step_index import StepIndex
from s3_checkpoint.step_objects import StateObject, StepObjects

COMMIT_ATTEMPTS = 6
"""How often `commit` sends a state PUT that is refused while nothing is there."""
READ_ATTEMPTS = 4
"""How often a read starts over when what it was led to is deleted or replaced under it."""


class Checkpointer(ABC, Generic[StateT]):
    """Stores a graph's state at each superstep boundary. Subclasses need the first three calls only."""

    @abstractmethod
    async def save(self, run_id: UUID, step: int, state: StateT) -> None:
        """Stores `state` as `step` of the run, replacing what is there."""

    @abstractmethod
    async def load(self, run_id: UUID, step: int | None = None) -> StateT | None:
        """The state of `step`, or of the latest step if None; None if it was never saved."""

    @abstractmethod
    async def list(self, run_id: UUID) -> list[int]:
        """The steps saved for the run, ascending; empty for an unknown run."""

    async def save_active(self, run_id: UUID, step: int, active: Sequence[ActiveSnapshot]) -> None:
        """Stores the tasks active after `step`. By default does nothing: resuming then starts at the start node."""

    async def load_active(self, run_id: UUID, step: int) -> builtins.list[ActiveSnapshot]:
        """The tasks active after `step`. By default none."""
        return []


class S3Checkpointer(Checkpointer[StateT]):
    """A `Checkpointer` on an object store. Safe for any number of concurrent calls, in one event loop.

    `connect` makes one on S3; construct it yourself on a `MemoryStore` for tests. `new_id` gives write ids (letters,
    digits, `-` and `_`; unique in the world), `sleep` and `jitter` the pauses between repeats of a refused commit.

    Every call raises `InvalidArgumentError` for a `run_id` that is no UUID or a `step` that is no int of 0 … 2^64-1,
    before any request; and `AccessDeniedError`, `ConfigurationError`, `StoreUnavailableError`, `LifecycleError` or
    `StoreError` when the store does not do as asked. Leave a state unchanged until the call returns.
    """

    def __init__(
        self,
        state_type: type[StateT],
        store: ObjectStore,
        *,
        prefix: str = "",
        namespace: str = "",
        schema_version: int = 1,
        migrations: Mapping[int, Migration] | None = None,
        compression: str | None = None,
        max_state_bytes: int = 64 * 1024**2,
        conditional_writes: bool = True,
        new_id: Callable[[], str] = new_write_id,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._prefix = prefix
        self._namespace = namespace
        self._conditional_writes = conditional_writes
        self._new_id = new_id
        self._sleep = sleep
        self._jitter = jitter
        self._index = StepIndex(store)
        self._objects: StepObjects[StateT] = StepObjects(
            state_type,
            store,
            schema_version=schema_version,
            migrations=migrations,
            compression=compression,
            max_state_bytes=max_state_bytes,
        )

    @property
    def objects(self) -> StepObjects[StateT]:
        """Reads and writes the objects of single steps; for tools that look deeper than these calls."""
        return self._objects

    @property
    def index(self) -> StepIndex:
        """Finds the steps of a run; remembers where it has seen them."""
        return self._index

    @property
    def prefix(self) -> str:
        """All keys begin with this."""
        return self._prefix

    @property
    def namespace(self) -> str:
        """The subgraph this checkpointer is for; empty for the graph itself."""
        return self._namespace

    def with_namespace(self, namespace: str) -> S3Checkpointer[StateT]:
        """A checkpointer for a subgraph of the same runs: same client, steps of its own. No request.

        `namespace` is the subgraph's whole path, any text; it replaces the one this checkpointer has, and `""` leads
        back to the graph itself. `InvalidArgumentError` if it holds lone surrogates or makes keys too long for S3.
        """
        RunKeys(self._prefix, UUID(int=0), namespace)
        other: S3Checkpointer[StateT] = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _namespace=namespace)
        return other

    async def save(self, run_id: UUID, step: int, state: StateT) -> None:
        """`state` is what the step holds, whatever was there; active tasks committed with it are no longer its own.

        1 PUT. `StateEncodingError`, before any request, if the state would not come back as it is.
        """
        run, step = self._run(run_id), check_step(step)
        body = await self._objects.encode_state(state)

        await self._objects.put_state(run, step, body, self._new_id(), mode="overwrite")
        self._index.seen(run, step)

    async def load(self, run_id: UUID, step: int | None = None) -> StateT | None:
        """The state of `step`, or of the latest step if None; None if there is none.

        1 GET; without a step, before it the LISTs that find the latest: 1 up to 1,000 steps, or where this checkpointer
        has seen a recent one; else up to 60. `StateDecodingError` if what is stored cannot be trusted.
        """
        run = self._run(run_id)
        if step is None:
            found = await self._latest(run)
        else:
            found = await self._objects.get_state(run, check_step(step))
        return await self._objects.decode_state(run, found) if found else None

    async def save_active(self, run_id: UUID, step: int, active: Sequence[ActiveSnapshot]) -> None:
        """`active` are the tasks of `step` that `load_active` gives, unless the step is committed: then its own stay.

        1 PUT. `StateEncodingError`, before any request, if a payload would not come back as it is.
        """
        run, step = self._run(run_id), check_step(step)
        body = await self._objects.encode_active(active)

        await self._objects.put_active(run.active(step), body, self._new_id())

    async def load_active(self, run_id: UUID, step: int) -> builtins.list[ActiveSnapshot]:
        """The tasks committed with `step`; for a step not committed, those of `save_active`; else none.

        1 GET and 1 HEAD, sent together; 1 GET more if the step was committed. `StateDecodingError` if a snapshot that
        the step names is gone or cannot be trusted.
        """
        run, step = self._run(run_id), check_step(step)
        key = ""
        for _ in range(READ_ATTEMPTS):
            saved, facts = await self._objects.get_saved_active_and_facts(run, step)
            named = self._objects.snapshot_key(run, step, facts) if facts else None
            if facts is None or named is None:
                return saved or []
            committed = await self._objects.get_active(named, facts.active_digest)
            if committed is not None:
                return committed
            key = named  # replaced or deleted between the two reads, or gone: looking again tells which
        raise self._snapshot_gone(key)

    async def list(self, run_id: UUID) -> builtins.list[int]:
        """The steps of the run, ascending; empty for an unknown run. n/1000 LISTs; beyond 2,000 steps up to 20 more."""
        return await self._index.steps(self._run(run_id))

    async def commit(self, run_id: UUID, step: int, state: StateT, active: Sequence[ActiveSnapshot]) -> None:
        """State and active tasks are the step, both or neither, and nobody's later commit changes them.

        2 PUTs, one after the other; refused, 1 HEAD more. Committing the same content twice is a success: a worker
        that starts over after a crash, or after `StoreUnavailableError`, calls again with the same arguments.

        `StepConflictError`: another content stands there; ours was not written. `StateEncodingError`: before any
        request. `StoreUnavailableError`: the outcome is unknown. `ConfigurationError`: `conditional_writes` is off.
        Source: "Conditional writes", Amazon S3 user guide.
        """
        await self.commit_or_confirm(run_id, step, state, active)

    async def commit_or_confirm(self, run_id: UUID, step: int, state: StateT, active: Sequence[ActiveSnapshot]) -> bool:
        """As `commit` in effect, requests and errors; and tells whether it was this call that wrote the step.

        True: it was. False: the same content stood there already, by another call.
        """
        run, step = self._run(run_id), check_step(step)
        if not self._conditional_writes:
            raise ConfigurationError(
                "commit needs a store that honours If-None-Match, and conditional_writes=False says this one does not; "
                "use save and save_active",
                self._objects.bucket,
            )
        state_body = await self._objects.encode_state(state)
        active_body = await self._objects.encode_active(active)
        write_id = self._new_id()
        ours = self._objects.facts(state_body, active_body, write_id)

        # The snapshot's key is ours alone, so writing over it can only repeat it: a lost answer needs no thought.
        await self._objects.put_active(run.committed_active(step, write_id), active_body, write_id)
        for attempt in range(COMMIT_ATTEMPTS):
            outcome = await self._objects.put_state(
                run, step, state_body, write_id, mode="create", active_digest=active_body.digest
            )
            wrote = True if isinstance(outcome, Written) else await self._stands(run, step, ours)
            if wrote is not None:
                self._index.seen(run, step)
                return wrote
            await self._sleep(0.05 * 2**attempt * (0.5 + self._jitter()))
        raise StoreUnavailableError(
            "PutObject",
            self._objects.bucket,
            run.state(step),
            outcome_unknown=True,
            detail="refused, yet nothing is there",
        )

    async def resume(self, run_id: UUID) -> Checkpoint[StateT] | None:
        """The latest step with its state and its own active tasks; None for a run without steps.

        As `load` without a step, and 1 GET more. A step that was `save`d has the tasks of `save_active`, or none.
        `StateDecodingError` if what is stored cannot be trusted, a named snapshot that is gone included.
        """
        run = self._run(run_id)
        key = ""
        for _ in range(READ_ATTEMPTS):
            found = await self._latest(run)
            if found is None:
                return None
            named = self._objects.snapshot_key(run, found.step, found.facts)
            active = await self._objects.get_active(named or run.active(found.step), found.facts.active_digest)
            if active is not None or named is None:
                state = await self._objects.decode_state(run, found)
                return Checkpoint(run.run_id, found.step, state, tuple(active or ()))
            key = named  # pruned or replaced between the two reads, or gone: looking again tells which
        raise self._snapshot_gone(key)

    def _run(self, run_id: UUID) -> RunKeys:
        return run_keys(self._prefix, check_run_id(run_id), self._namespace)

    async def _stands(self, run: RunKeys, step: int, ours: Facts) -> bool | None:
        """Whether what stands there, having our content, is our own write; None if nothing stands there."""
        try:
            theirs = await self._objects.head_state(run, step)
        except StoreUnavailableError as error:
            # Only the HEAD failed, but it was to tell what became of the PUT before it.
            raise StoreUnavailableError(
                error.operation, error.bucket, error.key, outcome_unknown=True, detail=error.detail
            ) from error
        if theirs is None:
            return None
        if theirs.write_id == ours.write_id:
            return True
        if theirs.same_content(ours):
            return False
        raise StepConflictError(run.run_id, step, theirs.write_id)

    async def _latest(self, run: RunKeys) -> StateObject | None:
        for _ in range(READ_ATTEMPTS):
            step = await self._index.latest(run)
            if step is None:
                return None
            found = await self._objects.get_state(run, step)
            if found is not None:
                return found
        raise StateDecodingError(
            self._objects.bucket,
            run.steps,
            "its newest step is listed but cannot be read; is somebody deleting the run?",
        )

    def _snapshot_gone(self, key: str) -> StateDecodingError:
        return StateDecodingError(self._objects.bucket, key, "the active snapshot that the step names is gone")
