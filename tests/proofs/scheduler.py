"""A deterministic scheduler: several workers on one store, request by request, in every order, with every fault.

Each worker's requests stop at a gate. When no worker can move any more, the explorer picks one waiting request and what
becomes of it (a `Fate`), and lets the workers go on until all of them wait again. A run of a scenario is thus a
sequence of picks; the explorer runs the scenario again and again, depth first, until every sequence has been taken. Two
sequences that lead to the same state of store, workers and ledger have the same future: it is explored once.

Nothing here depends on time, threads or chance: a `Schedule` printed once can be run again.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast

from s3_checkpoint import MemoryStore
from s3_checkpoint.object_store import ObjectHead, ObjectStore, Page, Refused, StoredObject, Written
from tests.faults import Request, Send, Wrapper

T = TypeVar("T")
Fate = Literal[
    "done",  # it takes effect and is answered
    "crash before",  # its worker dies before it leaves
    "crash after",  # it takes effect, and its worker dies
    "answer lost",  # it takes effect; the HTTP client sends it again
    "unanswered",  # it takes no effect, and the worker is told that nothing is known
    "landed unanswered",  # it takes effect, and the worker is told that nothing is known
    "late",  # the worker is told that nothing is known, and it takes effect at any later time, or never
    "conflict",  # 409, though nothing stands there
]
FAULTS: tuple[Fate, ...] = ("crash before", "crash after", "answer lost", "landed unanswered", "unanswered", "conflict")


class Violation(AssertionError):  # noqa: N818 - it is a finding
    """A promise does not hold on some schedule; the text ends with that schedule."""


class QuietLoop(asyncio.AbstractEventLoop):
    """An event loop without clock, files or threads: runs until nothing can move, first come, first served."""

    def __init__(self) -> None:
        self._ready: deque[tuple[asyncio.Handle, Callable[..., object], tuple[Any, ...], contextvars.Context]] = deque()
        self.complaints: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def run_until_quiet(self) -> None:
        asyncio._set_running_loop(self)
        try:
            while self._ready:
                handle, callback, arguments, context = self._ready.popleft()
                if not handle.cancelled():
                    context.run(callback, *arguments)
        finally:
            asyncio._set_running_loop(None)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self)
        self._ready.append((handle, callback, args, context or contextvars.copy_context()))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.Task(coro, loop=self, **options))
        return self.tasks[-1]

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Work for another thread is done at once: no order of threads can be seen through a store."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if "was destroyed but it is pending" not in context["message"]:  # that is how a worker dies here
            self.complaints.append(str(context))


def at_once(awaitable: Awaitable[T]) -> T:
    """The result of something that waits for nothing but its turn, as the memory store does."""
    steps = awaitable.__await__()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


@dataclass(slots=True)
class Waiting:
    """A request at the gate. A `ghost` has nobody waiting for its answer any more."""

    worker: int
    number: int
    request: Request
    send: Send[Any]
    answer: asyncio.Future[Any] | None
    repeated: bool = False


class Gate(Wrapper):
    """One worker's way to the store."""

    def __init__(self, store: ObjectStore, world: World, worker: int) -> None:
        super().__init__(store)
        self.world, self.worker, self.sent = world, worker, 0

    async def around(self, request: Request, send: Send[T]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.sent += 1
        self.world.waiting.append(Waiting(self.worker, self.sent, request, send, answer))
        return await answer


@dataclass(slots=True)
class World:
    """One run of a scenario: the store, the workers at their gates, and what they have been told so far."""

    store: MemoryStore
    loop: QuietLoop = field(default_factory=QuietLoop)
    waiting: list[Waiting] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    """Per worker, a hash of every answer so far: what a deterministic program does next depends on nothing else."""
    before: Callable[[int, Request], None] = lambda worker, request: None
    """Called before a request takes effect."""
    after: Callable[[int, Request, object], None] = lambda worker, request, answer: None
    """Called after it, before the worker learns of it."""

    def start(self, program: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(self.loop.create_task(program))
        self.told.append(0)

    def fates(self, entry: Waiting, faults: Sequence[Fate], left: int) -> Iterator[Fate]:
        """What can become of a request, given how many faults are still to be spent."""
        yield "done"
        if not left or entry.answer is None:
            return
        for fault in faults:
            if fault in ("landed unanswered", "late", "answer lost") and entry.request.verb != "PutObject":
                continue  # a read without its answer is a read not done
            if fault == "answer lost" and entry.repeated:
                continue
            if fault == "conflict" and entry.request.mode != "create":
                continue
            yield fault

    def settle(self, entry: Waiting, fate: Fate) -> None:
        """Lets `fate` happen to the request, and everybody go on until all wait again."""
        entry_answer = entry.answer
        if fate != "answer lost":
            self.waiting.remove(entry)
        told: object = None
        if fate in ("done", "crash after", "answer lost", "landed unanswered"):
            if entry_answer is not None:
                self.before(entry.worker, entry.request)
            told = at_once(entry.send())
            self.after(entry.worker, entry.request, told)
        if fate == "answer lost":
            entry.repeated = True
        elif fate in ("crash before", "crash after"):
            self._die(entry.worker)
        elif entry_answer is None:
            pass
        elif fate == "done":
            self._tell(entry, told)
            entry_answer.set_result(told)
        elif fate == "conflict":
            self._tell(entry, Refused("ConditionalRequestConflict"))
            entry_answer.set_result(Refused("ConditionalRequestConflict"))
        else:
            self._tell(entry, fate)
            entry_answer.set_exception(Wrapper(self.store).unavailable(entry.request, fate))
            if fate == "late":
                entry.answer = None
                self.waiting.append(entry)
        self.run_until_quiet()

    def run_until_quiet(self) -> None:
        """Lets everybody go on; a request whose worker no longer wants the answer is withdrawn."""
        self.loop.run_until_quiet()
        self.waiting[:] = [e for e in self.waiting if e.answer is None or not e.answer.cancelled()]

    def end(self) -> None:
        """Clears the dead away, without effect on the store."""
        for task in self.tasks:
            task.cancel()
        self.loop.run_until_quiet()

    def state(self) -> Hashable:
        """Everything that the future depends on, the ledger aside."""
        objects = tuple((key, _brief(stored)) for key, stored in sorted(self.store._objects.items()))
        waiting = tuple(sorted((e.worker, e.number, e.answer is None, e.repeated) for e in self.waiting))
        return objects, tuple(self.told), waiting, tuple(task.done() for task in self.tasks)

    def _tell(self, entry: Waiting, answer: object) -> None:
        self.told[entry.worker] = hash((self.told[entry.worker], entry.number, _brief(answer)))

    def _die(self, worker: int) -> None:
        self.waiting[:] = [e for e in self.waiting if e.worker != worker or e.answer is None]
        self.told[worker] = -1


def _brief(answer: object) -> Hashable:
    """As much of an answer as tells it from every other."""
    if isinstance(answer, StoredObject):
        return answer.head.etag, answer.head.attributes.metadata.get("write-id")
    if isinstance(answer, ObjectHead):
        return answer.etag, answer.attributes.metadata.get("write-id")
    if isinstance(answer, Page):
        return tuple(line.key for line in answer.objects), answer.next_token
    if isinstance(answer, Written | Refused):
        return type(answer).__name__
    return str(answer)


class Ledger:
    """What the workers were told and therefore may rely on. A scenario's own ledger raises `Violation`."""

    def fingerprint(self) -> Hashable:
        """Everything that its later judgements depend on."""
        return ()

    def close(self, world: World) -> None:
        """The last word, when all workers have ended and the store is quiet."""


Scenario = Callable[[World], Ledger]


@dataclass(slots=True)
class Report:
    """How much was explored. `schedules`: runs from start to end, or to a state that another run had reached."""

    schedules: int = 0
    requests: int = 0
    states: int = 0


@dataclass(slots=True)
class Explorer:
    """Takes every sequence of picks through a scenario, with at most `budget` faults in each."""

    scenario: Scenario
    faults: Sequence[Fate] = FAULTS
    budget: int = 1
    report: Report = field(default_factory=Report)
    _seen: set[Hashable] = field(default_factory=set)

    def explore(self) -> Report:
        """Raises `Violation`, its schedule in the text, or says how much was explored without one."""
        picks: list[int] = []
        while True:
            widths = self._run(picks)
            self.report.schedules += 1
            picks = picks[: len(widths)]
            picks += [0] * (len(widths) - len(picks))
            while picks and picks[-1] + 1 >= widths[len(picks) - 1]:
                picks.pop()
            if not picks:
                self.report.states = len(self._seen)
                return self.report
            picks[-1] += 1

    def sample(self, count: int, seed: int = 0) -> Report:
        """`count` runs at random, for scenarios too wide to be exhausted; the same seed gives the same ones."""
        chance = random.Random(seed)
        for _ in range(count):
            self._run([chance.randrange(1 << 30) for _ in range(200)])
            self.report.schedules += 1
        return self.report

    def _run(self, picks: Sequence[int]) -> list[int]:
        """One run along `picks`, then always the first choice; gives the number of choices at each pick.

        A pick counts round and round, so that any number is one.
        """
        world = World(MemoryStore(now=lambda: datetime(2026, 1, 1, tzinfo=UTC)))
        ledger = self.scenario(world)
        schedule: list[str] = []
        widths: list[int] = []
        left = self.budget
        try:
            world.run_until_quiet()
            self._judge(world)
            while world.waiting:
                if len(widths) >= len(picks):
                    state = hash((world.state(), ledger.fingerprint(), left))
                    if state in self._seen:
                        return widths
                    self._seen.add(state)
                choices = [(entry, fate) for entry in world.waiting for fate in world.fates(entry, self.faults, left)]
                pick = picks[len(widths)] % len(choices) if len(widths) < len(picks) else 0
                widths.append(len(choices))
                entry, fate = choices[pick]
                left -= fate != "done"
                schedule.append(_line(entry, fate))
                self.report.requests += 1
                world.settle(entry, fate)
                self._judge(world)
            ledger.close(world)
        except Violation as found:
            raise Violation(f"{found}\nschedule:\n  " + "\n  ".join(schedule)) from found
        finally:
            world.end()
        return widths

    def _judge(self, world: World) -> None:
        for task in world.tasks:
            if task.done() and (error := task.exception()) is not None:
                raise error if isinstance(error, Violation) else Violation(f"a worker ended with {error!r}") from error
        if world.loop.complaints:
            raise Violation(f"the event loop complains: {world.loop.complaints}")


def _line(entry: Waiting, fate: Fate) -> str:
    mode = f" ({entry.request.mode})" if entry.request.mode else ""
    again = ", again" if entry.repeated else ", late" if entry.answer is None else ""
    return f"worker {entry.worker}: {entry.request.verb} {entry.request.key}{mode}{again}: {fate}"
