"""What an operator does to whole runs: see which there are, look back, fork, prune, delete, and count.

Everything goes by prefix listing, so it sees what any version of the library wrote, and runs whose workers are gone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Generic
from uuid import UUID, uuid4

from s3_checkpoint._concurrency.gather import Budget, ordered_map
from s3_checkpoint._format.keys import RunKeys, check_run_id, check_step, parse_run_prefix, run_keys, runs_prefix
from s3_checkpoint._format.size_estimate import estimated_bytes
from s3_checkpoint._runs.fork import FIRST_STEP, is_same_fork, origin_of
from s3_checkpoint._runs.retention import (
    GRACE,
    Retention,
    check_grace,
    delete_in_order,
    list_run,
    objects_under,
    plan_deletion,
    plan_removal,
    remove,
)
from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.errors import InvalidArgumentError, StepConflictError, StoreError, StoreUnavailableError
from s3_checkpoint.models import HistoryEntry, Origin, Pruned, PrunedRuns, RunActivity, RunUsage, StateT
from s3_checkpoint.object_store import ListedObject, pages

_logger = logging.getLogger("s3_checkpoint.run_admin")
RUNS_AT_ONCE = 8
DELETE_ROUNDS = 100
"""How often `delete` lists again while workers put new objects under the run."""
ENTRIES_AHEAD = 8
HISTORY_BYTES = 32 * 1024**2
"""JSON of the entries that `history` has read ahead, states and tasks, whatever they take when compressed."""


def _json_bytes(entry: HistoryEntry[Any] | None) -> int:
    return estimated_bytes((entry.state, entry.active), HISTORY_BYTES) if entry else 0


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _logged(message: str, removed: Pruned) -> Pruned:
    if not removed.dry_run:
        counts = {"states": removed.states, "snapshots": removed.snapshots, "removed_bytes": removed.bytes}
        _logger.info(message, extra={"run_id": str(removed.run_id), **counts})
    return removed


class RunAdmin(Generic[StateT]):
    """The operator's calls, on the runs that `checkpointer` sees: same store, prefix and state type.

    Every call raises `InvalidArgumentError` for arguments out of bounds, before any request; and
    `AccessDeniedError`, `ConfigurationError`, `StoreUnavailableError`, `LifecycleError` or `StoreError` when the store
    does not do as asked. `now` is the clock that ages are measured with.
    """

    def __init__(
        self,
        checkpointer: S3Checkpointer[StateT],
        *,
        now: Callable[[], datetime] = _utc_now,
        new_run_id: Callable[[], UUID] = uuid4,
    ) -> None:
        self._checkpointer = checkpointer
        self._store = checkpointer.objects.store
        self._prefix = checkpointer.prefix
        self._now = now
        self._new_run_id = new_run_id

    async def runs(self) -> AsyncIterator[UUID]:
        """The ids of all runs, ascending by text. 1 LIST per 1,000 runs, sent as the iteration gets there.

        A run is whatever has a key under `runs/<uuid>/`, so one whose first commit is under way is there already.
        """
        async for page in pages(self._store, runs_prefix(self._prefix), delimiter="/"):
            for prefix in page.prefixes:
                run_id = parse_run_prefix(self._prefix, prefix)
                if run_id is not None:
                    yield run_id

    async def activity(self) -> AsyncIterator[RunActivity]:
        """As `runs`, each with its newest step and the time of it.

        Per run, what finding the latest step takes (1 LIST up to 1,000 steps), and 1 HEAD; 16 runs at a time.
        """
        async with ordered_map(self._activity, self.runs(), ahead=16) as found:
            async for activity in found:
                yield activity

    async def _activity(self, run_id: UUID) -> RunActivity:
        run = self._keys(run_id)
        step = await self._checkpointer.index.latest(run)
        head = await self._store.head(run.state(step)) if step is not None else None
        return RunActivity(run_id, step if head else None, head.last_modified if head else None)

    async def history(self, run_id: UUID) -> AsyncIterator[HistoryEntry[StateT]]:
        """The steps of the run, newest first, whole; nothing for an unknown run. Of a subgraph: `with_namespace` first.

        About n/1000 LISTs for n steps, then 1 GET per entry, 2 where the state does not carry its tasks inline, read as
        the iteration gets there: at most 8 entries and about 32 MiB of JSON ahead of it. A step that is gone since is
        left out.

        Raises `StateDecodingError`, in its place, for a step that cannot be trusted.
        """
        run = RunKeys(self._prefix, check_run_id(run_id), self._checkpointer.namespace)

        async def entry(step: int) -> HistoryEntry[StateT] | None:
            return await self._entry(run, step)

        steps = await self._checkpointer.list(run_id)
        budget: Budget[HistoryEntry[StateT] | None] = Budget(HISTORY_BYTES, _json_bytes)
        async with ordered_map(entry, reversed(steps), ahead=ENTRIES_AHEAD, budget=budget) as entries:
            async for found in entries:
                if found is not None:
                    yield found

    async def _entry(self, run: RunKeys, step: int) -> HistoryEntry[StateT] | None:
        objects = self._checkpointer.objects
        whole = await objects.get_step(run, step)
        if whole is None:
            return None
        state = await objects.decode_state(run, whole.state)
        head = whole.state.stored.head
        origin = origin_of(whole.state.metadata)
        return HistoryEntry(step, head.last_modified, head.size, state, tuple(whole.active), origin)

    async def pruned_up_to(self, run_id: UUID) -> int | None:
        """Up to which step the run has been pruned; None if it never was. Of a subgraph: `with_namespace` first.

        Steps up to it that are still listed were kept; those that are not will not be committed again.

        Requests:
            1 LIST.
        """
        return await self._checkpointer.index.floor(
            run_keys(self._prefix, check_run_id(run_id), self._checkpointer.namespace)
        )

    async def fork(self, run_id: UUID, step: int, new_run_id: UUID | None = None) -> UUID:
        """A run exists whose step 0 is a copy of `step`, state and active tasks; its id is returned.

        It continues by itself: `resume` and `commit` with the new id. The rest of the history and the namespaces of
        subgraphs are not copied. Where it came from is in its metadata (`HistoryEntry.origin`). Forking the same step
        to the same id again is a success. Step 0 is created as a commit creates it: of several forks, and of a worker
        that begins the run, one wins.

        Requests:
            1 GET, 1 LIST and 2 PUTs (with `snapshot_objects="when_large"`, or of a step without tasks, 1); 1 GET more
            where the state does not carry its tasks inline. The state travels through this process. Forked before to
            the same id: 2 GETs and 1 LIST. Of a step that is not there to a given id: 2 GETs.

        Args:
            run_id: The run to fork.
            step: Which of its steps, 0 … 2^64-1.
            new_run_id: The id of the new run; a new random one if None.

        Raises:
            InvalidArgumentError: The step is not stored; `new_run_id` has steps already, or is `run_id`.
            StepConflictError: Another worker or fork was first to begin `new_run_id`, or it has been pruned.
            StateDecodingError: The step names a snapshot that is gone, or has tasks that cannot be trusted.
            StoreUnavailableError: The outcome is unknown; calling again with the same `new_run_id` is safe.

        After the first three, nothing of the new run was written that can be seen.
        """
        commits, objects = self._checkpointer.commits, self._checkpointer.objects
        began = commits.now()
        source, step = self._keys(run_id), check_step(step)
        target = self._keys(self._new_run_id() if new_run_id is None else new_run_id)
        if target == source:
            raise InvalidArgumentError("new_run_id", str(new_run_id), "must be another run")
        origin = str(Origin(source.run_id, step))
        draft = await self._checkpointer.objects.draft_of_fork(
            source, step, self._checkpointer.commits.new_id(), origin
        )
        if draft is None:
            # Perhaps it was pruned after a call whose answer was lost.
            there = await objects.get_state(target, FIRST_STEP) if new_run_id is not None else None
            if there is None or there.metadata.origin != origin:
                raise InvalidArgumentError("step", str(step), f"is not stored in run {source.run_id}")
            return target.run_id
        first = await self._checkpointer.index.first_from(target, FIRST_STEP)
        if first is None:
            theirs = await commits.create(target, FIRST_STEP, draft, began=began)
            if theirs is not None and not is_same_fork(theirs.metadata, draft.metadata):
                raise StepConflictError(target.run_id, FIRST_STEP, theirs.metadata.write_id)
        else:
            theirs = await objects.get_state(target, FIRST_STEP)
            if theirs is None or not is_same_fork(theirs.metadata, draft.metadata):
                raise InvalidArgumentError("new_run_id", str(target.run_id), "already has steps; choose another")
        _logger.info("run forked", extra={"run_id": str(target.run_id), "origin": origin})
        return target.run_id

    async def prune(
        self,
        run_id: UUID,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        dry_run: bool = False,
        grace: timedelta = GRACE,
    ) -> Pruned:
        """Of the run, and of each of its namespaces, only the steps to be kept are left.

        Never goes the newest step, a step or snapshot younger than `grace`, or a snapshot that a kept step needs.
        Snapshots that no step names, left behind by crashed or losing commits, go once they are older than `grace`.
        Safe while workers commit, beside other janitors, and to repeat: a step that is gone is never committed again
        (`commit`), since how far it goes is written down before anything is removed.

        Requests:
            1 LIST per 1,000 objects of the run, namespaces included. Per namespace: 1 HEAD for each kept step that has
            two snapshots or more, one of them older than `grace`, and for each snapshot older than `grace` without a
            state; if steps go, 1 PUT, and 1 DELETE per 1,000 states and per 1,000 snapshots. With `dry_run`, no PUT and
            no DELETE.

        Args:
            run_id: The run.
            keep_last: The number of steps to keep, counted from the newest: 1 …
            older_than: Only steps stored longer ago than this go; zero or more. With both, a step goes only if both let
                it go.
            dry_run: Count only.
            grace: What is younger is kept; zero or more, and not less than the `grace` of the checkpointers that commit
                to the run. `timedelta(0)` is for runs whose workers are stopped: a commit in progress could then commit
                a pruned step again, or lose its tasks.

        Raises:
            InvalidArgumentError: Neither rule is given, or one is out of bounds; before any request.
            AccessDeniedError: And the other errors of the store; a key that it refuses to remove is one. What was
                removed until then stays removed: states before snapshots, the oldest first. Every step that is still
                listed is whole.
        """
        retention, grace = Retention(keep_last, older_than), check_grace(grace)
        run = self._keys(run_id)
        listing = await list_run(self._store, run)
        steps: tuple[int, ...] = ()
        kept = states = snapshots = size = young = 0
        for name, namespace in listing.namespaces.items():
            removal = await plan_removal(self._store, namespace, retention, now=self._now(), grace=grace)
            if not dry_run:
                await remove(self._store, removal)
            steps = tuple(removal.steps) if not name else steps
            kept += removal.kept
            young += removal.young
            states += len(removal.state_keys)
            snapshots += len(removal.snapshot_keys)
            size += removal.bytes
        return _logged("run pruned", Pruned(run.run_id, steps, kept, states, snapshots, size, dry_run, young=young))

    async def prune_all(
        self,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        dry_run: bool = False,
        grace: timedelta = GRACE,
        runs_at_once: int = RUNS_AT_ONCE,
        on_run: Callable[[Pruned], None] | None = None,
    ) -> PrunedRuns:
        """As `prune` on every run, `runs_at_once` (1 …) at a time; `on_run` is called after each, in `runs` order.

        1 LIST per 1,000 runs, and what `prune` takes for each. The first error ends it; runs done until then stay
        pruned, and calling again continues with the others.
        """
        Retention(keep_last, older_than)
        check_grace(grace)
        if type(runs_at_once) is not int or runs_at_once < 1:
            raise InvalidArgumentError("runs_at_once", repr(runs_at_once)[:80], "must be an int of 1 or more")

        async def one(run_id: UUID) -> Pruned:
            return await self.prune(run_id, keep_last=keep_last, older_than=older_than, dry_run=dry_run, grace=grace)

        total = PrunedRuns(0, 0, 0, 0, 0, dry_run)
        async with ordered_map(one, self.runs(), ahead=runs_at_once) as done:
            async for pruned in done:
                total = total.plus(pruned)
                if on_run is not None:
                    on_run(pruned)
        return total

    async def delete(self, run_id: UUID, *, dry_run: bool = False, grace: timedelta = GRACE) -> Pruned:
        """Nothing is under the run any more: states, snapshots, namespaces, floors, and whatever else was put there.

        It repeats until a LIST shows nothing, so that what a worker commits until then goes too. A commit that is sent
        after that begins the run again: stop the workers first. Whatever is seen of the run is whole, during and after.

        Left, and counted (`Pruned.left`), is a snapshot younger than `grace` that is no copy of inline tasks: the state
        that names it may be about to be sent, or sent again. Delete again later, or with `grace=timedelta(0)` once the
        workers are stopped.

        Requests:
            1 LIST and 2 DELETEs per 1,000 objects, and 1 LIST that shows nothing; 1 HEAD for each snapshot of a commit
            younger than `grace`. With `dry_run`, no DELETE. An unknown run is no error.

        Raises:
            StoreError: The store lists keys that are not the run's, and nothing was removed in that round; or it does
                not remove what it says it does.
            StoreUnavailableError: Workers go on committing faster than it deletes.
            AccessDeniedError: And the other errors of the store. What was removed until then stays removed, states
                first, in batches of a thousand, the run's own and its newest in the last: every step left is whole.

        A `prune` that has listed the run before does not know a run that begins again under the same id, and may remove
        its first steps: let no janitor prune a run that is deleted and begun again at once. In a versioned bucket,
        older versions remain until a lifecycle rule removes them.
        """
        check_grace(grace)
        run = self._keys(run_id)
        steps: set[int] = set()
        states = others = size = 0
        shown: list[frozenset[ListedObject]] = []
        for _ in range(DELETE_ROUNDS):
            listing = await list_run(self._store, run)
            shown = [*shown[-2:], listing.entries()]
            if len(shown) == 3 and shown[0] == shown[1] == shown[2]:
                detail = "it answers that it removed objects, and lists them still"
                raise StoreError("DeleteObjects", self._store.bucket, run.run, detail)
            plan = await plan_deletion(self._store, listing, now=self._now(), grace=grace)
            if dry_run or not (plan.state_keys or plan.other_keys):
                break
            await delete_in_order(self._store, plan.state_keys)
            await delete_in_order(self._store, plan.other_keys)
            steps |= listing.steps()
            states += len(plan.state_keys)
            others += len(plan.other_keys)
            size += listing.bytes
        else:
            detail = "workers continue to commit to the run; stop them"
            raise StoreUnavailableError("delete", self._store.bucket, run.run, outcome_unknown=True, detail=detail)
        if dry_run:
            steps, size = listing.steps(), listing.bytes
            states, others = len(plan.state_keys), len(plan.other_keys)
        removed = Pruned(run.run_id, tuple(sorted(steps)), 0, states, others, size, dry_run, left=plan.left)
        return _logged("run deleted", removed)

    async def usage(self) -> AsyncIterator[RunUsage]:
        """What each run takes, ascending by id. 1 LIST per 1,000 objects in the bucket under the prefix, in turn.

        Current versions only: noncurrent versions of a versioned bucket are paid for too, and are not seen here.
        """
        head = runs_prefix(self._prefix)
        open_runs: dict[UUID, RunUsage] = {}
        async for listed in objects_under(self._store, head):
            run_id = parse_run_prefix(self._prefix, head + listed.key[len(head) :].partition("/")[0] + "/")
            if run_id is None:
                continue
            if run_id not in open_runs and self._store.ordered:
                for finished in open_runs.values():
                    yield finished
                open_runs.clear()
            own = self._keys(run_id).parse_state(listed.key) is not None
            before = open_runs.get(run_id) or RunUsage(run_id, 0, 0, 0, listed.last_modified)
            open_runs[run_id] = RunUsage(
                run_id,
                before.objects + 1,
                before.bytes + listed.size,
                before.steps + own,
                max(before.last_modified, listed.last_modified),
            )
        for run_id in sorted(open_runs, key=str):
            yield open_runs[run_id]

    def _keys(self, run_id: UUID) -> RunKeys:
        return RunKeys(self._prefix, check_run_id(run_id))
