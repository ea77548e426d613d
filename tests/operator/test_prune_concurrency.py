"""Pruning while workers commit: every order of their requests is played, and none loses or breaks a step."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest

from s3_checkpoint import ActiveSnapshot, MemoryStore, S3Checkpointer, StateDecodingError, StepConflictError
from s3_checkpoint.run_admin import RunAdmin
from tests.operator.stores import EverySchedule, Turns

RUN = UUID(int=7)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
State = dict[str, int]
Work = Callable[[S3Checkpointer[State], RunAdmin[State]], list[Coroutine[Any, Any, object]]]


def task(name: str) -> list[ActiveSnapshot]:
    return [ActiveSnapshot(node_name=name)]


async def committed(store: MemoryStore, steps: list[int]) -> None:
    checkpointer: S3Checkpointer[State] = S3Checkpointer(State, store)
    for step in steps:
        await checkpointer.commit(RUN, step, {"n": step}, task(f"after-{step}"))


class Watcher:
    """Looks at the run between any two requests, as a worker that resumes just then would."""

    def __init__(self, store: MemoryStore) -> None:
        self._checkpointer: S3Checkpointer[State] = S3Checkpointer(State, store)
        self.newest = -1

    async def look(self) -> None:
        found = await self._checkpointer.resume(RUN)
        assert found is not None
        assert found.step >= self.newest, "the newest step is gone"
        assert found.active, "the step has lost its tasks"
        self.newest = found.step

    async def every_step_is_whole(self) -> None:
        for step in await self._checkpointer.list(RUN):
            assert await self._checkpointer.load_active(RUN, step), f"step {step} has lost its tasks"


async def play(steps: list[int], work: Work, choose: Callable[[int], int]) -> tuple[MemoryStore, list[object]]:
    store = MemoryStore(now=lambda: NOW)
    await committed(store, steps)
    turns, watcher = Turns(store, choose), Watcher(store)
    ids = iter(f"write-{n}" for n in range(100))
    worker: S3Checkpointer[State] = S3Checkpointer(State, turns, new_id=lambda: next(ids), sleep=no_pause)
    results = await turns.play(*work(worker, RunAdmin(worker, now=lambda: NOW)), after_each=watcher.look)
    await watcher.every_step_is_whole()
    return store, results


async def no_pause(_: float) -> None:
    """Repeats of a refused commit follow at once."""


def a_commit_of_the_next_step(
    worker: S3Checkpointer[State], admin: RunAdmin[State]
) -> list[Coroutine[Any, Any, object]]:
    return [worker.commit(RUN, 3, {"n": 3}, task("next")), admin.prune(RUN, keep_last=1)]


def two_commits_of_the_next_step(
    worker: S3Checkpointer[State], admin: RunAdmin[State]
) -> list[Coroutine[Any, Any, object]]:
    return [*a_commit_of_the_next_step(worker, admin), worker.commit(RUN, 3, {"n": 33}, task("other"))]


def a_late_commit_below_the_newest(
    worker: S3Checkpointer[State], admin: RunAdmin[State]
) -> list[Coroutine[Any, Any, object]]:
    return [worker.commit(RUN, 1, {"n": 1}, task("late")), admin.prune(RUN, keep_last=1)]


def a_loser_whose_step_is_pruned(
    worker: S3Checkpointer[State], admin: RunAdmin[State]
) -> list[Coroutine[Any, Any, object]]:
    return [worker.commit(RUN, 0, {"n": 100}, task("loser")), admin.prune(RUN, keep_last=1)]


@pytest.mark.parametrize(
    ("steps", "work", "schedules"),
    [
        ([1, 2], a_commit_of_the_next_step, 20),
        pytest.param([1, 2], two_commits_of_the_next_step, 1000, marks=pytest.mark.long),
        ([0, 2], a_late_commit_below_the_newest, 20),
        ([0, 2], a_loser_whose_step_is_pruned, 20),
    ],
)
async def test_no_order_of_requests_loses_the_newest_step_or_a_snapshot(
    steps: list[int], work: Work, schedules: int
) -> None:
    """All of them are played; after every single request the run resumes, no older than before."""
    orders = EverySchedule()

    more = True
    while more:
        _, results = await play(steps, work, orders)
        assert not [r for r in results if isinstance(r, Exception) and not isinstance(r, StepConflictError)]
        more = orders.next()

    assert orders.played >= schedules


@pytest.mark.parametrize("seed", range(150))
async def test_two_janitors_and_three_workers_in_random_order(seed: int) -> None:
    """With everybody at once, each step has one winner, and what is left is whole."""

    def everybody(worker: S3Checkpointer[State], admin: RunAdmin[State]) -> list[Coroutine[Any, Any, object]]:
        async def superstep(mark: int) -> None:
            for step in (4, 5, 6):
                try:
                    await worker.commit(RUN, step, {"n": step, "by": mark}, task(f"{mark}"))
                except StepConflictError:
                    continue

        return [
            *(superstep(mark) for mark in range(3)),
            admin.prune(RUN, keep_last=2),
            admin.prune(RUN, keep_last=1),
        ]

    store, results = await play([0, 1, 2, 3], everybody, Random(seed).randrange)

    assert not [r for r in results if isinstance(r, Exception)]
    latest = await S3Checkpointer(State, store).resume(RUN)
    assert latest is not None
    assert latest.step == 6


async def test_the_watcher_sees_a_snapshot_taken_too_early() -> None:
    """Without the grace period, some order does break a step: so the other tests can fail."""

    def hasty(worker: S3Checkpointer[State], admin: RunAdmin[State]) -> list[Coroutine[Any, Any, object]]:
        return [
            worker.commit(RUN, 1, {"n": 1}, task("late")),
            admin.prune(RUN, keep_last=1, grace=timedelta(0)),
        ]

    assert await _some_order_breaks([0, 2], hasty)


async def _some_order_breaks(steps: list[int], work: Work) -> bool:
    orders = EverySchedule()
    while True:
        try:
            await play(steps, work, orders)
        except StateDecodingError:
            return True
        if not orders.next():
            return False
