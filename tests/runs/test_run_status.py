"""`RunAdmin.activity`: what becomes of each run, from the HEAD of its newest step."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from s3_checkpoint import (
    END,
    ActiveSnapshot,
    Graph,
    InvalidArgumentError,
    MemoryStore,
    Next,
    RunAdmin,
    RunStatus,
    S3Checkpointer,
    Task,
    run_to_end,
)
from s3_checkpoint.object_store import ObjectAttributes
from s3_checkpoint.testing.counting import Counting

State = dict[str, int]
MORNING = datetime(2026, 1, 1, 6, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = MORNING

    def __call__(self) -> datetime:
        return self.now


def tasks(*nodes: str, payload: Any = None) -> list[ActiveSnapshot]:
    return [ActiveSnapshot(node_name=node, payload=payload) for node in nodes]


RUNS: dict[str, tuple[Sequence[ActiveSnapshot], RunStatus, tuple[str, ...]]] = {
    "active": (tasks("write", "check", "write"), RunStatus.ACTIVE, ("write", "check")),
    "waiting": (tasks("check", "review"), RunStatus.WAITING, ("check", "review")),
    "finished": (tasks(END), RunStatus.FINISHED, ()),
    "without tasks": ([], RunStatus.FINISHED, ()),
    "large": (tasks("write", payload="x" * 2048), RunStatus.ACTIVE, ("write",)),
}


def run_of(name: str) -> UUID:
    return UUID(int=list(RUNS).index(name) + 1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def counting(clock: Clock) -> Counting:
    """An hour after each other, the runs."""
    counting = Counting(MemoryStore(now=clock))
    for name, (active, _, _) in RUNS.items():
        await S3Checkpointer(State, counting).commit(run_of(name), 3, {"n": 3}, active)
        clock.now += timedelta(hours=1)
    counting.reset()
    return counting


def admin(counting: Counting) -> RunAdmin[State]:
    return RunAdmin(S3Checkpointer(State, counting))


async def named(counting: Counting, **options: Any) -> list[str]:
    found = [activity async for activity in admin(counting).activity(**options)]
    return [list(RUNS)[activity.run_id.int - 1] for activity in found]


@pytest.mark.parametrize("name", RUNS)
async def test_status_and_next_nodes_come_from_the_head_of_the_newest_step(counting: Counting, name: str) -> None:
    """1 LIST and 1 HEAD; 1 GET for tasks that are not in its metadata."""
    found = await admin(counting).activity_of(str(run_of(name)), waiting_on=["review"])

    _, status, nodes = RUNS[name]
    assert (found.newest_step, found.status, found.next_nodes) == (3, status, nodes)
    assert found.last_modified == MORNING + timedelta(hours=list(RUNS).index(name))
    assert counting.taken() == {"LIST": 1, "HEAD": 1} | ({"GET": 1} if name == "large" else {})


async def test_a_run_waits_only_at_nodes_that_the_caller_names(counting: Counting) -> None:
    """Whether a node waits for a human is known to the application, not to the bucket."""
    assert await named(counting, status=RunStatus.WAITING) == []
    assert await named(counting, status="waiting", waiting_on={"review"}) == ["waiting"]
    assert await named(counting, status="active", waiting_on={"review"}) == ["active", "large"]


async def test_activity_is_filtered_by_status_node_and_time(counting: Counting) -> None:
    """Each by itself, and together."""
    assert await named(counting, status="finished") == ["finished", "without tasks"]
    assert await named(counting, node="write") == ["active", "large"]
    assert await named(counting, node="review") == ["waiting"]
    assert await named(counting, since=MORNING + timedelta(hours=2)) == ["finished", "without tasks", "large"]
    assert await named(counting, since=MORNING + timedelta(hours=2), status="active", node="write") == ["large"]


async def test_activity_costs_a_list_and_a_head_for_each_run(counting: Counting) -> None:
    """Filtered or not."""
    assert len(await named(counting)) == len(RUNS)
    whole = counting.taken()
    await named(counting, status="finished")

    assert whole == counting.taken() == {"LIST": 1 + len(RUNS), "HEAD": len(RUNS), "GET": 1}


async def test_filters_out_of_bounds_are_refused_before_any_request(counting: Counting) -> None:
    """No such status; a time without a zone."""
    for options in ({"status": "sleeping"}, {"since": datetime(2026, 1, 1)}, {"since": "2h"}):  # noqa: DTZ001
        with pytest.raises(InvalidArgumentError):
            await named(counting, **options)

    assert counting.taken() == {}


async def test_a_saved_step_has_the_status_of_its_saved_tasks(counting: Counting) -> None:
    """Without any, nothing tells: it may be finished, or resumed at the start node."""
    checkpointer = S3Checkpointer(State, counting)
    run = UUID(int=99)
    await checkpointer.save(run, 0, {"n": 0})

    assert (await admin(counting).activity_of(run)).status is None
    await checkpointer.save_active(run, 0, tasks("write"))
    assert (await admin(counting).activity_of(run)).next_nodes == ("write",)
    await checkpointer.save_active(run, 0, [])
    assert (await admin(counting).activity_of(run)).status is RunStatus.FINISHED


async def test_one_damaged_run_does_not_end_the_list(counting: Counting) -> None:
    """Its step and time are told; what runs next cannot be trusted."""
    key = S3Checkpointer(State, counting)._run(run_of("active")).state(3)
    stored = await counting.store.get(key, max_bytes=1000)
    assert stored is not None
    metadata = {**stored.head.attributes.metadata, "active-inline": "W10="}
    await counting.store.put(key, stored.body, ObjectAttributes(metadata=metadata), mode="overwrite")

    found = [activity async for activity in admin(counting).activity()]

    assert [activity.newest_step for activity in found] == [3] * len(RUNS)
    assert (found[0].status, found[0].next_nodes) == (None, None)


async def test_a_service_finds_the_unfinished_runs_at_its_start(counting: Counting) -> None:
    """And resumes no other."""
    checkpointer = S3Checkpointer(State, counting)

    async def last(state: State, task: Task) -> Next:
        return Next({"n": 1}, END)

    graph: Graph[State] = Graph(
        start="write", nodes={"write": last, "check": last, "review": last}, apply=lambda state, update: state | update
    )
    async for activity in RunAdmin(checkpointer).activity(waiting_on=["review"], status=RunStatus.ACTIVE):
        await run_to_end(checkpointer, graph, activity.run_id, interrupt_before=["review"])

    assert await named(counting, status="active", waiting_on=["review"]) == []
    assert await named(counting, status="waiting", waiting_on=["review"]) == ["waiting"]
