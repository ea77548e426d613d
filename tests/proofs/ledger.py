"""The promises, as a ledger of what each worker was told, and the workers whose calls it judges.

A call begins when its first request takes effect, since it might as well have been made just then, and ends with its
last answer. Contents are labels: the state and the active tasks of a commit carry the same one, so a pair of two
different labels betrays itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, TypeAdapter

from s3_checkpoint import ActiveSnapshot, S3Checkpointer, StepConflictError, StoreUnavailableError
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.object_store import ObjectStore, Written
from s3_checkpoint.testing import Request
from tests.proofs.scheduler import Ledger, Violation, World

T = TypeVar("T")
RUN = UUID("11111111-2222-4333-8444-555555555555")
KEYS = RunKeys("", RUN)
MakeCheckpointer = Callable[..., "S3Checkpointer[Work]"]


class Work(BaseModel):
    """A state that says who made it."""

    label: str


WORK: Any = TypeAdapter(Work)
"""Built once, for the thousands of workers that use it."""


def tasks_of(label: str) -> list[ActiveSnapshot]:
    """The active tasks that belong to the state of that label."""
    return [ActiveSnapshot(node_name=label)]


@dataclass(frozen=True, slots=True)
class Begun:
    """What was certain when a call began: it must not see less."""

    floor: int = -1
    known: frozenset[tuple[int, str]] = frozenset()
    saved: frozenset[int] = frozenset()


@dataclass(slots=True)
class Call:
    """The call that a worker is making. `ids`: the write ids it has used."""

    ids: list[str] = field(default_factory=list)
    begun: Begun | None = None


class Promises(Ledger):
    """Judges every answer of every call against everything that was certain when the call began."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.before, world.after = self._before, self._after
        self.calls: dict[int, Call] = {}
        self.floor = -1
        self.known: dict[int, str] = {}
        self.saved: set[int] = set()
        self.offered: defaultdict[int, set[str]] = defaultdict(set)
        self.saving: defaultdict[int, set[str]] = defaultdict(set)
        self.saving_active: defaultdict[int, set[str]] = defaultdict(set)
        self.holders: defaultdict[int, list[str]] = defaultdict(list)

    def fingerprint(self) -> Hashable:
        return (
            self.floor,
            tuple(sorted(self.known.items())),
            tuple(sorted(self.saved)),
            tuple((step, tuple(ids)) for step, ids in sorted(self.holders.items())),
            tuple((worker, call.begun, tuple(call.ids)) for worker, call in sorted(self.calls.items())),
        )

    def committed(self, call: Call, step: int, label: str) -> None:
        begun = call.begun or Begun()
        if step in begun.saved:
            raise Violation(f"step {step} was saved, and yet {label!r} counts as committed there")
        self._learn(step, label, f"committed {label!r}")

    def conflicted(self, step: int, label: str, winner: str) -> None:
        if winner not in self.holders[step]:
            raise Violation(f"{label!r} lost step {step} to {winner!r}, which was never there")
        if not self.saving[step] and (winner != self.holders[step][-1] or self.known.get(step) == label):
            raise Violation(f"{label!r} lost step {step} to {winner!r}, which is not what is there")

    def failed(self, call: Call, step: int, error: StoreUnavailableError) -> None:
        if not error.outcome_unknown and set(call.ids) & set(self.holders[step]):
            raise Violation(f"nothing was written, it said, but the write is at step {step}: {error}")

    def saw(self, call: Call, step: int, label: str, active: list[str] | None) -> None:
        """A reader was shown this as `step`; `active` is None where only the state was asked for."""
        begun = call.begun or Begun()
        if label not in self.offered[step] | self.saving[step]:
            raise Violation(f"step {step} shows {label!r}, which nobody wrote there")
        if active is not None:
            own = label in self.offered[step] and active == [label]
            saved = label in self.saving[step] and set(active) <= self.saving_active[step]
            if not (own or saved):
                raise Violation(f"step {step} pairs the state {label!r} with the tasks {active}")
        if step in begun.saved and label not in self.saving[step]:
            raise Violation(f"step {step} was saved, and yet shows {label!r}")
        known = dict(begun.known).get(step)
        if known is not None and label != known and not self.saving[step]:
            raise Violation(f"step {step} was {known!r}, and is now {label!r}")
        if label in self.offered[step]:
            self._learn(step, label, f"a reader saw {label!r}")

    def latest(self, call: Call, step: int | None) -> None:
        """A reader was told that this is the latest step."""
        begun = call.begun or Begun()
        if (-1 if step is None else step) < begun.floor:
            raise Violation(f"the latest step went back from {begun.floor} to {step}")
        self.floor = max(self.floor, -1 if step is None else step)

    def close(self, world: World) -> None:
        """A worker that comes after everybody sees what all that came before it were promised."""
        reader = Worker(self, store=world.store)
        world.start(reader.look_around({*self.offered, *self.saving}))
        world.loop.run_until_quiet()
        while not world.tasks[-1].done():  # its store is the bare one: all it waits for is its turn
            world.loop.run_until_quiet()
        world.tasks[-1].result()

    def _learn(self, step: int, label: str, how: str) -> None:
        if not self.saving[step] and self.known.get(step, label) != label:
            raise Violation(f"step {step} was {self.known[step]!r}, and then {how}")
        self.known[step] = label
        self.floor = max(self.floor, step)

    def _before(self, worker: int, request: Request) -> None:
        call = self.calls.get(worker)
        if call is not None and call.begun is None:
            call.begun = Begun(self.floor, frozenset(self.known.items()), frozenset(self.saved))

    def _after(self, worker: int, request: Request, answer: object) -> None:
        step = KEYS.parse_state(request.key)
        if request.verb == "PutObject" and step is not None and isinstance(answer, Written):
            self.holders[step].append(self.world.store._objects[request.key].head.attributes.metadata["write-id"])


class Worker:
    """A process with a checkpointer of its own; every answer it gets goes through the ledger."""

    def __init__(
        self,
        promises: Promises,
        *,
        make: MakeCheckpointer = S3Checkpointer,
        wrap: Callable[[ObjectStore], ObjectStore] = lambda store: store,
        store: ObjectStore | None = None,
    ) -> None:
        self.promises = promises
        self.written = 0
        gate = promises.world.gate()
        self.number = gate.actor
        self.checkpointer = make(
            WORK,
            wrap(store or gate),
            new_id=self._new_id,
            sleep=_no_pause,
            jitter=lambda: 0.5,
            monotonic=promises.world.clock.monotonic,
        )

    def start(self, program: Coroutine[Any, Any, None]) -> None:
        """Starts its program; one per worker."""
        self.promises.world.start(program)

    async def commit(self, step: int, label: str) -> bool:
        """False if another worker won the step. Called again until it is told something."""
        self.promises.offered[step].add(label)
        return await self._until_told(lambda: self._commit(step, label))

    async def save(self, step: int, label: str) -> None:
        self.promises.saving[step].add(label)
        await self._until_told(lambda: self._save(step, label))

    async def save_active(self, step: int, label: str) -> None:
        self.promises.saving_active[step].add(label)
        await self._until_told(lambda: self.checkpointer.save_active(RUN, step, tasks_of(label)))

    async def resume(self) -> int | None:
        return await self._until_told(self._resume)

    async def load(self, step: int) -> None:
        await self._until_told(lambda: self._load(step))

    async def load_active(self, step: int) -> None:
        await self._until_told(lambda: self._load_active(step))

    async def look_around(self, steps: set[int]) -> None:
        """Every reading call."""
        await self.resume()
        for step in sorted(steps):
            await self.load(step)
            await self.load_active(step)
        listed = await self.checkpointer.list(RUN)
        if listed != sorted(listed) or not set(self.promises.known) | self.promises.saved <= set(listed) <= steps:
            raise Violation(f"list shows {listed}; certain are {self.promises.known} and {self.promises.saved}")

    async def _commit(self, step: int, label: str) -> bool:
        call = self._call()
        try:
            await self.checkpointer.commit(RUN, step, Work(label=label), tasks_of(label))
        except StepConflictError as error:
            self.promises.conflicted(step, label, error.winner)
            return False
        except StoreUnavailableError as error:
            self.promises.failed(call, step, error)
            raise
        self.promises.committed(call, step, label)
        return True

    async def _save(self, step: int, label: str) -> None:
        self._call()
        await self.checkpointer.save(RUN, step, Work(label=label))
        self.promises.saved.add(step)
        self.promises.floor = max(self.promises.floor, step)

    async def _resume(self) -> int | None:
        call = self._call()
        found = await self.checkpointer.resume(RUN)
        self.promises.latest(call, found.step if found else None)
        if found is None:
            return None
        self.promises.saw(call, found.step, found.state.label, [task.node_name for task in found.active])
        return found.step

    async def _load(self, step: int) -> None:
        call = self._call()
        state = await self.checkpointer.load(RUN, step)
        if state is not None:
            self.promises.saw(call, step, state.label, None)
        elif call.begun and (step in dict(call.begun.known) or step in call.begun.saved):
            raise Violation(f"step {step} was there, and is no more")

    async def _load_active(self, step: int) -> None:
        call = self._call()
        active = [task.node_name for task in await self.checkpointer.load_active(RUN, step)]
        known = dict(call.begun.known).get(step) if call.begun else None
        saving = self.promises.saving[step]
        if known is not None and not saving and active != [known]:
            raise Violation(f"step {step} was committed as {known!r} and has the tasks {active}")
        if not set(active) <= self.promises.offered[step] | self.promises.saving_active[step]:
            raise Violation(f"step {step} has the tasks {active}, which nobody wrote there")

    async def _until_told(self, call: Callable[[], Awaitable[T]]) -> T:
        """A retryable error says that calling again helps: it must, as soon as the faults are spent."""
        for _ in range(4):
            try:
                return await call()
            except StoreUnavailableError:
                continue
        raise Violation("called again and again, and never told what became of it")

    def _call(self) -> Call:
        call = self.promises.calls[self.number] = Call()
        return call

    def _new_id(self) -> str:
        self.written += 1
        write_id = f"w{self.number}-{self.written}"
        self.promises.calls.setdefault(self.number, Call()).ids.append(write_id)
        return write_id


async def _no_pause(seconds: float) -> None:
    """The pause between two tries is where others act: the gate at the next request is pause enough."""
