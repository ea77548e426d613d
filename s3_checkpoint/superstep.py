"""One superstep per call: resume, run the active tasks, merge their updates, commit.

A process that runs supersteps keeps nothing between them, so every call can be made by another one: a Lambda function,
a worker on a spot instance, a server. A worker that dies in the middle has changed nothing; the next call does the
superstep again. **A task can therefore run more than once**, while its update counts once: give side effects the task's
`idempotency_key`.

    graph = Graph(start="add", nodes={"add": add}, apply=lambda state, update: state | update)
    advance = await run_superstep(checkpointer, graph, run_id, initial={"n": 0})

Steps of a run: 0 is the initial state with the start node active, each further one the result of a superstep; the last
has the one active task `__end__`, so that "finished" is never mistaken for "nothing stored".
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Generic
from uuid import UUID

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._format.keys import check_run_id
from s3_checkpoint.checkpointer import Checkpointer, S3Checkpointer
from s3_checkpoint.errors import ConfigurationError, InvalidArgumentError, StepConflictError
from s3_checkpoint.graph import END, Graph, Next, Task, check_graph
from s3_checkpoint.models import ActiveSnapshot, Checkpoint, Overtaken, StateT

NO_STEP: Final = -1
"""The `expected_step` of a run that is not stored yet."""
MAX_STEPS: Final = 10_000
"""The highest step a run may reach, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class Advance(Generic[StateT]):
    """Where the run is after a call: its newest step, whichever worker committed it."""

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
        return is_end(self.active)


class Interrupted(Advance[StateT]):
    """The run waits before a node of `interrupt_before`; everything up to there is committed.

    Its `step` is what `resume_from` takes.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Blocked:
    """A run that no call can take further: its steps are gone, or it is at the highest step allowed."""

    run_id: UUID
    step: int
    """The step that the caller knows of, or the one the run is at."""
    gone: bool
    told_by: str
    """The argument that tells."""


async def run_superstep(
    checkpointer: Checkpointer[StateT],
    graph: Graph[StateT],
    run_id: UUID | str,
    *,
    initial: StateT | None = None,
    expected_step: int | None = None,
    interrupt_before: Collection[str] = (),
    resume_from: int | None = None,
    update: Any = None,
    max_steps: int = MAX_STEPS,
    lease_ttl_s: float | None = None,
) -> Advance[StateT]:
    """The run is one step further, or as it was if there was nothing to do: finished, interrupted, or late.

    A run that is not stored yet begins: `initial` is committed as step 0, with the start node active, and nothing runs
    yet. Else the active tasks of the newest step run concurrently, each on its own copy of the state, and their updates
    merge in task order; without active tasks (a checkpointer that stores none) the start node runs.

    An interrupt is answered once: a call with `resume_from`, the step of the `Interrupted`, continues at exactly those
    tasks. The same call again, after a lost answer or by a second click, finds the run past that step: the answer is
    `superseded`, and nothing of it is applied. So is an answer that another one overtakes at the commit, and an answer
    to a step that waits for nobody.

    Requests:
        Those of `resume` (1 LIST and 1 GET for up to 1,000 steps) and the 2 PUTs of `commit`. With `expected_step` or
        `resume_from`, 1 GET and 1 HEAD, sent together, instead of the LIST and the GET; those of `resume` after them if
        the run is past that step. When another worker commits first, 2 GETs and 1 HEAD. 1 GET more where tasks are not
        inline. Of a checkpointer that has only the trait's calls, those of the defaults of `resume` and `commit`: two
        workers are not kept apart. With `lease_ttl_s` also those of a `lease.Lease`: 1 GET and 1 PUT before, 1 PUT
        after; if another worker holds it, 1 GET and nothing else.

    Args:
        checkpointer: Where the run is stored.
        graph: What runs.
        run_id: The run; a UUID or its text.
        initial: The state of step 0, for a run that is not stored yet.
        expected_step: The newest step the caller knows of (`NO_STEP`: none). If the run is past it, nothing runs and
            the answer is `superseded`. `resume_from` implies it.
        interrupt_before: Nodes to stop before: the superstep that leads there is committed, and the answer is
            `Interrupted`. Whether a run waits is told by these names alone, so an answer needs them too.
        resume_from: The step whose interrupt this call answers.
        update: What the human said, merged into the state before the tasks see it; None: nothing. Needs `resume_from`.
        max_steps: The highest step a run may reach, 1 or more: a graph that goes in a circle ends there.
        lease_ttl_s: Seconds (1 … 86,400) of a lease on the run, held and renewed during the call: no node runs in two
            workers at once. Needs an `S3Checkpointer`. Default: no lease; `commit` alone decides who was first.

    Returns:
        The newest step of the run, whichever worker committed it.

    Raises:
        InvalidArgumentError: No step and no `initial`; `expected_step` or `resume_from` ahead of the run; `update`
            without `resume_from`; `resume_from` without `interrupt_before`, at a run that is at that step; the run is
            at `max_steps`, and not finished. Nothing was written.
        ConfigurationError: A node that the graph does not have, or one that does not return `Next`; `lease_ttl_s` for a
            checkpointer or a store that has no leases. Nothing was written.
        LeaseHeldError: Another worker holds the lease, and nothing ran; or the lease was lost, and the tasks were
            cancelled, unless the step was committed just then: calling again tells.
        Exception: What a task raises, with a note that names the task, once the other tasks are cancelled; nothing was
            written. And the errors of `commit` and `resume`: `StoreUnavailableError` can leave it unknown whether the
            step was written.
    """
    async with held_for_superstep(checkpointer, run_id, lease_ttl_s):
        reached = await attempt_superstep(
            checkpointer,
            graph,
            run_id,
            initial=initial,
            expected_step=expected_step,
            interrupt_before=interrupt_before,
            resume_from=resume_from,
            update=update,
            max_steps=max_steps,
        )
    if isinstance(reached, Overtaken):
        newest = await _newest(checkpointer, graph, reached.run_id)
        if newest is not None:
            return _reached(newest, interrupt_before, superseded=True)
        reached = Blocked(reached.run_id, reached.step, gone=True, told_by=_told_by(resume_from))
    if isinstance(reached, Blocked):
        raise _blocked(reached)
    return reached


def _told_by(resume_from: int | None) -> str:
    """The argument that tells the step the caller knows of."""
    return "expected_step" if resume_from is None else "resume_from"


async def run_to_end(
    checkpointer: Checkpointer[StateT],
    graph: Graph[StateT],
    run_id: UUID | str,
    *,
    initial: StateT | None = None,
    interrupt_before: Collection[str] = (),
    resume_from: int | None = None,
    update: Any = None,
    max_supersteps: int | None = None,
    max_steps: int = MAX_STEPS,
) -> Advance[StateT]:
    """The run is finished, interrupted, or `max_supersteps` further: the answer says which.

    For servers and tests: as `run_superstep` over and over, but answering an interrupt only once. When another worker
    is first at a step, it continues from what that one committed. An answer that is `superseded` ends the call at once,
    with nothing applied: to continue with what the run has become, call again without `resume_from`.

    Requests:
        Those of `run_superstep`; each further superstep costs the 2 PUTs of its commit.

    Args:
        checkpointer: Where the run is stored.
        graph: What runs.
        run_id: The run.
        initial: As for `run_superstep`.
        interrupt_before: As for `run_superstep`.
        resume_from: As for `run_superstep`.
        update: As for `run_superstep`.
        max_supersteps: How many supersteps this call makes at most, 1 or more. Default: no bound but `max_steps`.
        max_steps: As for `run_superstep`.

    Returns:
        The newest step of the run, whichever worker committed it.

    Raises:
        InvalidArgumentError: As `run_superstep`, also for `max_steps`: what was committed before it stays.
        ConfigurationError: As `run_superstep`.
        Exception: As `run_superstep`. What was committed before stays, and the next call continues from it.
    """
    if max_supersteps is not None and max_supersteps < 1:
        raise InvalidArgumentError("max_supersteps", str(max_supersteps), "must be 1 or more")
    at = await run_superstep(
        checkpointer,
        graph,
        run_id,
        initial=initial,
        interrupt_before=interrupt_before,
        resume_from=resume_from,
        update=update,
        max_steps=max_steps,
    )
    if resume_from is not None and at.superseded:
        return at
    done = 0 if at.step == 0 else 1
    while not (at.finished or isinstance(at, Interrupted)) and (max_supersteps is None or done < max_supersteps):
        reached = Checkpoint(at.run_id, at.step, at.state, at.active)
        further = await _advance(checkpointer, graph, reached, interrupt_before, max_steps)
        if isinstance(further, Blocked):
            raise _blocked(further)
        at = further
        done += 1
    return at


def held_for_superstep(
    checkpointer: Checkpointer[Any], run_id: UUID | str, ttl_s: float | None, *, at_most_s: float | None = None
) -> AbstractAsyncContextManager[object]:
    """A lease on the run, or nothing to be held if `ttl_s` is None."""
    if ttl_s is None:
        return contextlib.nullcontext()
    if not isinstance(checkpointer, S3Checkpointer):
        raise ConfigurationError(f"lease_ttl_s needs an S3Checkpointer, and this is a {type(checkpointer).__name__}")
    from s3_checkpoint.lease import lease

    return lease(checkpointer, run_id, ttl_s, purpose="superstep", at_most_s=at_most_s)


async def attempt_superstep(
    checkpointer: Checkpointer[StateT],
    graph: Graph[StateT],
    run_id: UUID | str,
    *,
    initial: StateT | None,
    expected_step: int | None,
    interrupt_before: Collection[str],
    resume_from: int | None,
    update: Any,
    max_steps: int,
) -> Advance[StateT] | Blocked | Overtaken:
    """`run_superstep`, but `Blocked` where no call of any worker can continue, and `Overtaken` where the run is ahead.

    `Overtaken` is in place of an `Advance` that is `superseded`, and saves reading the newest step.
    """
    check_graph(graph)
    run_id = check_run_id(run_id)
    graph.check(interrupt_before, "interrupt_before names")
    _check_bounds(expected_step, resume_from, update, max_steps)
    told_by, known = _told_by(resume_from), expected_step if resume_from is None else resume_from
    if known is None or known == NO_STEP:
        newest = await _newest(checkpointer, graph, run_id)
    else:
        found = await checkpointer.resume_at(run_id, known)
        if isinstance(found, Overtaken):
            return found
        newest = _with_start(graph, found)
    if newest is None:
        if known is not None and known != NO_STEP:
            return Blocked(run_id, known, gone=True, told_by=told_by)
        if initial is None:
            raise InvalidArgumentError("initial", "None", f"is needed: run {run_id} has no step yet")
        first = Checkpoint(run_id, 0, initial, (ActiveSnapshot(node_name=graph.start),))
        return await _commit(checkpointer, graph, first, interrupt_before)
    if known is not None and newest.step < known:
        raise InvalidArgumentError(told_by, str(known), f"is ahead of run {run_id}, which is at step {newest.step}")
    if known is not None and newest.step > known:
        return _reached(newest, interrupt_before, superseded=True)
    if resume_from is not None:
        waits = _reached(newest, interrupt_before, superseded=True)
        if not interrupt_before and not waits.finished:
            raise InvalidArgumentError(
                "interrupt_before", "()", "must name the nodes to stop before, as the call that stopped there did"
            )
        if waits.finished or not isinstance(waits, Interrupted):
            return waits
    return await _advance(
        checkpointer, graph, newest, interrupt_before, max_steps, answered=resume_from is not None, update=update
    )


def check_max_steps(max_steps: int) -> None:
    """Raises `InvalidArgumentError` unless it is an int of 1 or more."""
    if type(max_steps) is not int or max_steps < 1:
        raise InvalidArgumentError("max_steps", repr(max_steps)[:80], "must be an int of 1 or more")


def _check_bounds(expected_step: int | None, resume_from: int | None, update: Any, max_steps: int) -> None:
    check_max_steps(max_steps)
    if resume_from is not None:
        if type(resume_from) is not int or resume_from < 0:
            kind = repr(resume_from)[:80] if type(resume_from) in (int, bool) else type(resume_from).__name__
            raise InvalidArgumentError("resume_from", kind, "must be a step: the one whose interrupt is answered")
        if expected_step not in (None, resume_from):
            raise InvalidArgumentError("expected_step", str(expected_step), "must be that of resume_from, or left out")
    elif update is not None:
        raise InvalidArgumentError("update", type(update).__name__, "goes with resume_from, the step it answers")


def _blocked(why: Blocked) -> InvalidArgumentError:
    """Why `run_superstep` cannot continue, as an error."""
    if why.gone:
        return InvalidArgumentError(why.told_by, str(why.step), f"is ahead of run {why.run_id}, which has no step")
    return InvalidArgumentError(
        why.told_by,
        str(why.step),
        f"is reached: run {why.run_id} is at step {why.step} and not finished. If its graph does not go in a circle, "
        "call again with a larger max_steps",
    )


async def _advance(
    checkpointer: Checkpointer[StateT],
    graph: Graph[StateT],
    newest: Checkpoint[StateT],
    interrupt_before: Collection[str],
    max_steps: int,
    *,
    answered: bool = False,
    update: Any = None,
) -> Advance[StateT] | Blocked:
    """Runs the active tasks of `newest` and commits what comes of them, unless there is nothing to run."""
    at = _reached(newest, interrupt_before)
    if at.finished or (isinstance(at, Interrupted) and not answered):
        return at
    if newest.step >= max_steps:
        return Blocked(newest.run_id, newest.step, gone=False, told_by="max_steps")
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
            with contextlib.suppress(AttributeError):  # a frozen dataclass takes no notes
                error.add_note(f"in node `{task.node_name}`, task {task.index} of step {task.step}, run {task.run_id}")
            raise
        if not isinstance(result, Next):
            raise ConfigurationError(f"node `{task.node_name}` must return Next, and returned {type(result).__name__}")
        return result

    tasks = (
        Task(newest.run_id, newest.step + 1, index, task.node_name, task.payload)
        for index, task in enumerate(newest.active)
    )
    return await gather_bounded((run(task) for task in tasks), limit=len(newest.active))


async def _newest(checkpointer: Checkpointer[StateT], graph: Graph[StateT], run_id: UUID) -> Checkpoint[StateT] | None:
    """The newest step, with the start node active where none is stored; None for a run without steps."""
    return _with_start(graph, await checkpointer.resume(run_id))


def _with_start(graph: Graph[StateT], found: Checkpoint[StateT] | None) -> Checkpoint[StateT] | None:
    if found is not None and not found.active:
        return Checkpoint(found.run_id, found.step, found.state, (ActiveSnapshot(node_name=graph.start),))
    return found


async def _commit(
    checkpointer: Checkpointer[StateT],
    graph: Graph[StateT],
    reached: Checkpoint[StateT],
    interrupt_before: Collection[str],
) -> Advance[StateT]:
    try:
        wrote = await checkpointer.commit_or_confirm(reached.run_id, reached.step, reached.state, reached.active)
    except StepConflictError:
        found = await checkpointer.resume_at(reached.run_id, reached.step)
        if isinstance(found, Overtaken):
            found = await checkpointer.resume(reached.run_id)
        newest = _with_start(graph, found)
        if newest is None:  # the whole run has just been deleted
            raise
        return _reached(newest, interrupt_before, superseded=True)
    return _reached(reached, interrupt_before, committed=wrote, superseded=not wrote)


def waits_for_human(active: Iterable[ActiveSnapshot], interrupt_before: Collection[str]) -> bool:
    """Whether a run with these active tasks waits before a node of `interrupt_before`."""
    return any(task.node_name in interrupt_before for task in active)


def is_end(active: Iterable[ActiveSnapshot]) -> bool:
    """Whether a run with these active tasks is finished."""
    return [task.node_name for task in active] == [END]


def _reached(
    at: Checkpoint[StateT], interrupt_before: Collection[str], *, committed: bool = False, superseded: bool = False
) -> Advance[StateT]:
    kind: type[Advance[StateT]] = Interrupted if waits_for_human(at.active, interrupt_before) else Advance
    return kind(at.run_id, at.step, at.state, at.active, committed=committed, superseded=superseded)
