"""Creating a step exactly once: what `commit` and `fork` send, in which order, and what they make of the answers.

- **The state object is the commit point**: PUT steps/<step>.json with `If-None-Match: *`. Tasks that fit are in its
  metadata, and the snapshot object, a copy for people and tools, is sent together with it. Other tasks go first, into
  the snapshot object, whose key is this attempt's own; the state names it.
- **A refusal is never believed unread**: the step is read back. Our own write id or an equal step: committed. Other
  content, or nothing after a 412: `StepConflictError`. Nothing after a 409: tried again, with jitter.
- **A pruned step is never committed again.** Before the PUT, something shows that the step was not there and had not
  been pruned: a LIST of this process within `grace`/2, a young step before it (`note_successor`), or 1 LIST now, and
  the floor if that shows only later steps (the step is then marked `out-of-order`). A commit that began more than
  `grace`/2 ago does not send its state.

Why this is enough is argued in docs/design/0001-commit-protocol.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, NamedTuple

from s3_checkpoint._concurrency.gather import both
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._runs.step_objects import StateObject, StepDraft, StepObjects
from s3_checkpoint._runs.step_search import StepIndex
from s3_checkpoint.errors import (
    CheckpointError,
    InvalidArgumentError,
    StateDecodingError,
    StepConflictError,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint.models import StateT
from s3_checkpoint.object_store import Written

logger = logging.getLogger("s3_checkpoint.commit")

COMMIT_ATTEMPTS = 6
"""How often a state PUT is sent that is refused while nothing is there."""


YOUNG_PART = 16
"""A step younger than this part of `grace` shows that the next one has not been pruned. With 3/4 of `grace` before it,
3/16 are left for clocks and for a request in flight."""


class _Window(NamedTuple):
    """A step that is free, and until when its state may be sent."""

    until: float
    out_of_order: bool = False
    """Whether later steps are there already."""


class CommitProtocol(Generic[StateT]):
    """Creates steps. `now` is its clock, in seconds of the monotonic clock given; `new_id` gives write ids."""

    def __init__(
        self,
        objects: StepObjects[StateT],
        index: StepIndex,
        *,
        grace: timedelta,
        new_id: Callable[[], str],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        if not isinstance(grace, timedelta) or grace <= timedelta(0):
            raise InvalidArgumentError("grace", repr(grace)[:80], "must be a timedelta of more than zero")
        self._objects = objects
        self._index = index
        self._grace_s = grace.total_seconds()
        self._sleep = sleep
        self._jitter = jitter
        self.new_id = new_id
        self.now = monotonic

    async def create(self, run: RunKeys, step: int, ours: StepDraft, *, began: float) -> StateObject | None:
        """The step is there: None if as `ours`, by this call; else the state object that was first.

        `began` is when the call that wants it began, by the injected clock. Requests and errors as of `commit`, after
        encoding; whether what was first is the same is left to the caller.
        """
        window = await self._window(run, step, began)
        if window is None:
            return await self._winner(run, step)
        until = window.until
        if window.out_of_order:
            ours = ours.out_of_order()
        if not ours.is_one_object:
            # Its key is this attempt's own, so writing over it can only repeat it: a lost answer needs no thought.
            await self._objects.put_snapshot(run, step, ours)
            return await self._create_state(run, step, ours, until)
        theirs, failure = await both(self._create_state(run, step, ours, until), self._put_copy(run, step, ours))
        if failure is not None:
            metadata = {"run_id": str(run.run_id), "step": step, "code": failure.code}
            logger.warning("the step is committed; the copy of its active tasks was not written", extra=metadata)
        return theirs

    def note_successor(self, run: RunKeys, newest: StateObject, at: float) -> None:
        """Takes note that the step after `newest` was not there, if that shows that it never was.

        `at` is when it was asked for, by the injected clock, before `newest` was asked for or together with it. The
        module's docstring has the proof.
        """
        head, metadata = newest.stored.head, newest.metadata
        if head.date is None or not metadata.active or metadata.out_of_order:
            return
        age_s = (head.date - head.last_modified).total_seconds() + self.now() - at
        if age_s < self._grace_s / YOUNG_PART:
            # As if it had been seen when `newest` was stored, at the earliest: the next step is stored within 3/4 of
            # `grace` after `newest`, which the proof for the step after that one needs.
            self._index.never_there(run, newest.step + 1, at - self._grace_s / YOUNG_PART)

    async def _window(self, run: RunKeys, step: int, began: float) -> _Window | None:
        """Until when the state of `step` may be sent; None if the step is there already.

        Raises `StepConflictError` for a step that may have been pruned.
        """
        half = self._grace_s / 2
        looked = self._index.never_there_at(run, step)
        if looked is not None and began - looked <= half:
            return _Window(min(began + half, looked + 1.5 * half))
        first = await self._index.first_from(run, step)
        if first == step:
            return None
        if first is not None:
            # Sent after the LIST that did not show the step: what had been removed by then, the floor covers.
            floor = await self._index.floor(run)
            if floor is not None and floor >= step:
                raise StepConflictError(run.run_id, step, "", f"steps up to {floor} have been pruned")
        return _Window(began + half, out_of_order=first is not None)

    async def _create_state(self, run: RunKeys, step: int, ours: StepDraft, until: float) -> StateObject | None:
        for attempt in range(COMMIT_ATTEMPTS):
            left = until - self.now()
            if left <= 0:
                raise self._not_created(run, step, "the commit began too long ago to be sent")
            try:
                async with asyncio.timeout(left):
                    outcome = await self._objects.create_state(run, step, ours)
            except TimeoutError as error:
                raise self._not_created(run, step, "no answer in time", outcome_unknown=True) from error
            if isinstance(outcome, Written):
                self._index.seen(run, step)
                return None
            theirs = await self._read_back(run, step)
            if theirs is not None:
                self._index.seen(run, step)
                return None if theirs.metadata.write_id == ours.metadata.write_id else theirs
            if outcome.was_there:
                raise self._was_there(run, step)
            await self._sleep(0.05 * 2**attempt * (0.5 + self._jitter()))
        raise self._not_created(run, step, "refused, yet nothing is there", outcome_unknown=True)

    async def _put_copy(self, run: RunKeys, step: int, ours: StepDraft) -> CheckpointError | None:
        """Writes the snapshot object that no promise depends on; its failure is returned, and stops nothing."""
        try:
            await self._objects.put_snapshot(run, step, ours)
        except CheckpointError as error:
            return error
        return None

    async def _read_back(self, run: RunKeys, step: int) -> StateObject | None:
        """What is at the step after a refused PUT. 1 GET."""
        try:
            return await self._objects.get_state(run, step)
        except StoreUnavailableError as error:
            # Only the GET failed, but it was to tell what became of the PUT before it.
            raise StoreUnavailableError(
                error.operation, error.bucket, error.key, outcome_unknown=True, detail=error.detail
            ) from error
        except StoreError as error:
            raise StoreError(error.operation, error.bucket, error.key, error.detail, outcome_unknown=True) from error
        except StateDecodingError as error:
            # Larger than any state of ours: another content, whatever it is.
            raise StepConflictError(run.run_id, step, "", "what is there cannot be read") from error

    async def _winner(self, run: RunKeys, step: int) -> StateObject:
        """The state that a LIST has just shown at the step. 1 GET."""
        theirs = await self._read_back(run, step)
        if theirs is None:
            raise self._was_there(run, step)
        return theirs

    def _was_there(self, run: RunKeys, step: int) -> StepConflictError:
        return StepConflictError(run.run_id, step, "", "it was there, and has been removed")

    def _not_created(
        self, run: RunKeys, step: int, detail: str, *, outcome_unknown: bool = False
    ) -> StoreUnavailableError:
        bucket, key = self._objects.bucket, run.state(step)
        return StoreUnavailableError("PutObject", bucket, key, outcome_unknown=outcome_unknown, detail=detail)
