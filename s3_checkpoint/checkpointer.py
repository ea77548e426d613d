"""The checkpointer: five calls that any store of checkpoints has, and two that need S3's conditional writes.

`save` and `save_active` replace what is there: the last writer wins. `commit` and `resume` treat a step as one thing,
state and active tasks together, written exactly once however many workers try.

The protocol behind `commit`, what a refusal means and why a pruned step is never committed again, is in
`commit_protocol`.
"""

from __future__ import annotations

import asyncio
import builtins
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Generic, Self, TypeVar
from uuid import UUID

from s3_checkpoint._format.keys import MAX_STEP, RunKeys, check_run_id, check_step, new_write_id, run_keys
from s3_checkpoint._runs.commit_protocol import CommitProtocol
from s3_checkpoint._runs.grace import GRACE
from s3_checkpoint._runs.step_objects import READ_ATTEMPTS, StepObjects, StoredStep
from s3_checkpoint._runs.step_search import StepIndex
from s3_checkpoint.errors import (
    ConfigurationError,
    InvalidArgumentError,
    StateDecodingError,
    StepConflictError,
)
from s3_checkpoint.models import ActiveSnapshot, Checkpoint, InlineTasks, Migration, Overtaken, SnapshotObjects, StateT
from s3_checkpoint.object_store import ObjectStore, check_store

FoundT = TypeVar("FoundT")


class Checkpointer(ABC, Generic[StateT]):
    """Stores a graph's state at each superstep boundary. Subclasses need the first three calls only.

    A `run_id` is a UUID or its text, a `step` an int of 0 … 2^64-1. Requests and errors are those of the subclass.
    """

    @abstractmethod
    async def save(self, run_id: UUID | str, step: int, state: StateT) -> None:
        """`state` is what `step` of the run holds, whatever was there."""

    @abstractmethod
    async def load(self, run_id: UUID | str, step: int | None = None) -> StateT | None:
        """The state of `step`; by default, of the latest step.

        Returns:
            None if it was never saved.
        """

    @abstractmethod
    async def list(self, run_id: UUID | str) -> list[int]:
        """The steps saved for the run.

        Returns:
            Ascending; `[]` for an unknown run.
        """

    async def save_active(self, run_id: UUID | str, step: int, active: Sequence[ActiveSnapshot]) -> None:
        """`active` are the tasks active after `step`. By default nothing is done: resuming starts at the start node."""

    async def load_active(self, run_id: UUID | str, step: int) -> builtins.list[ActiveSnapshot]:
        """The tasks active after `step`.

        Returns:
            By default none: `[]`.
        """
        return []

    async def commit(self, run_id: UUID | str, step: int, state: StateT, active: Sequence[ActiveSnapshot]) -> None:
        """Stores state and active tasks as one step. By default `save_active`, then `save`, which shows the step.

        That default keeps two workers of one run apart no more than `save` does.
        """
        await self.save_active(run_id, step, active)
        await self.save(run_id, step, state)

    async def commit_or_confirm(
        self, run_id: UUID | str, step: int, state: StateT, active: Sequence[ActiveSnapshot]
    ) -> bool:
        """As `commit`, and tells whether this call wrote the step.

        Returns:
            By default always True.
        """
        await self.commit(run_id, step, state, active)
        return True

    async def resume(self, run_id: UUID | str, *, known_step: int | None = None) -> Checkpoint[StateT] | None:
        """The newest step with its state and active tasks. By default made of `list`, `load` and `load_active`.

        Args:
            run_id: The run.
            known_step: The step that the caller takes for the newest, a hint; by default it is not used.

        Returns:
            None for a run without steps.
        """
        if not (steps := await self.list(run_id)):
            return None
        state = await self.load(run_id, steps[-1])
        if state is None:
            return None
        active = await self.load_active(run_id, steps[-1])
        return Checkpoint(check_run_id(run_id), steps[-1], state, tuple(active))

    async def resume_at(self, run_id: UUID | str, step: int) -> Checkpoint[StateT] | Overtaken | None:
        """As `resume(known_step=step)`, but where a later step is there, `Overtaken` may tell no more than that.

        For engines, which have nothing to do at a step that is not the newest.

        Returns:
            By default what `resume` gives.
        """
        return await self.resume(run_id)


class S3Checkpointer(Checkpointer[StateT]):
    """A `Checkpointer` on an object store. Safe for any number of concurrent calls, in one event loop.

    `connect` makes one, on S3 or on a `MemoryStore`; it can be constructed on any store too. No request.

    Every call raises `InvalidArgumentError` for a `run_id` that is no UUID or a `step` that is no int of 0 … 2^64-1,
    before any request; and `AccessDeniedError`, `ConfigurationError`, `StoreUnavailableError`, `LifecycleError` or
    `StoreError` when the store does not do as asked. Leave a state unchanged until the call returns.

    Args:
        state_type: What states are: anything that pydantic validates, but nothing that it reads lazily.
        store: Used and not closed, in the loop it belongs to.
        prefix: What all keys begin with. Default: nothing.
        namespace: A subgraph's whole path. Default: the graph itself.
        schema_version: That of `state_type`, written with each state: 1 …
        migrations: For each older version, what makes a state of the next one of its JSON.
        compression: "gzip" or "zstd" (extra `zstd`). Default: none.
        max_state_bytes: Of a state or snapshot, decompressed; a larger one is refused, written and read. 64 MiB.
        conditional_writes: False for a store without `If-None-Match`: then `commit` is refused.
        inline_tasks: Whether tasks that fit are in the metadata of their state: "auto" (those with payloads not if
            `bodies_encrypted`), "always" or "never".
        bodies_encrypted: Bodies are encrypted with a KMS key, as metadata never are.
        snapshot_objects: Whether such tasks are an object of their own besides: "always", or "when_large" (no).
        grace: How long `prune` leaves a state alone at least, more than zero: one value for all workers and janitors of
            a bucket. One hour.
        new_id: Makes write ids: letters, digits, `-` and `_`, unique in the world.
        sleep: Waits between repeats of a refused commit, for the seconds it is given.
        jitter: 0 … 1, by chance: how long.
        monotonic: Seconds by which a commit knows how old it is.

    Raises:
        InvalidArgumentError: pydantic cannot read and write `state_type`, or reads it lazily; or `schema_version`,
            `migrations` or `grace` is out of bounds.
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
        inline_tasks: InlineTasks = "auto",
        bodies_encrypted: bool = False,
        snapshot_objects: SnapshotObjects = "always",
        grace: timedelta = GRACE,
        new_id: Callable[[], str] = new_write_id,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        check_store(store, "; connect(...) opens one on a bucket")
        _check_text(prefix=prefix, namespace=namespace)
        self._prefix = prefix
        self._namespace = namespace
        self._conditional_writes = conditional_writes
        self._index = StepIndex(store, monotonic=monotonic)
        self._objects: StepObjects[StateT] = StepObjects(
            state_type,
            store,
            schema_version=schema_version,
            migrations=migrations,
            compression=compression,
            max_state_bytes=max_state_bytes,
            inline_tasks=inline_tasks,
            bodies_encrypted=bodies_encrypted,
            snapshot_objects=snapshot_objects,
        )
        self._commits: CommitProtocol[StateT] = CommitProtocol(
            self._objects,
            self._index,
            grace=grace,
            new_id=new_id,
            sleep=sleep,
            jitter=jitter,
            monotonic=monotonic,
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
    def commits(self) -> CommitProtocol[StateT]:
        """Creates steps exactly once; for tools that create them otherwise than by `commit`."""
        return self._commits

    @property
    def prefix(self) -> str:
        """All keys begin with this."""
        return self._prefix

    @property
    def conditional_writes(self) -> bool:
        """Whether the store is said to honour them; without, `commit` and leases are refused."""
        return self._conditional_writes

    @property
    def namespace(self) -> str:
        """The subgraph this checkpointer is for; empty for the graph itself."""
        return self._namespace

    def with_namespace(self, namespace: str) -> S3Checkpointer[StateT]:
        """A checkpointer for a subgraph of the same runs: same client, steps of its own. No request.

        Args:
            namespace: The subgraph's whole path, any text; it replaces the one this checkpointer has, and `""` leads
                back to the graph itself.

        Raises:
            InvalidArgumentError: It is no text, holds lone surrogates, or makes keys too long for S3.
        """
        _check_text(namespace=namespace)
        RunKeys(self._prefix, UUID(int=0), namespace)
        other: S3Checkpointer[StateT] = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _namespace=namespace)
        return other

    async def __aenter__(self) -> Self:
        """This checkpointer: it is open as long as its store is, which its owner closes."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is closed."""

    async def save(self, run_id: UUID | str, step: int, state: StateT) -> None:
        """`state` is what the step holds, whatever was there; active tasks committed with it are no longer its own.

        Requests:
            1 PUT.

        Raises:
            StateEncodingError: The state does not round-trip through JSON, or is too large. Nothing was written.
            StoreUnavailableError: The outcome is unknown. Calling again is safe.
        """
        run, step = self._run(run_id), check_step(step)
        body = await self._objects.encode_state(state)

        await self._objects.save_state(run, step, body, self._commits.new_id())
        self._index.seen(run, step)

    async def load(self, run_id: UUID | str, step: int | None = None) -> StateT | None:
        """The state of `step`; by default, of the latest step.

        Requests:
            1 GET; without a step, before it the LISTs that find the latest: 1 up to 1,000 steps, or where this
            checkpointer has seen a recent one; else up to 60.

        Args:
            run_id: The run.
            step: 0 … 2^64-1; default: the latest.

        Returns:
            None if the step, or any step of the run, is not there.

        Raises:
            StateDecodingError: What is stored cannot be trusted.
        """
        run = self._run(run_id)
        if step is not None:
            found = await self._objects.get_state(run, check_step(step))
        else:
            found = await self._latest(run, self._objects.get_state)
        return await self._objects.decode_state(run, found) if found else None

    async def save_active(self, run_id: UUID | str, step: int, active: Sequence[ActiveSnapshot]) -> None:
        """`active` are the tasks of `step` that `load_active` gives, unless the step is committed: then its own stay.

        Requests:
            1 PUT.

        Raises:
            StateEncodingError: A payload does not round-trip through JSON, or all are too large. Nothing was written.
            StoreUnavailableError: The outcome is unknown. Calling again is safe.
        """
        run, step = self._run(run_id), check_step(step)
        body = await self._objects.encode_active(active)

        await self._objects.save_active(run, step, body, self._commits.new_id())

    async def load_active(self, run_id: UUID | str, step: int) -> builtins.list[ActiveSnapshot]:
        """The tasks committed with `step`; for a step not committed, those of `save_active`.

        Requests:
            1 GET and 1 HEAD, sent together; 1 GET more if the step was committed with tasks too large for its metadata.

        Returns:
            In the order in which they were given; `[]` if there are none, or no such step.

        Raises:
            StateDecodingError: A snapshot that the step names is gone, or the tasks cannot be trusted.
        """
        return await self._objects.get_active(self._run(run_id), check_step(step))

    async def list(self, run_id: UUID | str) -> builtins.list[int]:
        """The steps of the run.

        Requests:
            n/1000 LISTs for n steps; beyond 2,000 steps up to 20 more, then at most 16 at a time.

        Returns:
            Ascending; `[]` for an unknown run.
        """
        return await self._index.steps(self._run(run_id))

    async def commit(self, run_id: UUID | str, step: int, state: StateT, active: Sequence[ActiveSnapshot]) -> None:
        """State and active tasks are the step, both or neither, and no later commit changes them.

        Committing the same content twice is a success: a worker that starts over after a crash, or after
        `StoreUnavailableError`, calls again with the same arguments.

        Requests:
            2 PUTs, sent together if the tasks fit the state's metadata, else one after the other; 1 PUT where
            `snapshot_objects` leaves out the copy. 1 LIST before them, unless this process has looked at the run within
            half of `grace`: by a LIST, or by `resume(known_step=step - 1)` when that step was younger than a sixteenth
            of `grace` by the store's clock (which obstore does not tell). If the LIST shows only later steps, 1 LIST
            more; if it shows `step` itself, 1 GET and no PUT. Refused: 1 GET more (2, for tasks that are not inline).

        Args:
            run_id: The run; the first commit begins it.
            step: 0 … 2^64-1; steps may leave gaps.
            state: What the run's state is after the step.
            active: The tasks to run next, in order.

        Raises:
            StepConflictError: Another content is at the step, or was there and has been pruned; ours was not written.
            StateEncodingError: The state or a payload does not round-trip; before any request.
            StoreUnavailableError: The outcome is unknown; or the commit took more than half of `grace`, and the state
                was not sent (`outcome_unknown` tells). Calling again is safe.
            ConfigurationError: `conditional_writes` is off.

        Source: "Conditional writes", Amazon S3 user guide.
        """
        await self.commit_or_confirm(run_id, step, state, active)

    async def commit_or_confirm(
        self, run_id: UUID | str, step: int, state: StateT, active: Sequence[ActiveSnapshot]
    ) -> bool:
        """As `commit` in effect, requests and errors; and tells whether it was this call that wrote the step.

        Returns:
            True: it was. False: the same content was there already, by another call.
        """
        began = self._commits.now()
        run, step = self._run(run_id), check_step(step)
        if not self._conditional_writes:
            raise ConfigurationError(
                "commit needs a store that honours If-None-Match, and conditional_writes=False says this one does not; "
                "use save and save_active",
                self._objects.bucket,
            )
        ours = await self._objects.draft(state, active, self._commits.new_id())
        theirs = await self._commits.create(run, step, ours, began=began)
        if theirs is None:
            return True
        if await self._objects.is_same_step(run, ours, theirs):
            return False
        raise StepConflictError(run.run_id, step, theirs.metadata.write_id)

    async def resume(self, run_id: UUID | str, *, known_step: int | None = None) -> Checkpoint[StateT] | None:
        """The latest step with its state and its own active tasks.

        A step that was `save`d has the tasks of `save_active`, or none.

        Requests:
            Those of `load()`. With `known_step`, 1 GET and 1 HEAD of the step after it, sent together, and nothing more
            if that one is not there; else those of `load()` after them. Either way 1 GET more if the state does not
            carry its tasks inline.

        Args:
            run_id: The run.
            known_step: The step that the caller takes for the newest, 0 … 2^64-1: of a message, say. It is the newest
                if it is there and the next one is not: so leave it out for a run that has gaps (steps that were never
                committed). `run_superstep` leaves none, and `prune` makes none behind the known step.

        Returns:
            None for a run without steps.

        Raises:
            StateDecodingError: What is stored cannot be trusted, a named snapshot that is gone included.
        """
        if known_step is not None:
            found = await self.resume_at(run_id, known_step)
            if not isinstance(found, Overtaken):
                return found
        return await self._resume_latest(self._run(run_id))

    async def resume_at(self, run_id: UUID | str, step: int) -> Checkpoint[StateT] | Overtaken | None:
        """As `resume(known_step=step)`, but it does not look behind the next step.

        Requests:
            1 GET and 1 HEAD, sent together; 1 GET more if the state does not carry its tasks inline. If neither step is
            there, those of `resume()` after them.

        Returns:
            `Overtaken` if the next step is there; else as `resume`.

        Raises:
            StateDecodingError: As `resume`.
        """
        run, step = self._run(run_id), check_step(step)
        if step == MAX_STEP:
            return await self._resume_latest(run)
        at = self._commits.now()
        whole, following = await self._objects.get_step_and_next(run, step)
        if following is not None:
            self._index.seen(run, step + 1)
            active = self._objects.inline_tasks(run, step + 1, following)
            return Overtaken(run.run_id, step, None if active is None else tuple(active))
        if whole is None:
            return await self._resume_latest(run)
        self._index.seen(run, step)
        self._commits.note_successor(run, whole.state, at)
        return await self._checkpoint(run, whole)

    async def _resume_latest(self, run: RunKeys) -> Checkpoint[StateT] | None:
        whole: StoredStep | None = await self._latest(run, self._objects.get_step)
        return None if whole is None else await self._checkpoint(run, whole)

    async def _checkpoint(self, run: RunKeys, whole: StoredStep) -> Checkpoint[StateT]:
        state = await self._objects.decode_state(run, whole.state)
        return Checkpoint(run.run_id, whole.state.step, state, tuple(whole.active))

    async def _latest(self, run: RunKeys, read: Callable[[RunKeys, int], Awaitable[FoundT | None]]) -> FoundT | None:
        """What `read` gives for the latest step; None for a run without steps."""
        for _ in range(READ_ATTEMPTS):
            step = await self._index.latest(run)
            if step is None:
                return None
            found = await read(run, step)
            if found is not None:
                return found
        raise StateDecodingError(
            self._objects.bucket,
            run.steps,
            "its newest step is listed but cannot be read; is the run being deleted again and again?",
        )

    def _run(self, run_id: UUID | str) -> RunKeys:
        return run_keys(self._prefix, check_run_id(run_id), self._namespace)


def check_is_open(checkpointer: object) -> None:
    """Raises `InvalidArgumentError` for what is no open `S3Checkpointer`: a store, say, or a sync one."""
    if getattr(checkpointer, "objects", None) is None:
        reason = "must be an open S3Checkpointer; a SyncS3Checkpointer has the same calls itself"
        raise InvalidArgumentError("checkpointer", type(checkpointer).__name__, reason)


def _check_text(**given: object) -> None:
    for name, value in given.items():
        if not isinstance(value, str):
            raise InvalidArgumentError(name, type(value).__name__, "must be text")
