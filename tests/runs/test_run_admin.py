"""The operator's calls, on every store: what they leave, what they give, and how many requests they make."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from s3_checkpoint import (
    AccessDeniedError,
    ActiveSnapshot,
    InvalidArgumentError,
    MemoryStore,
    S3Checkpointer,
    StateDecodingError,
    StepConflictError,
    StoreError,
)
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore
from s3_checkpoint.run_admin import RunAdmin
from s3_checkpoint.run_models import Origin, Pruned, RunActivity, RunStatus
from s3_checkpoint.testing import (
    Request,
    Send,
    StoreWrapper,
)
from s3_checkpoint.testing.counting import Counting
from s3_checkpoint.testing.wrappers import T
from tests.runs.listing_stores import CountedStore

RUN = UUID(int=1)
KEYS = RunKeys("", RUN)
State = dict[str, int]
HOUR = timedelta(hours=1)
STOPPED = timedelta(0)
"""The grace of a run whose workers are stopped."""


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def task(step: int) -> list[ActiveSnapshot]:
    return [ActiveSnapshot(node_name=f"after-{step}")]


LARGE = [ActiveSnapshot(node_name="large", payload="x" * 2048)]
"""Tasks that do not fit into metadata."""


def over(store: ObjectStore) -> S3Checkpointer[State]:
    return S3Checkpointer(State, store)


async def commit(store: ObjectStore, *steps: int, run: UUID = RUN, namespace: str = "") -> None:
    checkpointer = over(store).with_namespace(namespace)
    for step in steps:
        await checkpointer.commit(run, step, {"n": step}, task(step))


async def keys_in(store: ObjectStore, prefix: str = "") -> list[str]:
    return [listed.key for listed in (await store.list(prefix)).objects]


async def test_runs_are_found_by_their_keys(store: ObjectStore) -> None:
    """Each run once, and nothing that is not a run."""
    others = [UUID(int=3), UUID(int=2)]
    for run in others:
        await commit(store, 0, 1, run=run)
    await store.put("runs/not-a-run/steps/x.json", b"{}", ObjectAttributes(), mode="overwrite")
    counted = Counting(store)

    assert [run async for run in RunAdmin(over(counted)).runs()] == sorted(others)

    assert counted.taken() == {"LIST": 1}


async def test_activity_names_the_newest_step_of_each_run(store: ObjectStore) -> None:
    """A run whose first commit is in progress has none yet."""
    await commit(store, 4, 9)
    begun = RunKeys("", UUID(int=2))
    await store.put(begun.committed_active(0, "w"), b"[]", ObjectAttributes(), mode="create")

    found = [activity async for activity in RunAdmin(over(store)).activity()]

    head = await store.head(KEYS.state(9))
    assert head is not None
    nodes = ("after-9",)
    assert found == [RunActivity(RUN, 9, head.last_modified, RunStatus.ACTIVE, nodes), RunActivity(begun.run_id)]


async def test_history_goes_back_from_the_newest_step(store: ObjectStore) -> None:
    """Each entry is the whole step, whichever call wrote it."""
    checkpointer = over(store)
    await checkpointer.save(RUN, 1, {"n": 1})
    await checkpointer.save_active(RUN, 1, task(1))
    await commit(store, 2)

    entries = [entry async for entry in RunAdmin(checkpointer).history(RUN)]

    assert [(e.step, e.state, list(e.active), e.origin) for e in entries] == [
        (2, {"n": 2}, task(2), None),
        (1, {"n": 1}, task(1), None),
    ]
    assert all(entry.size > 0 and entry.last_modified.tzinfo for entry in entries)
    assert [entry async for entry in RunAdmin(checkpointer).history(uuid4())] == []


async def test_history_reads_no_further_ahead_than_eight() -> None:
    """A caller that wants the newest entry of a long run does not pay for all of it."""
    memory = MemoryStore()
    await commit(memory, *range(40))
    counted = Counting(memory)

    async with aclosing(RunAdmin(over(counted)).history(RUN)) as entries:  # type: ignore[type-var]
        first = await anext(entries)

    assert first.step == 39
    assert counted.taken()["GET"] <= 16


async def test_history_reads_ahead_by_what_is_unpacked() -> None:
    """States of 16 MiB take a few KB when compressed, and payloads are no part of their size: 8 ahead were too many."""
    memory = MemoryStore()
    writer = S3Checkpointer(dict[str, str], memory, compression="gzip")
    for step in range(8):
        await writer.commit(RUN, step, {"text": "x" * 2**24}, [ActiveSnapshot(node_name="n")])
    counted = Counting(memory)

    admin = RunAdmin(S3Checkpointer(dict[str, str], counted))
    async with aclosing(admin.history(RUN)) as entries:  # type: ignore[type-var]
        for _ in range(2):
            await anext(entries)

    assert counted.taken()["GET"] <= 4


async def test_history_of_a_namespace_is_its_own(store: ObjectStore) -> None:
    """The checkpointer's namespace is the one looked at."""
    await commit(store, 1)
    await commit(store, 5, namespace="sub")

    entries = [entry.step async for entry in RunAdmin(over(store).with_namespace("sub")).history(RUN)]

    assert entries == [5]


async def test_history_says_when_a_snapshot_is_gone(store: ObjectStore) -> None:
    """Never an empty answer in place of lost tasks."""
    await over(store).commit(RUN, 1, {"n": 1}, LARGE)
    await store.delete(await keys_in(store, KEYS.actives))

    with pytest.raises(StateDecodingError, match="gone"):
        [entry async for entry in RunAdmin(over(store)).history(RUN)]


async def test_a_fork_begins_with_the_step_and_continues_by_itself(store: ObjectStore) -> None:
    """State, tasks and origin are there; the rest of the history, and the other run, are not touched."""
    await commit(store, 0, 1, 2)
    before = await keys_in(store)
    counted = Counting(store)

    new = await RunAdmin(over(counted)).fork(RUN, 1)

    assert counted.taken() == {"GET": 1, "LIST": 1, "PUT": 2}
    checkpointer = over(store)
    resumed = await checkpointer.resume(new)
    assert resumed is not None
    assert (resumed.step, resumed.state, list(resumed.active)) == (0, {"n": 1}, task(1))
    assert [entry.origin async for entry in RunAdmin(checkpointer).history(new)] == [Origin(RUN, 1)]
    await checkpointer.commit(new, 1, {"n": 22}, [])
    assert await checkpointer.load(RUN, 1) == {"n": 1}
    assert set(before) < set(await keys_in(store))


async def test_a_step_saved_without_commit_forks_with_its_tasks(store: ObjectStore) -> None:
    """What `save_active` wrote comes along."""
    checkpointer = over(store)
    await checkpointer.save(RUN, 3, {"n": 3})
    await checkpointer.save_active(RUN, 3, task(3))

    new = await RunAdmin(checkpointer).fork(RUN, 3)

    assert await checkpointer.load_active(new, 0) == task(3)


async def test_a_fork_to_a_given_id_can_be_repeated(store: ObjectStore) -> None:
    """A worker that tries again after a lost answer succeeds."""
    await commit(store, 0)
    counted, new = Counting(store), uuid4()
    admin = RunAdmin(over(counted))

    assert await admin.fork(RUN, 0, new) == new
    assert counted.taken() == {"GET": 1, "LIST": 1, "PUT": 2}
    assert await admin.fork(RUN, 0, new) == new
    assert counted.taken() == {"GET": 2, "LIST": 1}

    assert await over(store).load_active(new, 0) == task(0)


async def test_a_fork_never_writes_into_a_run_that_exists(store: ObjectStore) -> None:
    """Not at the same step, and not beside others."""
    other = uuid4()
    await commit(store, 0, 1)
    await commit(store, 0, run=other)
    before = await keys_in(store)

    for step in (0, 1):
        with pytest.raises(InvalidArgumentError, match="already has steps"):
            await RunAdmin(over(store)).fork(RUN, step, other)

    assert await keys_in(store) == before


async def test_a_fork_that_is_overtaken_changes_nothing() -> None:
    """A worker that commits to the new id between our look and our write keeps its step."""
    memory, new = MemoryStore(), uuid4()
    await commit(memory, 0)

    class Overtaken(StoreWrapper):
        async def around(self, request: Request, send: Send[T]) -> T:
            if request.verb == "PutObject":
                await over(memory).commit(new, 0, {"n": 99}, [])
            return await send()

    with pytest.raises(StepConflictError):
        await RunAdmin(over(Overtaken(memory))).fork(RUN, 0, new)

    assert await over(memory).load(new) == {"n": 99}


async def test_a_fork_takes_large_tasks_along(store: ObjectStore) -> None:
    """They are in an object of their own, in both runs."""
    await over(store).commit(RUN, 4, {"n": 4}, LARGE)

    new = await RunAdmin(over(store)).fork(RUN, 4)

    assert await over(store).load_active(new, 0) == LARGE


@pytest.mark.parametrize("new", [None, uuid4()])
async def test_nothing_is_forked_from_a_step_that_is_not_there(store: ObjectStore, new: UUID | None) -> None:
    """The error names the step; nothing is written."""
    with pytest.raises(InvalidArgumentError, match="not stored"):
        await RunAdmin(over(store)).fork(RUN, 5, new)

    assert await keys_in(store) == []


async def test_prune_keeps_the_last_steps_and_what_they_need(store: ObjectStore) -> None:
    """In each namespace by itself; one request per thousand objects removed."""
    await commit(store, *range(6))
    await commit(store, 0, 1, namespace="sub/graph")
    counted = Counting(store)
    admin = RunAdmin(over(counted))

    planned = await admin.prune(RUN, keep_last=2, dry_run=True, grace=STOPPED)
    assert counted.taken() == {"LIST": 1}
    pruned = await admin.prune(RUN, keep_last=2, grace=STOPPED)

    assert counted.taken() == {"LIST": 1, "PUT": 1, "DELETE": 2}
    assert planned == Pruned(RUN, (0, 1, 2, 3), 4, 4, 4, pruned.bytes, dry_run=True)
    assert pruned == Pruned(RUN, (0, 1, 2, 3), 4, 4, 4, pruned.bytes, dry_run=False)
    assert await over(store).list(RUN) == [4, 5]
    assert [await over(store).load_active(RUN, step) for step in (4, 5)] == [task(4), task(5)]
    assert len(await keys_in(store)) == 9
    assert await admin.pruned_up_to(RUN) == 3


async def test_prune_leaves_what_is_younger_than_the_grace_period() -> None:
    """A commit in progress may still be about to write there; the answer tells how many steps that keeps."""
    clock = Clock()
    memory = MemoryStore(now=clock)
    await commit(memory, 0, 1)
    clock.now += 0.5 * HOUR
    await commit(memory, 2, 3)
    clock.now += 0.5 * HOUR

    pruned = await RunAdmin(over(memory), now=clock).prune(RUN, keep_last=1)

    assert (pruned.steps, pruned.kept, pruned.young) == ((0, 1), 2, 1)
    assert await over(memory).list(RUN) == [2, 3]


async def test_a_process_that_has_seen_later_steps_never_commits_a_pruned_one(store: ObjectStore) -> None:
    """Not even where everything but the newest step was removed at once."""
    checkpointer = over(store)
    for step in range(4):
        await checkpointer.commit(RUN, step, {"n": step}, task(step))
    await RunAdmin(checkpointer).prune(RUN, keep_last=1, grace=STOPPED)

    for worker in (checkpointer, over(store)):
        for step in range(3):
            with pytest.raises(StepConflictError, match="pruned"):
                await worker.commit(RUN, step, {"n": step}, task(step))

    assert await over(store).list(RUN) == [3]


async def test_many_kept_steps_cost_no_heads() -> None:
    """One snapshot beside one state decides nothing."""
    clock = Clock()
    memory = MemoryStore(now=clock)
    await commit(memory, *range(400))
    clock.now += 2 * HOUR
    counted = Counting(memory)

    await RunAdmin(over(counted), now=clock).prune(RUN, keep_last=300)

    assert counted.taken() == {"LIST": 1, "PUT": 1, "DELETE": 2}


async def test_the_floor_is_written_before_anything_goes_and_only_the_greatest_is_kept() -> None:
    """A prune that is cut short has said how far it was about to go."""
    clock = Clock()
    memory = MemoryStore(now=clock)
    verbs: list[tuple[str, str]] = []

    class Recorded(Counting):
        async def around(self, request: Request, send: Send[T]) -> T:
            verbs.append((request.verb, request.key))
            return await super().around(request, send)

    admin = RunAdmin(over(Recorded(memory)), now=clock)
    for step in range(4):
        await commit(memory, step)
    clock.now += 2 * HOUR

    await admin.prune(RUN, keep_last=3)
    await admin.prune(RUN, keep_last=1)

    writes = [verb for verb, _ in verbs if verb in ("PutObject", "DeleteObjects")]
    assert writes == ["PutObject", "DeleteObjects", "DeleteObjects"] * 2 + ["DeleteObjects"]
    assert await keys_in(memory, KEYS.floors) == [KEYS.floor(2)]
    assert await admin.pruned_up_to(RUN) == 2


async def test_prune_by_age_keeps_the_newest_step_however_old() -> None:
    """With both rules, a step goes only if both let it go."""
    clock = Clock()
    memory = MemoryStore(now=clock)
    for step in range(4):
        await commit(memory, step)
        clock.now += HOUR
    admin = RunAdmin(over(memory), now=clock)

    assert (await admin.prune(RUN, older_than=2.5 * HOUR, keep_last=3)).steps == (0,)
    assert (await admin.prune(RUN, older_than=2.5 * HOUR)).steps == (1,)
    clock.now += 1000 * HOUR
    assert (await admin.prune(RUN, older_than=HOUR)).steps == (2,)

    assert await over(memory).list(RUN) == [3]
    assert await over(memory).load_active(RUN, 3) == task(3)


async def test_snapshots_that_nothing_names_go_when_they_are_old() -> None:
    """Those of losing and crashed commits, never one that `save_active` wrote for a step that is or may come."""
    clock = Clock()
    memory = MemoryStore(now=clock)
    await commit(memory, 2, 4)
    await over(memory).save_active(RUN, 4, task(4))
    orphans = [KEYS.committed_active(1, "crashed"), KEYS.committed_active(4, "lost"), KEYS.active(3)]
    orphans.append(KEYS.committed_active(5, "crashed"))
    for key in [*orphans, KEYS.active(6)]:
        await memory.put(key, b"[]", ObjectAttributes(), mode="create")
    foreign = KEYS.actives + "notes.txt"
    await memory.put(foreign, b"", ObjectAttributes(), mode="create")
    admin = RunAdmin(over(memory), now=clock)

    assert (await admin.prune(RUN, keep_last=2)).snapshots == 0
    clock.now += HOUR
    assert (await admin.prune(RUN, keep_last=2)).snapshots == 4

    left = await keys_in(memory, KEYS.actives)
    assert not set(left) & set(orphans)
    assert {KEYS.active(6), foreign, KEYS.active(4)} < set(left)
    assert await over(memory).load_active(RUN, 4) == task(4)


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"keep_last": 0},
        {"keep_last": True},
        {"older_than": -HOUR},
        {"older_than": 3600},
        {"keep_last": 1, "grace": -HOUR},
        {"keep_last": 1, "grace": 3600},
    ],
)
async def test_a_rule_that_cannot_be_is_refused_before_any_request(rule: dict[str, object]) -> None:
    """Nothing is removed on a guess."""
    counted = Counting(MemoryStore())
    admin = RunAdmin(over(counted))

    with pytest.raises(InvalidArgumentError):
        await admin.prune(RUN, **rule)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError):
        await admin.prune_all(**rule)  # type: ignore[arg-type]

    assert counted.taken() == {}


async def test_prune_all_tells_of_each_run(store: ObjectStore) -> None:
    """And sums them up."""
    runs = [UUID(int=n) for n in range(1, 12)]
    for run in runs:
        await commit(store, 0, 1, run=run)
    told: list[UUID] = []

    total = await RunAdmin(over(store)).prune_all(
        keep_last=1, grace=STOPPED, on_run=lambda pruned: told.append(pruned.run_id)
    )

    assert told == runs
    assert (total.runs, total.kept, total.states, total.snapshots) == (11, 11, 11, 11)
    assert all([await over(store).list(run) == [1] for run in runs])


async def test_delete_leaves_nothing_of_the_run_and_everything_of_others(store: ObjectStore) -> None:
    """Namespaces and foreign keys included; doing it twice is no error."""
    other = UUID(int=2)
    await commit(store, 0, 1)
    await commit(store, 0, namespace="steps/x")
    await commit(store, 0, run=other)
    await store.put(f"runs/{RUN}/notes.txt", b"mine", ObjectAttributes(), mode="create")
    admin = RunAdmin(over(store))

    planned = await admin.delete(RUN, dry_run=True)
    deleted = await admin.delete(RUN)

    assert (planned.steps, planned.states, planned.snapshots) == ((0, 1), 3, 4)
    assert deleted.bytes == planned.bytes > 0
    assert await keys_in(store, f"runs/{RUN}/") == []
    assert await over(store).load(other) == {"n": 0}
    assert (await admin.delete(RUN)).states == 0


async def test_commits_while_a_run_is_deleted_go_too() -> None:
    """Deleting repeats until a LIST shows nothing."""
    memory = MemoryStore()
    await commit(memory, 0, 1)

    class Beside(Counting):
        async def around(self, request: Request, send: Send[T]) -> T:
            answer = await super().around(request, send)
            if request.verb == "ListObjectsV2" and self.requests["LIST"] == 1:
                await commit(memory, 2)
            return answer

    deleted = await RunAdmin(over(Beside(memory))).delete(RUN)

    assert deleted.steps == (0, 1, 2)
    assert await keys_in(memory) == []


async def test_a_snapshot_that_a_commit_may_be_about_to_name_is_left() -> None:
    """A run that comes back after its deletion comes back whole; with the workers stopped, nothing is left."""
    memory = MemoryStore()
    await commit(memory, 0)

    class DeletedInBetween(StoreWrapper):
        async def around(self, request: Request, send: Send[T]) -> T:
            if request.verb == "PutObject" and request.key == KEYS.state(1):
                deleted.append(await RunAdmin(over(memory)).delete(RUN))
            return await send()

    deleted: list[Pruned] = []
    await over(DeletedInBetween(memory)).commit(RUN, 1, {"n": 1}, LARGE)

    assert [one.left for one in deleted] == [1]
    resumed = await over(memory).resume(RUN)
    assert resumed is not None
    assert (resumed.step, list(resumed.active)) == (1, LARGE)
    await RunAdmin(over(memory)).delete(RUN, grace=STOPPED)
    assert await keys_in(memory) == []


async def test_a_state_that_may_not_be_removed_keeps_its_tasks() -> None:
    """A deny policy or a legal hold: states go in requests of their own, and snapshots only after them."""
    clock = Clock()
    memory = MemoryStore(now=clock)
    for step in range(3):
        await over(memory).commit(RUN, step, {"n": step}, LARGE)
    clock.now += 2 * HOUR

    class Held(StoreWrapper):
        async def delete(self, keys: Sequence[str]) -> None:
            await memory.delete([key for key in keys if key != KEYS.state(1)])
            if KEYS.state(1) in keys:
                raise AccessDeniedError("memory", KEYS.state(1), "s3:DeleteObject")

    admin = RunAdmin(over(Held(memory)), now=clock)
    for remove in (admin.prune(RUN, keep_last=1), admin.delete(RUN)):
        with pytest.raises(AccessDeniedError):
            await remove

        for step in await over(memory).list(RUN):
            assert await over(memory).load_active(RUN, step) == LARGE
    assert await over(memory).list(RUN) == [1]


async def test_a_run_half_deleted_is_resumed_from_its_newest_step() -> None:
    """The order of removal leaves no step without its tasks."""
    memory = MemoryStore()
    await commit(memory, 0, 1, 2)
    removed: list[str] = []

    class Broken(Counting):
        async def delete(self, keys: Sequence[str]) -> None:
            removed.extend(keys)

    with pytest.raises(StoreError, match="lists them still"):
        await RunAdmin(over(Broken(memory))).delete(RUN)

    newest = removed.index(KEYS.state(2))
    await memory.delete(removed[:newest])
    resumed = await over(memory).resume(RUN)
    assert resumed is not None
    assert (resumed.step, list(resumed.active)) == (2, task(2))


@pytest.mark.parametrize("ordered", [True, False])
async def test_usage_counts_objects_and_bytes(ordered: bool) -> None:
    """As a listing counts them, in a bucket that lists in order and in one that does not."""
    memory = MemoryStore(ordered=ordered)
    await commit(memory, 0, 1)
    await commit(memory, 7, namespace="sub")
    await commit(memory, 0, run=UUID(int=2))
    counted = Counting(memory)

    usage = [one async for one in RunAdmin(over(counted)).usage()]

    sizes = {run: [o.size for o in (await memory.list(f"runs/{run}/")).objects] for run in (RUN, UUID(int=2))}
    assert counted.taken() == {"LIST": 1}
    assert [(u.run_id, u.objects, u.bytes, u.steps) for u in usage] == [
        (RUN, 6, sum(sizes[RUN]), 2),
        (UUID(int=2), 2, sum(sizes[UUID(int=2)]), 1),
    ]


@pytest.mark.parametrize("page_keys", [3, 1000])
async def test_usage_of_many_objects_is_listed_in_parallel(page_keys: int) -> None:
    """After two pages in turn, one listing for each first digit of the ids; a run cut in two counts as one."""
    store = CountedStore(page_keys=page_keys)
    sizes: dict[UUID, list[int]] = {}
    for number in range(60):
        run = UUID(int=number << 122 | number)
        for step in range(1 + 7 * number % 50 if page_keys == 1000 else 2):
            body = b"x" * (step + 1)
            await store.store.put(RunKeys("", run).state(step), body, ObjectAttributes(), mode="overwrite")
            sizes.setdefault(run, []).append(len(body))
    for other in ("runs/!", "runs/5/x", "runs/A", "runs/zzz", "threads/t"):
        await store.store.put(other, b"", ObjectAttributes(), mode="overwrite")
    objects = sum(map(len, sizes.values())) + 4

    usage = [one async for one in RunAdmin(over(store)).usage()]

    assert [(u.run_id, u.objects, u.bytes, u.steps) for u in usage] == [
        (run, len(found), sum(found), len(found)) for run, found in sorted(sizes.items(), key=lambda item: str(item[0]))
    ]
    assert store.requests["LIST"] <= objects / page_keys + 1 + 16
    assert store.most_in_flight > 4 or page_keys == 1000


async def test_long_runs_are_pruned_in_batches_of_a_thousand() -> None:
    """2,500 steps, of which one stays."""
    clock = Clock()
    memory = MemoryStore(now=clock)
    await commit(memory, *range(2500))
    clock.now += 2 * HOUR
    counted = Counting(memory)

    pruned = await RunAdmin(over(counted), now=clock).prune(RUN, keep_last=1)

    assert (pruned.states, pruned.snapshots, pruned.kept) == (2499, 2499, 1)
    assert counted.taken() == {"LIST": 5, "PUT": 1, "DELETE": 6}
