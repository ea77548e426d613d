"""A step is committed exactly once, however many workers try."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from s3_checkpoint import ActiveSnapshot, Checkpoint, S3Checkpointer, StepConflictError
from s3_checkpoint.object_store import ObjectStore
from tests.states import RUN, Counter


@pytest.mark.parametrize(
    "round_", [n if n in (0, 1, 19) else pytest.param(n, marks=pytest.mark.long) for n in range(20)]
)
async def test_exactly_one_of_twenty_workers_wins(store: ObjectStore, round_: int) -> None:
    """19 are told who won, and `resume` shows the winner's state with the winner's active tasks."""
    workers = [S3Checkpointer(Counter, store) for _ in range(20)]
    run_id = uuid4()

    outcomes = await asyncio.gather(
        *(
            worker.commit(run_id, round_, Counter(n=n), [ActiveSnapshot(node_name="next", payload=n)])
            for n, worker in enumerate(workers)
        ),
        return_exceptions=True,
    )

    winners = [n for n, outcome in enumerate(outcomes) if outcome is None]
    losers = [outcome for outcome in outcomes if isinstance(outcome, StepConflictError)]
    assert (len(winners), len(losers)) == (1, 19)
    assert len({error.winner for error in losers}) == 1
    expected = Checkpoint(
        run_id, round_, Counter(n=winners[0]), (ActiveSnapshot(node_name="next", payload=winners[0]),)
    )
    assert await workers[0].resume(run_id) == expected


async def test_twenty_workers_with_the_same_content_all_succeed(store: ObjectStore) -> None:
    """They computed the same step; each may continue from it."""
    workers = [S3Checkpointer(Counter, store) for _ in range(20)]

    await asyncio.gather(*(worker.commit(RUN, 0, Counter(n=1), [ActiveSnapshot(node_name="a")]) for worker in workers))

    resumed = await workers[0].resume(RUN)
    assert resumed == Checkpoint(RUN, 0, Counter(n=1), (ActiveSnapshot(node_name="a"),))


async def test_the_same_state_with_other_tasks_is_a_conflict(store: ObjectStore) -> None:
    """Content is both: state and active tasks."""
    checkpointer = S3Checkpointer(Counter, store)
    await checkpointer.commit(RUN, 0, Counter(n=1), [ActiveSnapshot(node_name="a")])

    with pytest.raises(StepConflictError):
        await checkpointer.commit(RUN, 0, Counter(n=1), [ActiveSnapshot(node_name="b")])


async def test_a_saved_step_is_not_a_committed_one(store: ObjectStore) -> None:
    """A `commit` over a `save` is a conflict, even with the same state: the tasks are not bound to it."""
    checkpointer = S3Checkpointer(Counter, store)
    await checkpointer.save(RUN, 0, Counter(n=1))

    with pytest.raises(StepConflictError):
        await checkpointer.commit(RUN, 0, Counter(n=1), [])


async def test_a_save_over_a_commit_unbinds_its_tasks(store: ObjectStore) -> None:
    """The tasks of the commit belong to the state that is gone."""
    checkpointer = S3Checkpointer(Counter, store)
    await checkpointer.commit(RUN, 0, Counter(n=1), [ActiveSnapshot(node_name="a")])

    await checkpointer.save(RUN, 0, Counter(n=2))

    assert await checkpointer.load_active(RUN, 0) == []
    assert await checkpointer.resume(RUN) == Checkpoint(RUN, 0, Counter(n=2), ())


async def test_save_active_does_not_touch_a_committed_step(store: ObjectStore) -> None:
    """`load_active` gives what the state names."""
    checkpointer = S3Checkpointer(Counter, store)
    await checkpointer.commit(RUN, 0, Counter(n=1), [ActiveSnapshot(node_name="a")])

    await checkpointer.save_active(RUN, 0, [ActiveSnapshot(node_name="b")])

    assert await checkpointer.load_active(RUN, 0) == [ActiveSnapshot(node_name="a")]


async def test_no_active_tasks_are_committed_as_none(store: ObjectStore) -> None:
    """An empty list is bound to the step like any other."""
    checkpointer = S3Checkpointer(Counter, store)
    await checkpointer.save_active(RUN, 0, [ActiveSnapshot(node_name="stray")])
    await checkpointer.commit(RUN, 0, Counter(n=1), [])

    assert await checkpointer.load_active(RUN, 0) == []
    assert await checkpointer.resume(RUN) == Checkpoint(RUN, 0, Counter(n=1), ())
