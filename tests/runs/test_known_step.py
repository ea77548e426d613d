"""`resume(known_step=…)`: the newest step in one round trip, and what the commit after it may conclude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from s3_checkpoint import (
    ActiveSnapshot,
    Checkpoint,
    Checkpointer,
    Graph,
    InvalidArgumentError,
    MemoryStore,
    Next,
    RunAdmin,
    S3Checkpointer,
    StateDecodingError,
    StepConflictError,
    Task,
    run_superstep,
)
from s3_checkpoint.models import Overtaken
from s3_checkpoint.object_store import StoredObject
from s3_checkpoint.testing import Counting, StoreWrapper
from tests.states import RUN, Counter

TASKS = [ActiveSnapshot(node_name="count")]
LARGE_TASKS = [ActiveSnapshot(node_name="count", payload="x" * 2048)]


class Clock:
    """One for the store and for the workers."""

    def __init__(self) -> None:
        self.passed = timedelta(0)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + self.passed

    def monotonic(self) -> float:
        return self.passed.total_seconds()


async def _count(state: Counter, task: Task) -> Next:
    return Next(1, "count")


GRAPH: Graph[Counter] = Graph(
    start="count", nodes={"count": _count}, apply=lambda state, update: Counter(n=state.n + update)
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counting(clock: Clock) -> Counting:
    return Counting(MemoryStore(now=clock.now))


def cold(counting: Counting, clock: Clock, **options: Any) -> S3Checkpointer[Counter]:
    """A process that has seen nothing yet."""
    counting.reset()
    return S3Checkpointer(Counter, counting, monotonic=clock.monotonic, **options)


async def stored(
    counting: Counting, clock: Clock, *steps: int, active: Sequence[ActiveSnapshot] = TASKS, **options: Any
) -> None:
    """The run has these steps, committed by another process."""
    worker = cold(counting, clock, **options)
    for step in steps:
        await worker.commit(RUN, step, Counter(n=step), active)


async def test_known_step_that_is_the_newest_is_resumed_in_one_round_trip(counting: Counting, clock: Clock) -> None:
    """1 GET and 1 HEAD, together."""
    await stored(counting, clock, 0, 1, 2)
    checkpointer = cold(counting, clock)

    found = await checkpointer.resume(RUN, known_step=2)

    assert found == Checkpoint(RUN, 2, Counter(n=2), tuple(TASKS))
    assert found.next_step == 3
    assert (dict(counting.requests), counting.rounds) == ({"GET": 1, "HEAD": 1}, 1)


async def test_known_step_costs_the_same_at_any_length_of_history(counting: Counting, clock: Clock) -> None:
    """A search through 2,100 steps would take rounds of LISTs."""
    worker = cold(counting, clock)
    for step in range(2_100):
        await counting.store.put(*await _put_of(worker, step), mode="overwrite")
    await worker.commit(RUN, 2_100, Counter(n=5), TASKS)

    found = await cold(counting, clock).resume(RUN, known_step=2_100)

    assert found is not None
    assert (found.step, dict(counting.requests)) == (2_100, {"GET": 1, "HEAD": 1})


async def _put_of(worker: S3Checkpointer[Counter], step: int) -> tuple[str, bytes, Any]:
    draft = await worker.objects.draft(Counter(n=step), TASKS, f"w{step}")
    return worker._run(RUN).state(step), draft.state, draft.state_attributes


async def test_known_step_with_tasks_of_their_own_object_costs_one_get_more(counting: Counting, clock: Clock) -> None:
    """They are not in the state's metadata."""
    await stored(counting, clock, 0, active=LARGE_TASKS)

    found = await cold(counting, clock).resume(RUN, known_step=0)

    assert found is not None
    assert list(found.active) == LARGE_TASKS
    assert (dict(counting.requests), counting.rounds) == ({"GET": 2, "HEAD": 1}, 2)


@pytest.mark.parametrize("known", [0, 1])
async def test_known_step_that_is_not_the_newest_leads_to_the_search(
    counting: Counting, clock: Clock, known: int
) -> None:
    """Which starts behind it: 1 LIST and 1 GET."""
    await stored(counting, clock, 0, 1, 2, 3)

    found = await cold(counting, clock).resume(RUN, known_step=known)

    assert found is not None
    assert (found.step, dict(counting.requests)) == (3, {"GET": 2, "HEAD": 1, "LIST": 1})


async def test_known_step_that_is_gone_leads_to_the_search(counting: Counting, clock: Clock) -> None:
    """It was pruned, or the caller is wrong; a run without steps is None."""
    await stored(counting, clock, 0, 1, 2, 3)
    clock.passed += timedelta(hours=2)
    await RunAdmin(cold(counting, clock), now=clock.now).prune(RUN, keep_last=1)

    for known in (0, 7, 2**64 - 1):
        found = await cold(counting, clock).resume(RUN, known_step=known)
        assert found is not None
        assert found.step == 3
    await RunAdmin(cold(counting, clock), now=clock.now).delete(RUN)
    assert await cold(counting, clock).resume(RUN, known_step=3) is None


async def test_resume_at_tells_of_a_later_step_without_reading_it(counting: Counting, clock: Clock) -> None:
    """With its tasks, where its metadata carries them: also when the known step itself is gone."""
    await stored(counting, clock, 0, 1, 2)
    await stored(counting, clock, 3, active=LARGE_TASKS)
    checkpointer = cold(counting, clock)

    assert await checkpointer.resume_at(RUN, 1) == Overtaken(RUN, 1, tuple(TASKS))
    assert counting.taken() == {"GET": 1, "HEAD": 1}
    assert await checkpointer.resume_at(RUN, 2) == Overtaken(RUN, 2, None)
    await counting.store.delete([checkpointer._run(RUN).state(1)])
    assert await checkpointer.resume_at(RUN, 1) == Overtaken(RUN, 1, tuple(TASKS))


async def test_known_step_out_of_bounds_is_refused_before_any_request(counting: Counting, clock: Clock) -> None:
    """A step is an int of 0 … 2^64-1."""
    checkpointer = cold(counting, clock)

    for known in (-1, 2**64, True, "3"):
        with pytest.raises(InvalidArgumentError):
            await checkpointer.resume(RUN, known_step=known)  # type: ignore[arg-type]

    assert counting.taken() == {}


class Garbled(StoreWrapper):
    """The tasks in the metadata of every head are not what their digest says."""

    async def head(self, key: str) -> Any:
        head = await self.store.head(key)
        if head is None:
            return None
        metadata = {**head.attributes.metadata, "active-inline": "W10="}
        return replace(head, attributes=replace(head.attributes, metadata=metadata))


async def test_resume_at_does_not_believe_tasks_that_do_not_match_their_digest(
    counting: Counting, clock: Clock
) -> None:
    """Nothing is guessed on reading, a HEAD's metadata included."""
    await stored(counting, clock, 0, 1)

    with pytest.raises(StateDecodingError, match="active-digest"):
        await S3Checkpointer(Counter, Garbled(counting.store)).resume_at(RUN, 0)


async def test_superstep_of_a_known_step_takes_two_round_trips_in_a_cold_process(
    counting: Counting, clock: Clock
) -> None:
    """1 GET and 1 HEAD, then 2 PUTs: by message, at any length of history."""
    await stored(counting, clock, 0, 1, 2)

    at = await run_superstep(cold(counting, clock), GRAPH, RUN, expected_step=2)

    assert (at.step, at.committed, at.state) == (3, True, Counter(n=3))
    assert (dict(counting.requests), counting.rounds) == ({"GET": 1, "HEAD": 1, "PUT": 2}, 2)


async def test_superstep_without_the_copy_for_people_puts_once(counting: Counting, clock: Clock) -> None:
    """`snapshot_objects="when_large"`."""
    await stored(counting, clock, 0)

    await run_superstep(cold(counting, clock, snapshot_objects="when_large"), GRAPH, RUN, expected_step=0)

    assert (dict(counting.requests), counting.rounds) == ({"GET": 1, "HEAD": 1, "PUT": 1}, 2)


async def test_superstep_that_loses_to_another_worker_reads_the_winner(counting: Counting, clock: Clock) -> None:
    """The refused PUT is read back, and then the newest step: 2 GETs and 1 HEAD more."""
    await stored(counting, clock, 0)
    rival = cold(counting, clock)

    async def overtaken(state: Counter, task: Task) -> Next:
        await rival.commit(RUN, 1, Counter(n=100), TASKS)
        counting.reset()
        return Next(1, "count")

    graph = Graph(start="count", nodes={"count": overtaken}, apply=GRAPH.apply)
    at = await run_superstep(cold(counting, clock), graph, RUN, expected_step=0)

    assert (at.step, at.superseded, at.state) == (1, True, Counter(n=100))
    assert dict(counting.requests) == {"GET": 2, "HEAD": 1, "PUT": 2}


@pytest.mark.parametrize("age", [timedelta(minutes=4), timedelta(days=3)])
async def test_commit_after_an_old_known_step_looks_with_a_list(
    counting: Counting, clock: Clock, age: timedelta
) -> None:
    """A human has taken a while: only a young step shows that the next one has not been pruned."""
    await stored(counting, clock, 0, 1)
    clock.passed += age

    at = await run_superstep(cold(counting, clock), GRAPH, RUN, expected_step=1)

    assert at.committed
    assert (dict(counting.requests), counting.rounds) == ({"GET": 1, "HEAD": 1, "LIST": 1, "PUT": 2}, 3)


@pytest.mark.parametrize("how", ["saved", "out of order", "no date"])
async def test_commit_after_a_known_step_that_proves_nothing_looks_with_a_list(
    counting: Counting, clock: Clock, how: str
) -> None:
    """One that was `save`d, committed behind a later step, or read from a store that does not say when."""
    store: Any = counting
    if how == "saved":
        await cold(counting, clock).save(RUN, 1, Counter(n=1))
    elif how == "out of order":
        await stored(counting, clock, 5, 1)
    else:
        await stored(counting, clock, 1)
        store = Dateless(counting)
    counting.reset()
    checkpointer: S3Checkpointer[Counter] = S3Checkpointer(Counter, store, monotonic=clock.monotonic)

    assert await checkpointer.resume(RUN, known_step=1) is not None
    await checkpointer.commit(RUN, 2, Counter(n=2), TASKS)

    assert counting.requests["LIST"] == (2 if how == "out of order" else 1)


class Dateless(StoreWrapper):
    """Answers without a date."""

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        found = await super().get(key, max_bytes=max_bytes)
        return found and replace(found, head=replace(found.head, date=None))


async def test_commit_of_another_step_than_the_next_looks_with_a_list(counting: Counting, clock: Clock) -> None:
    """The HEAD has shown that the next one was not there, and nothing of those behind it."""
    await stored(counting, clock, 0, 9)
    checkpointer = cold(counting, clock)
    await checkpointer.resume(RUN, known_step=0)
    counting.reset()

    with pytest.raises(StepConflictError):
        await checkpointer.commit(RUN, 9, Counter(n=2), TASKS)
    await checkpointer.commit(RUN, 1, Counter(n=1), TASKS)

    assert dict(counting.requests) == {"LIST": 1, "GET": 1, "PUT": 2}


async def test_commit_long_after_the_known_step_was_read_looks_with_a_list(counting: Counting, clock: Clock) -> None:
    """A superstep of half an hour: what was young then says nothing now."""
    await stored(counting, clock, 0)
    checkpointer = cold(counting, clock)
    await checkpointer.resume(RUN, known_step=0)
    clock.passed += timedelta(minutes=30)
    counting.reset()

    await checkpointer.commit(RUN, 1, Counter(n=1), TASKS)

    assert dict(counting.requests) == {"LIST": 1, "PUT": 2}


async def test_step_committed_behind_a_later_one_says_so(counting: Counting, clock: Clock) -> None:
    """And no other; a fork of it begins its run in order."""
    await stored(counting, clock, 5, 1, 6)
    checkpointer = cold(counting, clock)
    fork = await RunAdmin(checkpointer).fork(RUN, 1)

    marks = {}
    for run, step in ((RUN, 5), (RUN, 1), (RUN, 6), (fork, 0)):
        head = await counting.store.head(checkpointer._run(run).state(step))
        assert head is not None
        marks[run, step] = head.attributes.metadata.get("out-of-order")

    assert marks == {(RUN, 5): None, (RUN, 1): "1", (RUN, 6): None, (fork, 0): None}


class ThreeCalls(Checkpointer[Counter]):
    """What a third party writes that implements only what the trait requires."""

    def __init__(self) -> None:
        self.states: dict[int, Counter] = {}

    async def save(self, run_id: Any, step: int, state: Counter) -> None:
        self.states[step] = state

    async def load(self, run_id: Any, step: int | None = None) -> Counter | None:
        return self.states.get(max(self.states, default=0) if step is None else step)

    async def list(self, run_id: Any) -> list[int]:
        return sorted(self.states)


async def test_commit_and_resume_have_defaults_made_of_the_traits_calls() -> None:
    """So that an engine knows one interface; the known step is a hint that they leave aside."""
    checkpointer = ThreeCalls()
    assert await checkpointer.resume(RUN) is None

    assert await checkpointer.commit_or_confirm(str(RUN), 4, Counter(n=4), TASKS)
    await checkpointer.commit(RUN, 5, Counter(n=5), TASKS)

    newest = Checkpoint(RUN, 5, Counter(n=5))  # its tasks are not stored
    assert await checkpointer.resume(str(RUN), known_step=4) == newest
    assert await checkpointer.resume_at(RUN, 4) == newest
