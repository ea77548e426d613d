"""One superstep per call: resume, run the active tasks, merge their updates, commit.

A process that runs supersteps keeps nothing between them, so every call can be made by another one: a Lambda function,
a worker on a spot instance, a server. Whoever dies in the middle has changed nothing; the next call does the superstep
again. **A task can therefore run more than once**, while its update counts once: give side effects the task's
`idempotency_key`.

    graph = Graph(start="add", nodes={"add": add}, apply=lambda state, update: state | update)
    advance = await run_superstep(checkpointer, graph, run_id, initial={"n": 0})

Steps of a run: 0 is the initial state with the start node active, each further one the result of a superstep; the last
has the one active task `__end__`, so that "finished" is never mistaken for "nothing stored".
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, runtime_checkable
from uuid import UUID

from s3_checkpoint.checkpointer import Checkpointer
from s3_checkpoint.errors import ConfigurationError, InvalidArgumentError, StepConflictError
from s3_checkpoint.graph import END, Graph, Next, Task
from s3_checkpoint.keys import check_run_id
from s3_checkpoint.models import ActiveSnapshot, Checkpoint, StateT

NO_STEP: Final = -1
"""The `expected_step` of a run that is not stored yet."""


@dataclass(frozen=True, slots=True)
class Advance(Generic[StateT]):
    """Where the run stands after a call: its newest step, whoever committed it."""

    run_id: UUID
    step: int
    state: StateT
    active: tuple[ActiveSnapshot, ...]
    """What runs next; the one task `__end__` if nothing does."""
    committed: bool
    """Whether this call wrote the step."""
    superseded: bool = False
    """Whether another worker was first: at committing the step, or before this call began (`expected_step`)."""

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return [task.node_name for task in self.active] == [END]


class Interrupted(Advance[StateT]):
    """The run waits before a node of `interrupt_before`; everything up to there is committed."""

    __slots__ = ()


@runtime_checkable
class _Commits(Protocol):
    """What `S3Checkpointer` has beyond the trait."""

    async def commit(self, run_id: UUID, step: int, state: Any, active: Sequence[ActiveSnapshot]) -> None: ...

    async def resume(self, run_id: UUID) -> Checkpoint[Any] | None: ...


@runtime_checkable
class _Confirms(Protocol):
    """What tells, beyond `commit`, who wrote the step."""

    async def commit_or_confirm(
        self, run_id: UUID, step: int, state: Any, active: Sequence[ActiveSnapshot]
    ) -> bool: ...


async def run_superstep(
    checkpointer: Checkpointer[StateT],
    graph: Graph[StateT],
    run_id: UUID,
    *,
    initial: StateT | None = None,
    expected_step: int | None = None,
    interrupt_before: Collection[str] = (),
    resume: bool = False,
    update: Any = None,
) -> Advance[StateT]:
    """The run is one step further, or as it was if there was nothing to do: finished, interrupted, or late.

    A run that is not stored yet begins: `initial` is committed as step 0, with the start node active, and nothing runs
    yet. Else the active tasks of the newest step run concurrently, each on its own copy of the state, and their updates
    merge in task order; without active tasks (a checkpointer that stores none) the start node runs.

    `expected_step` is the newest step the caller knows of (`NO_STEP`: none): if the run is past it, nothing runs and
    the answer is `superseded`. `interrupt_before` names nodes to stop before: the superstep that leads there is
    committed, and the answer is `Interrupted` until a call with `resume=True` continues at exactly those tasks;
    `update`, if not None, is merged into the state before they see it.

    Requests: those of `resume` (1 LIST and 2 GETs for up to 1,000 steps) and the 2 PUTs of `commit`; when another
    worker commits first, 1 HEAD and those of `resume` once more. A checkpointer without `commit` and `resume` gets
    `list`, `load` and `load_active`, then `save_active` and `save`, and two workers are not kept apart.

    What a task raises comes through, with a note that names the task; the other tasks are cancelled. Else
    `InvalidArgumentError` (no step and no `initial`; `expected_step` ahead of the run; `update` without `resume`),
    `ConfigurationError` (a node that the graph does not have, or one that does not return `Next`), and the errors of
    `commit` and `resume`. After all of these nothing was committed, but `StoreUnavailableError` can leave it unknown.
    """
    run_id = check_run_id(run_id)
    graph.check(interrupt_before, "interrupt_before names")
    if update is not None and not resume:
        raise InvalidArgumentError("update", repr(update)[:80], "goes with resume=True")
    newest = await _newest(checkpointer, graph, run_id)
    at = NO_STEP if newest is None else newest.step
    if expected_step is not None and at < expected_step:
        where = "has no step" if newest is None else f"is at step {at}"
        raise InvalidArgumentError("expected_step", str(expected_step), f"is ahead of run {run_id}, which {where}")
    if newest is None:
        if initial is None:
            raise InvalidArgumentError("initial", "None", f"is needed: run {run_id} has no step yet")
        first = Checkpoint(run_id, 0, initial, (ActiveSnapshot(node_name=graph.start),))
        return await _commit(checkpointer, graph, first, interrupt_before)
    if expected_step is not None and at > expected_step:
        return _standing(newest, interrupt_before, superseded=True)
    return await _advance(checkpointer, graph, newest, interrupt_before, resume=resume, update=update)


async def run_to_end(
    checkpointer: Checkpointer[StateT],
    graph: Graph[StateT],
    run_id: UUID,
    *,
    initial: StateT | None = None,
    interrupt_before: Collection[str] = (),
    resume: bool = False,
    update: Any = None,
    max_supersteps: int = 10_000,
) -> Advance[StateT]:
    """The run is finished, interrupted, or `max_supersteps` (1 or more) further: the answer says which.

    For servers and tests: as `run_superstep` over and over, but resuming only once; each superstep then costs the 2
    PUTs of its commit. When another worker is first at a step, it goes on from what that one committed. Arguments and
    errors are those of `run_superstep`; what was committed before an error stays, and the next call goes on from it.
    """
    if max_supersteps < 1:
        raise InvalidArgumentError("max_supersteps", str(max_supersteps), "must be 1 or more")
    at = await run_superstep(
        checkpointer,
        graph,
        run_id,
        initial=initial,
        interrupt_before=interrupt_before,
        resume=resume,
        update=update,
    )
    done = 0 if at.step == 0 else 1
    while not (at.finished or isinstance(at, Interrupted)) and done < max_supersteps:
        reached = Checkpoint(at.run_id, at.step, at.state, at.active)
        at = await _advance(checkpointer, graph, reached, interrupt_before)
        done += 1
    return at


async def _advance(
    checkpointer: Checkpointer[StateT],
    graph: Graph[StateT],
    newest: Checkpoint[StateT],
    interrupt_before: Collection[str],
    *,
    resume: bool = False,
    update: Any = None,
) -> Advance[StateT]:
    """Runs the active tasks of `newest` and commits what comes of them, unless there is nothing to run."""
    standing = _standing(newest, interrupt_before)
    if standing.finished or (isinstance(standing, Interrupted) and not resume):
        return standing
    graph.check((task.node_name for task in newest.active), f"run {newest.run_id} at step {newest.step} waits for")
    state = newest.state if update is None else graph.apply(newest.state, update)
    results = await _run_tasks(graph, newest, state)
    active = graph.following(newest.active, results)
    for result in results:
        if result.update is not None:
            state = graph.apply(state, result.update)
    reached = Checkpoint(newest.run_id, newest.step + 1, state, tuple(active))
    return await _commit(checkpointer, graph, reached, interrupt_before)


async def _run_tasks(graph: Graph[StateT], newest: Checkpoint[StateT], state: StateT) -> list[Next]:
    async def run(task: Task) -> Next:
        # A copy each: what one node does to its state reaches nobody, and nothing but updates reaches the store.
        try:
            result: object = await graph.nodes[task.node_name](copy.deepcopy(state), task)
        except Exception as error:
            error.add_note(f"in node `{task.node_name}`, task {task.index} of step {task.step}, run {task.run_id}")
            raise
        if not isinstance(result, Next):
            raise ConfigurationError(f"node `{task.node_name}` must return Next, and returned {type(result).__name__}")
        return result

    running = [
        asyncio.ensure_future(run(Task(newest.run_id, newest.step + 1, index, task.node_name, task.payload)))
        for index, task in enumerate(newest.active)
    ]
    try:
        return await asyncio.gather(*running)
    finally:
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _newest(checkpointer: Checkpointer[StateT], graph: Graph[StateT], run_id: UUID) -> Checkpoint[StateT] | None:
    """The newest step, with the start node active where none is stored; None for a run without steps."""
    found: Checkpoint[StateT] | None = None
    if isinstance(checkpointer, _Commits):
        found = await checkpointer.resume(run_id)
    elif steps := await checkpointer.list(run_id):
        state = await checkpointer.load(run_id, steps[-1])
        if state is not None:
            found = Checkpoint(run_id, steps[-1], state, tuple(await checkpointer.load_active(run_id, steps[-1])))
    if found is not None and not found.active:
        return Checkpoint(run_id, found.step, found.state, (ActiveSnapshot(node_name=graph.start),))
    return found


async def _commit(
    checkpointer: Checkpointer[StateT],
    graph: Graph[StateT],
    reached: Checkpoint[StateT],
    interrupt_before: Collection[str],
) -> Advance[StateT]:
    if not isinstance(checkpointer, _Commits):
        # The state last: it is what makes the step visible.
        await checkpointer.save_active(reached.run_id, reached.step, reached.active)
        await checkpointer.save(reached.run_id, reached.step, reached.state)
        return _standing(reached, interrupt_before, committed=True)
    try:
        if isinstance(checkpointer, _Confirms):
            wrote = await checkpointer.commit_or_confirm(reached.run_id, reached.step, reached.state, reached.active)
        else:
            await checkpointer.commit(reached.run_id, reached.step, reached.state, reached.active)
            wrote = True
    except StepConflictError:
        newest = await _newest(checkpointer, graph, reached.run_id)
        if newest is None:  # the whole run has just been deleted
            raise
        return _standing(newest, interrupt_before, superseded=True)
    return _standing(reached, interrupt_before, committed=wrote, superseded=not wrote)


def _standing(
    at: Checkpoint[StateT], interrupt_before: Collection[str], *, committed: bool = False, superseded: bool = False
) -> Advance[StateT]:
    waits = any(task.node_name in interrupt_before for task in at.active)
    kind: type[Advance[StateT]] = Interrupted if waits else Advance
    return kind(at.run_id, at.step, at.state, at.active, committed=committed, superseded=superseded)
