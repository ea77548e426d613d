"""What an operator does to whole runs: see which there are, look back, fork, prune, delete, and count.

Everything goes by prefix listing, so it sees what any version of the library wrote, and runs whose workers are gone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Generic
from uuid import UUID, uuid4

from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.errors import InvalidArgumentError, StateDecodingError
from s3_checkpoint.keys import RunKeys, check_run_id, check_step, parse_run_prefix, runs_prefix
from s3_checkpoint.lineage import Origin, fork_to_known, fork_to_new
from s3_checkpoint.models import StateT
from s3_checkpoint.read_ahead import ReadAhead, each
from s3_checkpoint.retention import (
    GRACE,
    Retention,
    delete_in_order,
    is_state,
    namespaces_of,
    objects_of_run,
    objects_under,
    plan_removal,
    remove,
)
from s3_checkpoint.run_records import HistoryEntry, Pruned, PrunedRuns, RunActivity, RunUsage

logger = logging.getLogger("s3_checkpoint.run_admin")
RUNS_AT_ONCE = 8
ENTRIES_AHEAD = 8


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _logged(message: str, removed: Pruned) -> Pruned:
    if not removed.dry_run:
        facts = {"states": removed.states, "snapshots": removed.snapshots, "removed_bytes": removed.bytes}
        logger.info(message, extra={"run_id": str(removed.run_id), **facts})
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
        head = runs_prefix(self._prefix)
        token: str | None = None
        while True:
            page = await self._store.list(head, token=token, delimiter="/")
            for prefix in page.prefixes:
                run_id = parse_run_prefix(self._prefix, prefix)
                if run_id is not None:
                    yield run_id
            token = page.next_token
            if token is None:
                return

    async def activity(self) -> AsyncIterator[RunActivity]:
        """As `runs`, each with its newest step and the time of it.

        Per run, what finding the latest step takes (1 LIST up to 1,000 steps), and 1 HEAD; 16 runs at a time.
        """
        async with aclosing(ReadAhead(self.runs(), self._activity, ahead=16)) as found:
            async for activity in found:
                yield activity

    async def _activity(self, run_id: UUID) -> RunActivity:
        run = self._keys(run_id)
        step = await self._checkpointer.index.latest(run)
        head = await self._store.head(run.state(step)) if step is not None else None
        return RunActivity(run_id, step if head else None, head.last_modified if head else None)

    async def history(self, run_id: UUID) -> AsyncIterator[HistoryEntry[StateT]]:
        """The steps of the run, newest first, whole; nothing for an unknown run. Of a subgraph: `with_namespace` first.

        About n/1000 LISTs for n steps, then 2 GETs per entry, read as the iteration gets there and at most 8 entries
        ahead of it. A step removed meanwhile is left out.

        Raises `StateDecodingError`, in its place, for a step that cannot be trusted.
        """
        run = RunKeys(self._prefix, check_run_id(run_id), self._checkpointer.namespace)

        async def entry(step: int) -> HistoryEntry[StateT] | None:
            return await self._entry(run, step)

        steps = await self._checkpointer.list(run_id)
        async with aclosing(ReadAhead(each(reversed(steps)), entry, ahead=ENTRIES_AHEAD)) as entries:
            async for found in entries:
                if found is not None:
                    yield found

    async def _entry(self, run: RunKeys, step: int) -> HistoryEntry[StateT] | None:
        objects = self._checkpointer.objects
        while (found := await objects.get_state(run, step)) is not None:
            named = objects.snapshot_key(run, step, found.facts)
            active = await objects.get_active(named or run.active(step), found.facts.active_digest)
            if active is None and named is not None:
                now = await objects.head_state(run, step)
                if now is None or now != found.facts:
                    continue  # removed or replaced between the two reads: look again
                raise StateDecodingError(objects.bucket, named, "the active snapshot that the step names is gone")
            state = await objects.decode_state(run, found)
            head = found.stored.head
            return HistoryEntry(step, head.last_modified, head.size, state, tuple(active or ()), Origin.of(head))
        return None

    async def fork(self, run_id: UUID, step: int, new_run_id: UUID | None = None) -> UUID:
        """A run exists that begins with a copy of `step`, state and active tasks; its id is returned.

        It goes on from there by itself: `resume` and `commit` with the new id. The rest of the history and the
        namespaces of subgraphs are not copied. Where it came from stands in its metadata (`HistoryEntry.origin`).

        Without `new_run_id`: a new random id, copied inside the store; 4 requests. With one: the state is created on
        the condition that nothing is there, and travels through here; 4 requests. Forking the same step to the same
        id again is a success.

        Raises `InvalidArgumentError` if the step is not stored, or if `new_run_id` has steps already;
        `StepConflictError` if another worker wrote the step there meanwhile; `StateDecodingError` if the step names a
        snapshot that is gone. In all cases no step of the new run was written.
        """
        source, step = self._keys(run_id), check_step(step)
        target = self._keys(self._new_run_id() if new_run_id is None else new_run_id)
        if target == source:
            raise InvalidArgumentError("new_run_id", str(new_run_id), "must be another run")
        if new_run_id is None:
            await fork_to_new(self._store, source, target, step)
        else:
            limit = self._checkpointer.objects.max_stored_bytes
            await fork_to_known(self._store, source, target, step, max_bytes=limit)
        logger.info("run forked", extra={"run_id": str(target.run_id), "origin": f"{source.run_id}/{step}"})
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
        """Of the run, and of each of its namespaces, only the last `keep_last` (1 …) steps are left.

        Or those stored within `older_than` (zero or more); with both, a step goes only if both let it go. Never goes
        the newest step, an active snapshot that a kept step needs, or one that a commit under way may come to name.
        Snapshots that no step names, left behind by crashed or losing commits, go once they are older than `grace`,
        which must be longer than a commit can take. Safe while workers commit, beside other janitors, and to repeat.

        Per namespace n/1000 LISTs for states and for snapshots, 1 HEAD for each kept step with a committed snapshot
        older than `grace` and for each removed one with a younger; 1 LIST for the namespaces; 1 DELETE per 1,000
        objects. With `dry_run`, no DELETE.

        Raises as all calls do; a key that the store refuses to remove is an error. What was removed until then stays
        removed: states before snapshots, the oldest first.
        """
        retention = Retention(keep_last, older_than)
        run = self._keys(run_id)
        steps: tuple[int, ...] = ()
        kept = states = snapshots = size = 0
        for namespace in await namespaces_of(self._store, run):
            keys = RunKeys(self._prefix, run.run_id, namespace)
            removal = await plan_removal(self._store, keys, retention, now=self._now(), grace=grace)
            if not dry_run:
                await remove(self._store, removal)
            steps = tuple(removal.steps) if not namespace else steps
            kept += removal.kept
            states += len(removal.state_keys)
            snapshots += len(removal.snapshot_keys)
            size += removal.bytes
        return _logged("run pruned", Pruned(run.run_id, steps, kept, states, snapshots, size, dry_run))

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
        pruned, and calling again goes on with the others.
        """
        Retention(keep_last, older_than)
        if type(runs_at_once) is not int or runs_at_once < 1:
            raise InvalidArgumentError("runs_at_once", repr(runs_at_once)[:80], "must be an int of 1 or more")

        async def one(run_id: UUID) -> Pruned:
            return await self.prune(run_id, keep_last=keep_last, older_than=older_than, dry_run=dry_run, grace=grace)

        total = PrunedRuns(0, 0, 0, 0, 0, dry_run)
        async with aclosing(ReadAhead(self.runs(), one, ahead=runs_at_once)) as done:
            async for pruned in done:
                total = total.plus(pruned)
                if on_run is not None:
                    on_run(pruned)
        return total

    async def delete(self, run_id: UUID, *, dry_run: bool = False) -> Pruned:
        """Nothing stands under the run any more: states, snapshots, namespaces, and whatever else was put there.

        1 LIST and 1 DELETE per 1,000 objects; with `dry_run`, no DELETE. An unknown run is no error. States go first,
        the run's own last and its newest last of all, so that a run half deleted is still resumed from its newest
        step. Stop its workers first: what one commits meanwhile stays. In a versioned bucket, older versions remain
        until a lifecycle rule removes them.
        """
        run = self._keys(run_id)
        objects = await objects_of_run(self._store, run)
        if not dry_run:
            await delete_in_order(self._store, [listed.key for listed in objects])
        steps = [step for listed in objects if (step := run.parse_state(listed.key)) is not None]
        states = sum(is_state(run, listed.key) for listed in objects)
        size = sum(listed.size for listed in objects)
        removed = Pruned(run.run_id, tuple(sorted(steps)), 0, states, len(objects) - states, size, dry_run)
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
