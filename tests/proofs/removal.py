"""The promises of removal, as a ledger that watches the store itself, and the actors whose answers it judges.

After every request that takes effect, the ledger looks at all objects of all runs with eyes of its own:

- every state that is there is whole: it carries its tasks or names a snapshot that is there, and they are its own;
- a step never shows two contents, pruned in between or not, unless the run was deleted in between;
- only a janitor removes states: `prune` none that is younger than `grace`, none of the `keep_last` newest, and none
  before the floor says so; `delete` forgets the run.

And it judges every answer: a commit that was acknowledged was there; one that was refused has a reason and is not
there; a reader is shown what was there while it looked, is not shown less, and never gets an error; a fork that
succeeded began its run, and one that failed did not.

Contents are labels: the tasks of a step carry the label of its state, so a pair of two different labels betrays itself.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from contextlib import aclosing
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from s3_checkpoint import (
    ActiveSnapshot,
    CheckpointError,
    InvalidArgumentError,
    RunAdmin,
    S3Checkpointer,
    StepConflictError,
    StoreUnavailableError,
)
from s3_checkpoint.graph import Graph, Next, Send, Task
from s3_checkpoint.object_store import ObjectStore, Written
from s3_checkpoint.superstep import run_superstep
from s3_checkpoint.testing import Request
from tests.proofs.ledger import RUN, WORK, Work
from tests.proofs.scheduler import Gate, Ledger, Violation, World

T = TypeVar("T")
OTHER = UUID("99999999-2222-4333-8444-555555555555")
"""A run to fork to."""
GRACE = timedelta(hours=1)
Step = tuple[UUID, int]


def tasks_of(label: str) -> list[ActiveSnapshot]:
    """The active tasks that belong to the state of that label."""
    return [ActiveSnapshot(node_name="work", payload=label)]


@dataclass(slots=True)
class Call:
    """A call in progress, and what happened while it was."""

    name: str
    present: frozenset[Step] | None = None
    """The steps that were there when its first request took effect; a call without one yet has seen nothing."""
    removed: set[Step] = field(default_factory=set)
    """Steps that went since."""
    deleted: set[UUID] = field(default_factory=set)
    """Runs that a `delete` was at since."""
    ids: set[str] = field(default_factory=set)
    """The write ids that this call has used."""
    foreign: set[UUID] = field(default_factory=set)
    """Runs in which another actor has written since."""
    seen: frozenset[Step] | None = None
    """The steps that were there when its last LIST took effect."""
    seen_at: datetime | None = None
    """When that was."""
    grace: timedelta = GRACE
    keep_last: int = 1

    def snapshot(self) -> Hashable:
        return (
            self.name,
            self.present,
            frozenset(self.removed),
            frozenset(self.deleted),
            frozenset(self.ids),
            frozenset(self.foreign),
            (self.seen, self.seen_at) if self.name == "delete" else None,
        )


class Removals(Ledger):
    """Watches the store of one world; its actors are `Actor`s."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.before, world.after = self._before, self._after
        self.calls: dict[int, Call] = {}
        """The calls in progress, by actor."""
        self.last: dict[int, Call] = {}
        """The last call of each actor, whose writes can still be in flight."""
        self.shown: dict[Step, str] = {}
        """What each step is, or was when it was removed by `prune`."""
        self.ever: defaultdict[Step, set[str]] = defaultdict(set)
        """Everything that each step has been, deleted or not."""
        self.writers: defaultdict[Step, set[str]] = defaultdict(set)
        """The write ids that have been there."""
        self.floors: dict[UUID, int] = {}
        """The greatest floor that was ever written."""
        self.deleting: set[UUID] = set()
        """Runs that a `delete` has been at."""
        self._changed = True
        self._present: frozenset[Step] = frozenset()

    def fingerprint(self) -> Hashable:
        return (
            frozenset(self.shown.items()),
            frozenset((step, frozenset(labels)) for step, labels in self.ever.items()),
            frozenset((step, frozenset(ids)) for step, ids in self.writers.items()),
            frozenset(self.floors.items()),
            frozenset(self.deleting),
            tuple((actor, call.snapshot()) for actor, call in sorted(self.calls.items())),
            tuple((actor, call.name, call.keep_last) for actor, call in sorted(self.last.items())),
        )

    # What is in the store ------------------------------------------------------------------------------------------

    def look(self, world: World) -> None:
        """Every state is whole, and is what it has always been."""
        if not self._changed:
            return
        self._changed = False
        self._present = self.present()
        for run, step in sorted(self._present, key=str):
            label, tasks, write_id = self.content(run, step)
            if tasks is None:
                raise Violation(f"step {step} of {run} is torn: its tasks are gone")
            if not belong_together(step, label, tasks):
                raise Violation(f"step {step} of {run} pairs the state {label!r} with the tasks {tasks}")
            was = self.shown.setdefault((run, step), label)
            if was != label:
                raise Violation(f"step {step} of {run} was {was!r}, and is now {label!r}")
            self.ever[run, step].add(label)
            self.writers[run, step].add(write_id)
            if run == OTHER and not self.ever[run, 0]:
                raise Violation(f"{run} begins at step {step}")

    def present(self) -> frozenset[Step]:
        """The steps whose states are there."""
        return frozenset(step for key in self.world.store._objects if (step := step_of(key)) is not None)

    def newest(self, run: UUID) -> int:
        return max((step for of, step in self.present() if of == run), default=-1)

    def content(self, run: UUID, step: int) -> tuple[str, list[Any] | None, str]:
        """Label, tasks (None: gone) and write id of a state that is there."""
        objects = self.world.store._objects
        stored = objects[state_key(run, step)]
        metadata = stored.head.attributes.metadata
        tasks: list[Any] | None = None
        if inline := metadata.get("active-inline"):
            tasks = labels_in(b64decode(inline))
        elif snapshot := objects.get(f"runs/{run}/active/{step:020d}.{metadata.get('active')}.json"):
            tasks = labels_in(snapshot.body)
        return label_in(stored.body), tasks, metadata.get("write-id", "")

    def seed(self, run: UUID, *steps: int, age: timedelta = timedelta(0), **options: Any) -> None:
        """Before anybody starts, the run has these steps, stored `age` ago."""
        store = self.world.store
        objects, keys = _seeded(run, steps, age, tuple(options.items()))
        store._objects, store._keys = copy(objects), copy(keys)
        self.look(self.world)

    # What takes effect ---------------------------------------------------------------------------------------------

    def _before(self, actor: int, request: Request) -> None:
        call = self.calls.get(actor)
        if call is not None and call.present is None:
            call.present = self.present()
        step = step_of(request.key) if request.verb == "DeleteObjects" else None
        if step is not None and step in self.present():
            self._removes(self.last.get(actor), step)

    def _removes(self, call: Call | None, step: Step) -> None:
        run, number = step
        for other in self.calls.values():
            other.removed.add(step)
        if call is not None and call.name == "delete":
            self._forget(run)
        elif call is None or call.name != "prune":
            raise Violation(f"step {number} of {run} is removed by one that neither prunes nor deletes")
        else:
            age = self.world.clock.now() - self.world.store._objects[state_key(run, number)].head.last_modified
            if age < call.grace:
                raise Violation(f"step {number} of {run} is pruned at the age of {age}")
            if sum(of == run and other > number for of, other in self.ever) < call.keep_last:
                raise Violation(f"step {number} of {run} is pruned, of which the last {call.keep_last} were to stay")
            if self.floors.get(run, -1) < number and run not in self.deleting:
                raise Violation(f"step {number} of {run} is pruned, and no floor says so")

    def _forget(self, run: UUID) -> None:
        self.deleting.add(run)
        self.floors.pop(run, None)
        for step in [step for step in self.shown if step[0] == run]:
            del self.shown[step]
        for other in self.calls.values():
            other.deleted.add(run)

    def _after(self, actor: int, request: Request, answer: object) -> None:
        if request.verb in ("GetObject", "HeadObject", "ListObjectsV2"):
            if request.verb == "ListObjectsV2" and actor in self.last:
                self.last[actor].seen, self.last[actor].seen_at = self.present(), self.world.clock.now()
            return
        self._changed = True
        run = run_of(request.key)
        if run is None:
            return
        for other, call in self.calls.items():
            if other != actor and request.verb != "DeleteObjects":
                call.foreign.add(run)
        call_of_it = self.last.get(actor)
        if call_of_it is not None and call_of_it.name == "delete":
            self._forget(run)
        wrote = isinstance(answer, Written) or (request.verb == "CopyObject" and answer is True)
        if wrote and (floor := floor_of(request.key)) is not None:
            if floor >= self.newest(run) and run not in self.deleting:
                raise Violation(f"the floor of {run} is {floor}, and its newest step {self.newest(run)}")
            self.floors[run] = max(floor, self.floors.get(run, -1))
        self.look(self.world)

    # What actors are told ------------------------------------------------------------------------------------------

    def saw(self, call: Call, run: UUID, step: int, label: str, tasks: list[Any] | None) -> None:
        """A reader was shown this."""
        if label not in self.ever[run, step]:
            raise Violation(f"step {step} of {run} shows {label!r}, which was never there")
        if tasks is not None and not belong_together(step, label, tasks):
            raise Violation(f"step {step} of {run} pairs the state {label!r} with the tasks {tasks}")

    def not_there(self, call: Call, run: UUID, step: int) -> None:
        """A reader was told that the step is not there."""
        stayed = (call.present or frozenset()) - call.removed
        if (run, step) in stayed and run not in call.deleted:
            raise Violation(f"step {step} of {run} was there all the time, and is not shown")

    def latest(self, call: Call, run: UUID, step: int | None) -> None:
        """A reader was told that this is the newest step."""
        before = max((number for of, number in call.present or () if of == run), default=-1)
        if (-1 if step is None else step) < before and run not in call.deleted:
            raise Violation(f"the newest step of {run} went back from {before} to {step}")

    def committed(self, call: Call, run: UUID, step: int, label: str) -> None:
        if label not in self.ever[run, step]:
            raise Violation(f"{label!r} counts as committed at step {step} of {run}, and was never there")

    def conflicted(self, call: Call, run: UUID, step: int, label: str, winner: str) -> None:
        if winner and winner not in self.writers[run, step]:
            raise Violation(f"{label!r} lost step {step} of {run} to {winner!r}, which was never there")
        if self.shown.get((run, step)) == label and (run, step) in self.present():
            raise Violation(f"{label!r} is at step {step} of {run}, and was told that it lost")
        if not (self.ever[run, step] or self.floors.get(run, -1) >= step or run in self.deleting):
            raise Violation(f"{label!r} lost step {step} of {run} to nobody")

    def failed(self, call: Call, error: StoreUnavailableError) -> None:
        for run, step in () if error.outcome_unknown else self.present():
            if self.content(run, step)[2] in call.ids:
                raise Violation(f"nothing was written, it said, but step {step} of {run} is there: {error}")

    def deleted(self, call: Call, run: UUID) -> None:
        """`delete` has returned: the run is gone, or what is there has been written since."""
        young = (call.seen_at or self.world.clock.now()) - GRACE
        left = [
            key
            for key, stored in self.world.store._objects.items()
            if run_of(key) == run and not ("/active/" in key and stored.head.last_modified > young)
        ]
        if left and run not in call.foreign:
            raise Violation(f"{run} is deleted, and {left} is left")
        if any(of == run for of, _ in call.seen or ()):
            raise Violation(f"{run} is deleted, it says, and has not seen that nothing is left")

    def close(self, world: World) -> None:
        """A reader that comes when all is quiet reads everything, and a run that was begun has its beginning."""
        reader = Actor(self, "last", store=world.store)
        for run in {run for run, _ in self.ever}:
            looking = world.loop.create_task(reader.look_around(run))
            world.loop.run_until_quiet()
            if (error := looking.exception()) is not None:
                raise (
                    error if isinstance(error, Violation) else Violation(f"the last reader ends with {error!r}")
                ) from error


@lru_cache(maxsize=100)
def _seeded(run: UUID, steps: tuple[int, ...], age: timedelta, options: Any) -> tuple[dict[str, Any], list[bytes]]:
    """The objects of a run with these steps, made once for the thousands of worlds that begin with them."""
    world = World()
    world.clock.passed = -age
    ids = iter(f"seed-{step}" for step in steps)
    writer: S3Checkpointer[Work] = S3Checkpointer(WORK, world.store, new_id=lambda: next(ids), **dict(options))
    for step in steps:
        world.start(writer.commit(run, step, Work(label=f"old{step}"), tasks_of(f"old{step}")))
        world.run_until_quiet()
    for task in world.tasks:
        task.result()
    return world.store._objects, world.store._keys


@lru_cache(maxsize=10_000)
def step_of(key: str) -> Step | None:
    """Run and step of a state's key."""
    parts = key.split("/")
    if len(parts) != 4 or parts[2] != "steps":
        return None
    return UUID(parts[1]), int(parts[3].removesuffix(".json"))


@lru_cache(maxsize=10_000)
def floor_of(key: str) -> int | None:
    """The step that the key of a floor names."""
    parts = key.split("/")
    return int(parts[3].removesuffix(".json")) if len(parts) == 4 and parts[2] == "pruned" else None


@lru_cache(maxsize=10_000)
def run_of(key: str) -> UUID | None:
    parts = key.split("/")
    return UUID(parts[1]) if len(parts) > 2 else None


def state_key(run: UUID, step: int) -> str:
    return f"runs/{run}/steps/{step:020d}.json"


@lru_cache(maxsize=10_000)
def label_in(body: bytes) -> str:
    return str(json.loads(body)["label"])


@lru_cache(maxsize=10_000)
def labels_in(body: bytes) -> list[str | None]:
    return [task["payload"] for task in json.loads(body)]


def labels_of(tasks: Iterable[ActiveSnapshot]) -> list[Any]:
    return [task.payload for task in tasks]


def belong_together(step: int, label: str, tasks: list[Any]) -> bool:
    """A step that `run_superstep` begins has the start node's task, which carries nothing."""
    return tasks == [label] or (step == 0 and tasks == [None])


class Actor:
    """A process: a worker, a janitor or a reader, with a checkpointer of its own. Its answers go through the ledger."""

    def __init__(
        self,
        ledger: Removals,
        name: str = "worker",
        *,
        make: Callable[..., S3Checkpointer[Work]] = S3Checkpointer,
        admin: Callable[..., RunAdmin[Work]] = RunAdmin,
        wrap: Callable[[ObjectStore], ObjectStore] = lambda store: store,
        store: ObjectStore | None = None,
        **options: Any,
    ) -> None:
        self.ledger = ledger
        self.clock = ledger.world.clock
        self.gate: Gate = ledger.world.gate(name)
        self.name = f"{name}{self.gate.actor}"
        self._ids = iter(range(1000))
        wrapped = wrap(store or self.gate)

        def new_checkpointer() -> S3Checkpointer[Work]:
            return make(
                WORK,
                wrapped,
                new_id=self._new_id,
                sleep=_no_pause,
                jitter=lambda: 0.5,
                monotonic=self.clock.monotonic,
                **options,
            )

        self._new_checkpointer = new_checkpointer
        self._admin = admin
        self.checkpointer = self._new_checkpointer()
        self.admin = admin(self.checkpointer, now=self.clock.now)

    def start(self, program: Callable[[Actor], Coroutine[Any, Any, None]]) -> None:
        self.ledger.world.start(program(self), self.gate)

    async def pause(self) -> None:
        await self.gate.pause()

    def forget(self) -> None:
        """The next call is made by a process that has not seen any run."""
        self.checkpointer = self._new_checkpointer()
        self.admin = self._admin(self.checkpointer, now=self.clock.now)

    # Workers

    async def commit(self, step: int, label: str, run: UUID = RUN) -> bool:
        """False if another content is, or was, at the step. Called again until it is told something."""
        return await self._until_told(lambda: self._commit(step, label, run))

    async def _commit(self, step: int, label: str, run: UUID) -> bool:
        call = self._call("commit")
        try:
            await self.checkpointer.commit(run, step, Work(label=label), tasks_of(label))
        except StepConflictError as error:
            self.ledger.conflicted(call, run, step, label, error.winner)
            return False
        except StoreUnavailableError as error:
            self.ledger.failed(call, error)
            raise
        self.ledger.committed(call, run, step, label)
        return True

    async def proceed(self, rounds: int, run: UUID = RUN) -> None:
        """What an engine does: resume, compute, commit the next step. A run that has been deleted is not begun again.

        (A `prune` that listed the run before it was deleted would prune the steps of a new one under the same id.)
        """
        for _ in range(rounds):
            latest = await self.resume(run)
            if latest is None and run in self.ledger.deleting:
                return
            await self.pause()
            step = 0 if latest is None else latest + 1
            await self.commit(step, f"{self.name}:{step}", run)

    async def superstep(self, run: UUID = RUN, *, begin: bool = False, known: int | None = None) -> int | None:
        """What a message does: `begin` is one that begins the run, and may be delivered again; `known` is its step.

        The step that the run is at then; None if it has been deleted.
        """
        return await self._until_told(lambda: self._superstep(run, begin=begin, known=known))

    async def _superstep(self, run: UUID, *, begin: bool, known: int | None) -> int | None:
        call = self._call("commit")

        async def work(state: Work, task: Task) -> Next:
            await self.pause()
            label = f"{self.name}:{task.step}"
            return Next(label, Send("work", label))

        graph = Graph(start="work", nodes={"work": work}, apply=lambda state, label: Work(label=label))
        try:
            at = await run_superstep(
                self.checkpointer, graph, run, initial=Work(label=self.name) if begin else None, expected_step=known
            )
        except StoreUnavailableError as error:
            self.ledger.failed(call, error)
            raise
        except (StepConflictError, InvalidArgumentError):
            if run not in self.ledger.deleting:
                raise
            return None
        self.ledger.saw(call, run, at.step, at.state.label, None)
        return at.step

    # Readers

    async def resume(self, run: UUID = RUN) -> int | None:
        return await self._until_told(lambda: self._resume(run))

    async def _resume(self, run: UUID) -> int | None:
        call = self._call("resume")
        found = await self.checkpointer.resume(run)
        self.ledger.latest(call, run, found.step if found else None)
        if found is None:
            return None
        self.ledger.saw(call, run, found.step, found.state.label, labels_of(found.active))
        return found.step

    async def load_active(self, step: int, run: UUID = RUN) -> None:
        await self._until_told(lambda: self._load_active(step, run))

    async def _load_active(self, step: int, run: UUID) -> None:
        call = self._call("load_active")
        tasks = labels_of(await self.checkpointer.load_active(run, step))
        if tasks and tasks != [None]:
            self.ledger.saw(call, run, step, tasks[0], tasks)
        elif tasks:
            pass
        else:
            self.ledger.not_there(call, run, step)

    async def history(self, run: UUID = RUN) -> None:
        await self._until_told(lambda: self._history(run))

    async def _history(self, run: UUID) -> None:
        call = self._call("history")
        steps = []
        async with aclosing(self.admin.history(run)) as entries:  # type: ignore[type-var]
            async for entry in entries:
                self.ledger.saw(call, run, entry.step, entry.state.label, labels_of(entry.active))
                steps.append(entry.step)
        if steps != sorted(steps, reverse=True):
            raise Violation(f"the history of {run} is {steps}")
        for of, step in call.present or ():
            if of == run and step not in steps:
                self.ledger.not_there(call, run, step)

    async def look_around(self, run: UUID = RUN) -> None:
        """Every reading call."""
        await self.resume(run)
        await self.history(run)
        for step in await self.checkpointer.list(run):
            await self.load_active(step, run)

    # Janitors

    async def prune(self, keep_last: int = 1, run: UUID = RUN, *, grace: timedelta = GRACE) -> None:
        await self._until_told(lambda: self._prune(keep_last, run, grace))

    async def _prune(self, keep_last: int, run: UUID, grace: timedelta) -> None:
        call = self._call("prune")
        call.keep_last, call.grace = keep_last, grace
        await self.admin.prune(run, keep_last=keep_last, grace=grace)

    async def delete(self, run: UUID = RUN, *, grace: timedelta = GRACE) -> None:
        await self._until_told(lambda: self._delete(run, grace))

    async def _delete(self, run: UUID, grace: timedelta) -> None:
        call = self._call("delete")
        await self.admin.delete(run, grace=grace)
        self.ledger.deleted(call, run)

    async def fork(self, step: int, target: UUID = OTHER, run: UUID = RUN) -> bool:
        """False if it was told that it did not succeed."""
        return await self._until_told(lambda: self._fork(step, target, run))

    async def _fork(self, step: int, target: UUID, run: UUID) -> bool:
        call = self._call("fork")
        try:
            await self.admin.fork(run, step, target)
        except StoreUnavailableError as error:
            self.ledger.failed(call, error)
            raise
        except CheckpointError as error:
            if isinstance(error, InvalidArgumentError) and error.argument == "step":
                self.ledger.not_there(call, run, step)
            if (target, 0) in self.ledger.present() and self.ledger.content(target, 0)[2].startswith(f"{self.name}-"):
                raise Violation(f"the fork failed, and {target} begins with it: {error}") from error
            return False
        if not self.ledger.ever[target, 0] & self.ledger.ever[run, step]:
            raise Violation(f"step {step} of {run} counts as forked to {target}, which never began with it")
        return True

    async def _until_told(self, call: Callable[[], Awaitable[T]]) -> T:
        """A retryable error says that calling again helps: it must, as soon as the faults are spent."""
        for _ in range(5):
            try:
                told = await call()
            except StoreUnavailableError:
                continue
            finally:
                self.ledger.calls.pop(self.gate.actor, None)
            return told
        raise Violation("called again and again, and never told what became of it")

    def _new_id(self) -> str:
        write_id = f"{self.name}-{next(self._ids)}"
        if self.gate.actor in self.ledger.calls:
            self.ledger.calls[self.gate.actor].ids.add(write_id)
        return write_id

    def _call(self, name: str) -> Call:
        call = Call(name)
        self.ledger.calls[self.gate.actor] = self.ledger.last[self.gate.actor] = call
        return call


async def _no_pause(seconds: float) -> None:
    """The pause between two tries is where others act: the gate at the next request is pause enough."""
