"""Forks: a run that begins with a copy of another run's step, and remembers where it came from.

The copy's state object carries `origin: <run_id>/<step>` beside the metadata it had. As with a commit, the snapshot is
copied first and the state last, so that a fork is either whole or not there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from s3_checkpoint.errors import (
    InvalidArgumentError,
    StateDecodingError,
    StepConflictError,
    StoreUnavailableError,
)
from s3_checkpoint.keys import MAX_STEP, STEP_DIGITS, RunKeys
from s3_checkpoint.object_store import PAGE_KEYS, ObjectAttributes, ObjectHead, ObjectStore, Refused

ORIGIN = "origin"
"""Metadata field of a forked state object."""
COPY_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Origin:
    """The step a run was forked from."""

    run_id: UUID
    step: int

    def __str__(self) -> str:
        return f"{self.run_id}/{self.step}"

    @classmethod
    def of(cls, head: ObjectHead) -> Origin | None:
        """Where the state object was forked from; None for one that was not, or whose field is not ours."""
        run, _, step = head.attributes.metadata.get(ORIGIN, "").partition("/")
        # No more digits than a step has: `int` refuses thousands of them with an error of its own.
        if not (step.isascii() and step.isdigit() and len(step) <= STEP_DIGITS and int(step) <= MAX_STEP):
            return None
        try:
            return cls(UUID(run), int(step))
        except ValueError:
            return None


def _missing(source: RunKeys, step: int) -> InvalidArgumentError:
    return InvalidArgumentError("step", str(step), f"is not stored in run {source.run_id}")


async def _copy_snapshot(store: ObjectStore, source: RunKeys, target: RunKeys, step: int, head: ObjectHead) -> None:
    write_id = head.attributes.metadata.get("active")
    if write_id is None:
        await store.copy(source.active(step), target.active(step))
        return
    key = source.committed_active(step, write_id)
    if not await store.copy(key, target.committed_active(step, write_id)):
        raise StateDecodingError(store.bucket, key, "the state object names this active snapshot, and it is gone")


async def fork_to_new(store: ObjectStore, source: RunKeys, target: RunKeys, step: int) -> None:
    """Forks to a run id that nobody else knows yet: server-side copies. 4 requests; 3 more if the source is replaced.

    A copy names no version of its source. So the source's head is read before and after: if a `save` came in between,
    body and metadata in the copy may belong to different writes, and it is copied again.
    """
    head = await store.head(source.state(step))
    for _ in range(COPY_ATTEMPTS):
        if head is None:
            raise _missing(source, step)
        await _copy_snapshot(store, source, target, step, head)
        attributes = _with_origin(head.attributes, Origin(source.run_id, step))
        copied = await store.copy(source.state(step), target.state(step), attributes=attributes)
        after = await store.head(source.state(step))
        if copied and after is not None and (after.etag, after.attributes) == (head.etag, head.attributes):
            return
        head = after
    raise StoreUnavailableError(
        "fork", store.bucket, source.state(step), outcome_unknown=True, detail="the step is being replaced all the time"
    )


async def fork_to_known(store: ObjectStore, source: RunKeys, target: RunKeys, step: int, *, max_bytes: int) -> None:
    """Forks to a run id that others may know: the state is created conditionally, so nobody's step is replaced.

    4 requests: 1 LIST, 1 GET, 1 COPY (the snapshot), 1 PUT; 1 HEAD more if the target has a step already. (Copying has
    no precondition in most stores, so the state travels through here.) Forking the same step again is a success.
    """
    listing = await store.list(target.steps, limit=1)
    stored = await store.get(source.state(step), max_bytes=max_bytes)
    if stored is None:
        raise _missing(source, step)
    origin = Origin(source.run_id, step)
    if listing.objects:
        there = await store.head(target.state(step))
        if there is not None and _is_this_fork(there, stored.head, origin):
            return
        raise InvalidArgumentError("new_run_id", str(target.run_id), "already has steps; choose another")
    await _copy_snapshot(store, source, target, step, stored.head)
    attributes = _with_origin(stored.head.attributes, origin)
    answer = await store.put(target.state(step), stored.body, attributes, mode="create")
    if isinstance(answer, Refused):
        there = await store.head(target.state(step))
        if there is None or not _is_this_fork(there, stored.head, origin):
            winner = there.attributes.metadata.get("write-id", "") if there else ""
            raise StepConflictError(target.run_id, step, winner)


def _with_origin(attributes: ObjectAttributes, origin: Origin) -> ObjectAttributes:
    return replace(attributes, metadata={**attributes.metadata, ORIGIN: str(origin)})


def _is_this_fork(there: ObjectHead, source: ObjectHead, origin: Origin) -> bool:
    theirs, ours = there.attributes.metadata, source.attributes.metadata
    return Origin.of(there) == origin and all(theirs.get(name) == ours.get(name) for name in ("write-id", "digest"))


@dataclass(frozen=True, slots=True)
class Fork:
    """A run that was forked from another."""

    run_id: UUID
    step: int
    """The step of the other run that it begins with."""


async def fork_of(store: ObjectStore, run: RunKeys, parent: UUID) -> Fork | None:
    """`run` as a fork of `parent`; None if it is none. 1 LIST, and 1 HEAD.

    Its first step tells: once that is pruned, nothing does.
    """
    page = await store.list(run.steps, limit=PAGE_KEYS if not store.ordered else 1)
    steps = [step for listed in page.objects if (step := run.parse_state(listed.key)) is not None]
    head = await store.head(run.state(min(steps))) if steps else None
    origin = Origin.of(head) if head is not None else None
    return Fork(run.run_id, origin.step) if origin is not None and origin.run_id == parent else None
