"""What an operator does to whole runs: see which there are, look back, fork, prune, delete, and count.

Everything goes by prefix listing, so it sees what any version of the library wrote, and runs whose workers are gone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Generic
from uuid import UUID, uuid4

from s3_checkpoint._concurrency.gather import Budget, ordered_map
from s3_checkpoint._format.keys import RunKeys, check_run_id, check_step, parse_run_prefix, run_keys, runs_prefix
from s3_checkpoint._format.size_estimate import estimated_bytes
from s3_checkpoint._runs.fork import FIRST_STEP, is_same_fork, origin_of
from s3_checkpoint._runs.grace import GRACE, check_grace
from s3_checkpoint._runs.retention import (
    Retention,
    delete_in_order,
    list_run,
    plan_deletion,
    plan_removal,
    remove,
)
from s3_checkpoint.checkpointer import S3Checkpointer, check_is_open
from s3_checkpoint.errors import (
    InvalidArgumentError,
    StateDecodingError,
    StepConflictError,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint.graph import END
from s3_checkpoint.models import StateT
from s3_checkpoint.object_store import ListedObject, Page, pages, utc_now
from s3_checkpoint.run_models import HistoryEntry, Origin, Pruned, PrunedRuns, RunActivity, RunStatus, RunUsage

_logger = logging.getLogger("s3_checkpoint.run_admin")
RUNS_AT_ONCE = 8
DELETE_ROUNDS = 100
"""How often `delete` lists again while workers put new objects under the run."""
ENTRIES_AHEAD = 8
ACTIVITIES_AHEAD = 16
USAGE_PAGES_IN_TURN = 2
"""Pages read one after another before a listing counts as long."""
USAGE_PARTS = 16
HISTORY_BYTES = 32 * 1024**2
"""JSON of the entries that `history` has read ahead, states and tasks, whatever they take when compressed."""


def _json_bytes(entry: HistoryEntry[Any] | None) -> int:
    return estimated_bytes((entry.state, entry.active), HISTORY_BYTES) if entry else 0


def _logged(message: str, removed: Pruned) -> Pruned:
    if not removed.dry_run:
        counts = {"states": removed.states, "snapshots": removed.snapshots, "removed_bytes": removed.bytes}
        _logger.info(message, extra={"run_id": str(removed.run_id), **counts})
    return removed


def _status(status: RunStatus | str | None) -> RunStatus | None:
    try:
        return None if status is None else RunStatus(status)
    except ValueError:
        reason = f"must be one of {', '.join(RunStatus)}"
        raise InvalidArgumentError("status", repr(status)[:80], reason) from None


class _Tally:
    """What runs take, added up page by page."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._head = runs_prefix(prefix)
        self._of_run: dict[UUID, RunUsage] = {}

    def add(self, page: Page) -> None:
        """Takes in the objects of a page of the listing of `runs/`."""
        for folder, group in groupby(page.objects, self._folder):
            if (run_id := parse_run_prefix(self._prefix, folder)) is not None:
                run, objects = run_keys(self._prefix, run_id), list(group)
                steps = sum(run.parse_state(listed.key) is not None for listed in objects)
                last_modified = max(listed.last_modified for listed in objects)
                size = sum(listed.size for listed in objects)
                found = RunUsage(run_id, len(objects), size, steps, last_modified)
                known = self._of_run.get(run_id)
                self._of_run[run_id] = found if known is None else known.plus(found)

    def _folder(self, listed: ListedObject) -> str:
        """What the keys of its run begin with."""
        return f"{self._head}{listed.key[len(self._head) :].partition('/')[0]}/"

    def runs(self) -> list[RunUsage]:
        """All of them, ascending by id."""
        return [self._of_run[run_id] for run_id in sorted(self._of_run)]


class RunAdmin(Generic[StateT]):
    """The operator's calls, on the runs that `checkpointer` sees: same store, prefix and state type.

    Every call raises `InvalidArgumentError` for arguments out of bounds, before any request; and
    `AccessDeniedError`, `ConfigurationError`, `StoreUnavailableError`, `LifecycleError` or `StoreError` when the store
    does not do as asked.

    Args:
        checkpointer: Used and not closed.
        now: The clock that ages are measured with, in UTC; within minutes of the store's.
        new_run_id: Makes the ids of forks that are given none.
    """

    def __init__(
        self,
        checkpointer: S3Checkpointer[StateT],
        *,
        now: Callable[[], datetime] = utc_now,
        new_run_id: Callable[[], UUID] = uuid4,
    ) -> None:
        check_is_open(checkpointer)
        self._checkpointer = checkpointer
        self._store = checkpointer.objects.store
        self._prefix = checkpointer.prefix
        self._now = now
        self._new_run_id = new_run_id

    async def runs(self) -> AsyncIterator[UUID]:
        """The ids of all runs.

        A run is whatever has a key under `runs/<uuid>/`, so one whose first commit is in progress is there already.

        Requests:
            1 LIST per 1,000 runs, sent as the iteration gets there.

        Yields:
            Ascending by text.
        """
        async for page in pages(self._store, runs_prefix(self._prefix), delimiter="/"):
            for prefix in page.prefixes:
                run_id = parse_run_prefix(self._prefix, prefix)
                if run_id is not None:
                    yield run_id

    async def activity(
        self,
        *,
        waiting_on: Collection[str] = (),
        status: RunStatus | str | None = None,
        node: str | None = None,
        since: datetime | None = None,
    ) -> AsyncIterator[RunActivity]:
        """As `runs`, each with its newest step, when that was stored, what runs next, and what becomes of the run.

        Requests:
            Those of `runs`, and for each run those of `activity_of`; 16 runs at a time, as the iteration gets there.
            What is filtered out costs as much.

        Args:
            waiting_on: Nodes at which a run waits for a human, as given to `run_superstep(interrupt_before=…)`.
            status: Only runs of this status.
            node: Only runs in which this node runs next.
            since: Only runs whose newest step was stored then or later; a time with a zone.

        Yields:
            The runs, ascending by id.

        Raises:
            InvalidArgumentError: `status` is none, or `since` has no zone; before any request.
        """
        wanted = _status(status)
        if since is not None and (not isinstance(since, datetime) or since.tzinfo is None):
            raise InvalidArgumentError("since", repr(since)[:80], "must be a datetime with a time zone")

        async def one(run_id: UUID) -> RunActivity:
            return await self.activity_of(run_id, waiting_on=waiting_on)

        async with ordered_map(one, self.runs(), ahead=ACTIVITIES_AHEAD) as found:
            async for activity in found:
                stored = activity.last_modified
                if (
                    (wanted is None or activity.status == wanted)
                    and (node is None or node in (activity.next_nodes or ()))
                    and (since is None or (stored is not None and stored >= since))
                ):
                    yield activity

    async def activity_of(self, run_id: UUID | str, *, waiting_on: Collection[str] = ()) -> RunActivity:
        """The run's newest step, when that was stored, what runs next, and what becomes of the run.

        Requests:
            Those of finding the latest step (1 LIST up to 1,000 steps), and 1 HEAD; 1 GET more if the state does not
            carry its tasks inline.

        Args:
            run_id: The run; of a subgraph's steps it tells nothing.
            waiting_on: As for `activity`.

        Returns:
            Of a run without steps, all but the id None; of one whose tasks cannot be read, status and nodes None.
        """
        run = self._keys(run_id)
        step = await self._checkpointer.index.latest(run)
        head = await self._store.head(run.state(step)) if step is not None else None
        if step is None or head is None:
            return RunActivity(run.run_id)
        try:
            active = await self._checkpointer.objects.tasks_of(run, step, head)
        except StateDecodingError:
            active = None
        if active is None:
            return RunActivity(run.run_id, step, head.last_modified)
        nodes = tuple(dict.fromkeys(task.node_name for task in active if task.node_name != END))
        status = RunStatus.ACTIVE if nodes else RunStatus.FINISHED
        if not set(nodes).isdisjoint(waiting_on):
            status = RunStatus.WAITING
        return RunActivity(run.run_id, step, head.last_modified, status, nodes)

    async def history(self, run_id: UUID | str) -> AsyncIterator[HistoryEntry[StateT]]:
        """The steps of the run, whole. Of a subgraph: `with_namespace` first. A step that is gone since is left out.

        Requests:
            1 LIST for up to 1,000 steps. Beyond, those of finding the latest step and 1 more before the first entry,
            and 1 LIST per 1,000 entries. 1 GET per entry, 2 where the state does not carry its tasks inline. All of it
            as the iteration gets there: at most 8 entries and about 32 MiB of JSON ahead of it.

        Yields:
            Newest first; nothing for an unknown run.

        Raises:
            StateDecodingError: In its place, for a step that cannot be trusted.
        """
        run = RunKeys(self._prefix, check_run_id(run_id), self._checkpointer.namespace)

        async def entry(step: int) -> HistoryEntry[StateT] | None:
            return await self._entry(run, step)

        steps = self._checkpointer.index.backwards(run)
        budget: Budget[HistoryEntry[StateT] | None] = Budget(HISTORY_BYTES, _json_bytes)
        async with ordered_map(entry, steps, ahead=ENTRIES_AHEAD, budget=budget) as entries:
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

    async def pruned_up_to(self, run_id: UUID | str) -> int | None:
        """Up to which step the run has been pruned. Of a subgraph: `with_namespace` first.

        Steps up to it that are still listed were kept; those that are not will not be committed again.

        Requests:
            1 LIST.

        Returns:
            None if it never was.
        """
        run = RunKeys(self._prefix, check_run_id(run_id), self._checkpointer.namespace)
        return await self._checkpointer.index.floor(run)

    async def fork(self, run_id: UUID | str, step: int, new_run_id: UUID | str | None = None) -> UUID:
        """A run exists whose step 0 is a copy of `step`, state and active tasks.

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

        Returns:
            The id of the new run.

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
        draft = await objects.draft_of_fork(source, step, commits.new_id(), origin)
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
        run_id: UUID | str,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        dry_run: bool = False,
        grace: timedelta = GRACE,
    ) -> Pruned:
        """Of the run, and of each of its namespaces, only the steps to be kept are left.

        Never goes the newest step, a step or snapshot younger than `grace`, or a snapshot that a kept step needs.
        Snapshots that no step names, left behind by crashed or losing commits, go once they are older than `grace`.
        Safe while workers commit and other janitors prune, and to repeat: a step that is gone is never committed again
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

        Returns:
            What was removed, namespaces included but for `steps`; with `dry_run`, what would be.

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
        """As `prune` on every run.

        Requests:
            1 LIST per 1,000 runs, and those of `prune` for each.

        Args:
            keep_last: This and the next three are those of `prune`.
            older_than: See `prune`.
            dry_run: See `prune`.
            grace: See `prune`.
            runs_at_once: Runs pruned at the same time: 1 …
            on_run: Called after each, in the order of `runs`.

        Returns:
            The sums.

        Raises:
            InvalidArgumentError: As `prune`, or `runs_at_once` is out of bounds; before any request.
            AccessDeniedError: And the other errors of the store: the first one ends it. Runs done until then stay
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

    async def delete(self, run_id: UUID | str, *, dry_run: bool = False, grace: timedelta = GRACE) -> Pruned:
        """Nothing is under the run any more: states, snapshots, namespaces, floors, and whatever else was put there.

        It repeats until a LIST shows nothing, so that what a worker commits until then goes too. A commit that is sent
        after that begins the run again: stop the workers first. Whatever is seen of the run is whole, during and after.

        Left, and counted (`Pruned.left`), is a snapshot younger than `grace` that is no copy of inline tasks: the state
        that names it may be about to be sent, or sent again. Delete again later, or with `grace=timedelta(0)` once the
        workers are stopped.

        Requests:
            1 LIST and 2 DELETEs per 1,000 objects, and 1 LIST that shows nothing; 1 HEAD for each snapshot of a commit
            younger than `grace`. With `dry_run`, no DELETE.

        Args:
            run_id: The run; an unknown one is no error.
            dry_run: Count only.
            grace: As for `prune`; what is younger, and could be needed, is left.

        Returns:
            What was removed, and how many snapshots are left; with `dry_run`, what would be.

        Raises:
            StoreError: The store lists keys that are not the run's, and nothing was removed in that round; or it does
                not remove what it says it does.
            StoreUnavailableError: Workers commit faster than it deletes.
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
        """What each run takes.

        Current versions only: noncurrent versions of a versioned bucket are paid for too, and are not seen here.

        Requests:
            1 LIST per 1,000 objects in the bucket under the prefix: two in turn, then up to 16 at a time, one for each
            first digit of the ids, and so up to 15 more.

        Yields:
            A sum for each run, ascending by id.
        """
        head = runs_prefix(self._prefix)
        tally = _Tally(self._prefix)
        last = ""
        listing = pages(self._store, head)
        async with aclosing(listing):
            turns = 0
            async for page in listing:
                tally.add(page)
                turns += 1
                if turns == USAGE_PAGES_IN_TURN and page.next_token is not None and page.keys and self._store.ordered:
                    last = page.keys[-1]
                    break
        if not last:
            for usage in tally.runs():
                yield usage
            return
        runs = tally.runs()
        cut = runs.pop() if runs else None  # the rest of it may be on the next page
        for usage in runs:
            yield usage
        digit = last[len(head) : len(head) + 1]
        parts = [(head + first, last if first == digit else "") for first in "0123456789abcdef" if first >= digit]
        async with ordered_map(self._usage_from, parts, ahead=USAGE_PARTS) as found:
            async for part in found:
                for usage in part:
                    if cut is not None and cut.run_id != usage.run_id:
                        yield cut
                        cut = None
                    yield usage if cut is None else cut.plus(usage)
                    cut = None
        if cut is not None:
            yield cut

    async def _usage_from(self, part: tuple[str, str]) -> list[RunUsage]:
        """What the runs take whose keys begin with `part[0]`, of keys behind `part[1]`."""
        prefix, start_after = part
        tally = _Tally(self._prefix)
        async for page in pages(self._store, prefix, start_after=start_after):
            tally.add(page)
        return tally.runs()

    def _keys(self, run_id: UUID | str) -> RunKeys:
        return RunKeys(self._prefix, check_run_id(run_id))
