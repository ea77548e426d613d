"""Every order in which workers can meet, with faults at every request: the promises hold on all of them.

Each `Explorer` takes every sequence of requests and fates, with one fault in each sequence unless it says otherwise.
Some workers get a checkpointer that is wrong on purpose, to show that the explorer finds out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest
from pydantic import TypeAdapter

from s3_checkpoint import ActiveSnapshot, Checkpoint, S3Checkpointer, StepConflictError, StoreUnavailableError
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._runs.commit_protocol import CommitProtocol
from s3_checkpoint._runs.step_objects import StateObject
from s3_checkpoint.object_store import ObjectStore, Refused
from s3_checkpoint.testing import (
    Aim,
    AnswerLost,
    SlowDown503,
    SmallPages,
    state_put,
)
from tests.proofs.ledger import RUN, WORK, MakeCheckpointer, Promises, Work, Worker, tasks_of
from tests.proofs.scheduler import Explorer, Scenario, Violation, World

Program = Callable[[Worker], Coroutine[Any, Any, None]]


def workers(
    *programs: Program,
    make: MakeCheckpointer = S3Checkpointer,
    wrap: Callable[[ObjectStore], ObjectStore] = lambda store: store,
) -> Scenario:
    """One worker per program, all of them at once."""

    def scenario(world: World) -> Promises:
        promises = Promises(world)
        for program in programs:
            worker = Worker(promises, make=make, wrap=wrap)
            worker.start(program(worker))
        return promises

    return scenario


def commits(step: int, label: str) -> Program:
    async def program(worker: Worker) -> None:
        await worker.commit(step, label)

    return program


def commits_and_looks(step: int, label: str) -> Program:
    async def program(worker: Worker) -> None:
        await worker.commit(step, label)
        await worker.resume()

    return program


def continues(name: str, rounds: int) -> Program:
    """What an engine does: resume, run a superstep, commit the next one; a loser resumes."""

    async def program(worker: Worker) -> None:
        for _ in range(rounds):
            latest = await worker.resume()
            step = 0 if latest is None else latest + 1
            await worker.commit(step, f"{name}{step}")

    return program


def reads(step: int) -> Program:
    async def program(worker: Worker) -> None:
        await worker.resume()
        await worker.load(step)
        await worker.load_active(step)
        await worker.resume()

    return program


def saves(step: int, label: str, *, active: bool = False) -> Program:
    async def program(worker: Worker) -> None:
        if active:
            await worker.save_active(step, label)
        await worker.save(step, label)
        await worker.resume()

    return program


def after_steps(count: int, scenario: Scenario) -> Scenario:
    """The run has steps 0 … `count` - 1 before anybody starts."""

    def longer(world: World) -> Promises:
        before = S3Checkpointer(WORK, world.store)
        promises = cast("Promises", scenario(world))
        for step in range(count):
            asyncio.run(before.commit(RUN, step, Work(label=f"old{step}"), tasks_of(f"old{step}")))
            promises.offered[step].add(f"old{step}")
            promises.known[step], promises.floor = f"old{step}", step
        return promises

    return longer


def pages_of(keys: int) -> Callable[[ObjectStore], ObjectStore]:
    return lambda store: SmallPages(store, keys)


class TasksApart(S3Checkpointer[Work]):
    """Right: no tasks in metadata, so each commit writes its snapshot first."""

    def __init__(self, state_type: type[Work], store: ObjectStore, **options: Any) -> None:
        super().__init__(state_type, store, inline_tasks="never", **options)


class OneObject(S3Checkpointer[Work]):
    """Right: no copy of the tasks beside the state, so a commit is one PUT and more of them can be explored."""

    def __init__(self, state_type: type[Work], store: ObjectStore, **options: Any) -> None:
        super().__init__(state_type, store, snapshot_objects="when_large", **options)


RIVALS = workers(commits(5, "a"), commits(5, "b"), make=OneObject)
EXPLORED: dict[str, Explorer] = {
    "two rivals and two faults": Explorer(RIVALS, budget=2),
    "two rivals and the copies of their tasks": Explorer(workers(commits(5, "a"), commits(5, "b"))),
    "two rivals with tasks apart": Explorer(workers(commits(5, "a"), commits(5, "b"), make=TasksApart)),
    "two rivals who look": Explorer(workers(commits_and_looks(5, "a"), commits_and_looks(5, "b"), make=OneObject)),
    "the same content twice, and a rival": Explorer(
        workers(commits(5, "a"), commits(5, "a"), commits(5, "b"), make=OneObject)
    ),
    "two engines on one run": Explorer(workers(continues("a", 2), continues("b", 1), make=OneObject)),
    "two rivals and a reader": Explorer(workers(commits(5, "a"), commits(5, "b"), reads(5), make=OneObject), budget=0),
    "a commit and a reader": Explorer(workers(commits(5, "a"), reads(5))),
    "a commit with tasks apart and a reader": Explorer(workers(commits(5, "a"), reads(5), make=TasksApart)),
    "a commit and a save": Explorer(workers(commits(5, "a"), saves(5, "s"))),
    "a commit, a save and a reader": Explorer(
        workers(commits(5, "a"), saves(5, "s"), reads(5), make=OneObject), budget=0
    ),
    "a commit and a save with tasks": Explorer(workers(commits(5, "a"), saves(5, "s", active=True), make=OneObject)),
    "writes that land late": Explorer(
        workers(commits_and_looks(5, "a"), commits_and_looks(5, "b"), make=OneObject), ["late"]
    ),
    "saves that land late": Explorer(workers(commits(5, "a"), saves(5, "s"), make=OneObject), ["late"]),
}
WIDE = [
    "two rivals and the copies of their tasks",
    "the same content twice, and a rival",
    "a commit and a reader",
    "a commit and a save",
    "a commit, a save and a reader",
]
"""More than a few hundred schedules: at random here, in every order with the long tests."""
LONG: dict[str, Explorer] = {
    **{name: EXPLORED[name] for name in WIDE},
    "three rivals and the copies of their tasks": Explorer(
        workers(commits(5, "a"), commits(5, "b"), commits(5, "c")), budget=0
    ),
    "two rivals and three faults": Explorer(RIVALS, budget=3),
    "two engines, two rounds": Explorer(workers(continues("a", 2), continues("b", 2), make=OneObject)),
    "two rivals and a reader, faults": Explorer(workers(commits(5, "a"), commits(5, "b"), reads(5), make=OneObject)),
    "a commit and a reader, two faults": Explorer(workers(commits(5, "a"), reads(5), make=OneObject), budget=2),
    "two savers and a committer": Explorer(workers(commits(5, "a"), saves(5, "s", active=True), saves(5, "t"))),
}


@pytest.mark.parametrize(
    "name",
    [*(name for name in EXPLORED if name not in WIDE), *(pytest.param(name, marks=pytest.mark.long) for name in LONG)],
)
def test_the_promises_hold_in_every_order_with_every_fault(name: str) -> None:
    """No order of requests and no fault makes the library break its word."""
    report = (EXPLORED | LONG)[name].explore()

    print(report)
    assert report.schedules > 20


@pytest.mark.parametrize("name", WIDE)
def test_the_promises_hold_in_orders_at_random_with_faults(name: str) -> None:
    """The same, for those that are wide; always the same orders."""
    report = EXPLORED[name].sample(200, seed=0)  # in 100, not every wrong checkpointer is found out

    assert report.requests > 600


@pytest.mark.parametrize("count", [40, pytest.param(10_000, marks=pytest.mark.long)])
def test_the_promises_hold_while_the_latest_step_is_searched_for(count: int) -> None:
    """A long run is searched by many LISTs at once, between which others commit: orders by lot, always the same."""
    engines = workers(continues("a", 2), continues("b", 2), reads(9), wrap=pages_of(2))

    report = Explorer(after_steps(9, engines), budget=2).sample(count, seed=0)

    assert report.requests > 50 * count


def test_three_rivals_for_one_step_in_thousands_of_schedules() -> None:
    """Leaving out half of a scenario would be seen here: the counts are those of the algorithm, not of chance."""
    report = Explorer(workers(commits(5, "a"), commits(5, "b"), commits(5, "c"), make=OneObject)).explore()

    assert report.schedules > 1_500
    assert report.states > 1_500


class StateFirst(TasksApart):
    """Wrong: the state is visible before its tasks are."""

    async def commit(self, run_id: UUID | str, step: int, state: Work, active: Sequence[ActiveSnapshot]) -> None:
        run, ours = self._run(run_id), await self._objects.draft(state, active, self._commits.new_id())
        outcome = await self._objects.create_state(run, step, ours)
        if isinstance(outcome, Refused):
            theirs = await self._objects.get_state(run, step)
            if theirs is None or theirs.metadata.write_id != ours.metadata.write_id:
                raise StepConflictError(run.run_id, step, theirs.metadata.write_id if theirs else "")
        await self._objects.put_snapshot(run, step, ours)


class OneSnapshotKey(S3Checkpointer[Work]):
    """Wrong: every attempt writes its tasks to the same key."""

    async def commit(self, run_id: UUID | str, step: int, state: Work, active: Sequence[ActiveSnapshot]) -> None:
        await self.save_active(run_id, step, active)
        run, ours = self._run(run_id), await self._objects.draft(state, [], self._commits.new_id())
        metadata = replace(ours.metadata, active="", active_digest="", active_inline="")
        attributes = replace(ours.state_attributes, metadata=metadata.build())
        outcome = await self._objects.create_state(run, step, ours._replace(state_attributes=attributes))
        if isinstance(outcome, Refused):
            theirs = await self._objects.get_state(run, step)
            if theirs is None or theirs.metadata.write_id != metadata.write_id:
                raise StepConflictError(run.run_id, step, theirs.metadata.write_id if theirs else "")


class _Believing(CommitProtocol[Work]):
    async def _read_back(self, run: RunKeys, step: int) -> StateObject | None:
        raise StepConflictError(run.run_id, step, "")


class BelievesRefusals(S3Checkpointer[Work]):
    """Wrong: 412 is taken for another's success."""

    def __init__(self, state_type: type[Work], store: ObjectStore, **options: Any) -> None:
        super().__init__(state_type, store, **options)
        self._commits.__class__ = _Believing


class Unconditional(S3Checkpointer[Work]):
    """Wrong: the last writer wins, and the first was told that it had."""

    async def commit(self, run_id: UUID | str, step: int, state: Work, active: Sequence[ActiveSnapshot]) -> None:
        run, ours = self._run(run_id), await self._objects.draft(state, active, self._commits.new_id())
        await self._objects.put_snapshot(run, step, ours)
        await self._objects.store.put(run.state(step), ours.state, ours.state_attributes, mode="overwrite")


class ForgetsTheTasks(S3Checkpointer[Work]):
    """Wrong: resume shows the tasks of `save_active`, whichever call committed the step."""

    async def resume(self, run_id: UUID | str, *, known_step: int | None = None) -> Checkpoint[Work] | None:
        found = await super().resume(run_id, known_step=known_step)
        if found is None:
            return None
        saved = await self._objects.store.get(self._run(run_id).active(found.step), max_bytes=10_000)
        return found if saved is None else replace(found, active=tuple(tasks_in(saved.body)))


def tasks_in(body: bytes) -> list[ActiveSnapshot]:
    return TypeAdapter(list[ActiveSnapshot]).validate_json(body)


@pytest.mark.parametrize(
    ("wrong", "scenario", "story"),
    [
        (StateFirst, workers(commits(5, "a"), reads(5), make=StateFirst), "StateDecodingError|lost step 5"),
        (OneSnapshotKey, workers(commits(5, "a"), commits(5, "b"), make=OneSnapshotKey), "pairs the state"),
        (BelievesRefusals, workers(commits(5, "a"), commits(5, "b"), make=BelievesRefusals), "lost step 5 to"),
        (Unconditional, workers(commits(5, "a"), commits(5, "b"), make=Unconditional), "and then committed"),
        (
            ForgetsTheTasks,
            workers(commits_and_looks(5, "a"), saves(5, "s", active=True), make=ForgetsTheTasks),
            "pairs the state",
        ),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_wrong_checkpointer_is_found_out(wrong: type, scenario: Scenario, story: str) -> None:
    """The explorer can fail: it reports the violation and prints the schedule that leads to it."""
    with pytest.raises(Violation) as found:
        Explorer(scenario).explore()

    assert re.search(story, str(found.value))
    assert "\nschedule:\n  worker " in str(found.value)


async def test_nothing_was_written_is_said_only_when_it_is_so(store: ObjectStore) -> None:
    """Story: the PUT landed, its repeat was refused, the GET failed, and the error said that nothing was written."""
    faulty = SlowDown503(AnswerLost(store, state_put()), Aim("GetObject"))
    checkpointer = S3Checkpointer(Work, faulty)

    with pytest.raises(StoreUnavailableError) as caught:
        await checkpointer.commit(RUN, 5, Work(label="a"), tasks_of("a"))

    assert caught.value.outcome_unknown
    assert await S3Checkpointer(Work, store).load(RUN, 5) == Work(label="a")
