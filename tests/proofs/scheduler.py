"""The explorer: several actors on one store, request by request, in every order, with every fault and leap of time.

Each actor (a worker, a janitor, a reader) reaches the store through a `Gate` of its own, where its requests stop. When
no actor can move any more, the explorer picks one waiting request and what becomes of it (a `Fate`), or lets time pass,
and lets the actors continue until all of them wait again. A run of a scenario is thus a sequence of picks; the explorer
runs the scenario again and again, depth first, until every sequence has been taken. Two sequences that lead to the same
state of store, clock, actors and ledger have the same future: it is explored once.

    def scenario(world: World) -> Ledger:
        ledger = MyLedger(world)                                  # raises Violation where a promise is broken
        gate = world.gate("worker")                               # an ObjectStore; one per actor that can crash
        saver = S3Saver(gate)                                     # gate.loop is the loop it runs in
        world.start(program(saver, ledger), gate)                 # a coroutine; Violation if it ends with an error
        ...                                                       # more gates, more programs
        return ledger

    Explorer(scenario, budget=1, leaps=[timedelta(hours=2)]).explore()      # all of it, or Violation
    Explorer(scenario, budget=2).sample(500, seed=7)                        # at random, for three actors and more

What is there before the actors start is written with `at_once(…)` on `world.store`. A program that computes for a while
awaits `gate.pause()`. `world.clock.now` and `world.clock.monotonic` are the clocks to hand to what is tested; the store
uses the same. `world.before` and `world.after` tell a ledger of each request that takes effect; `Ledger.look` is asked
after each pick, `Ledger.close` when all is quiet. A `Ledger.fingerprint` holds whatever its later judgement depends on.

How time passes: each of the explorer's `leaps` comes at most once, in their order, at any moment. Programs can be held
up that long between any two requests, and while one of their reads is in flight; but a write in flight takes effect
within `flight` of being sent or never, since every request is bounded by its time-outs. A DeleteObjects removes its
keys one by one, in any order, and can be cut short.

Nothing here depends on real time, threads or chance: a schedule that is printed can be run again with `replay`.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import os
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar, cast

from s3_checkpoint import MemoryStore
from s3_checkpoint.object_store import ObjectHead, ObjectStore, Page, Refused, StoredObject, Written
from s3_checkpoint.testing import (
    Request,
    Send,
    StoreWrapper,
    Verb,
)

T = TypeVar("T")
Fate = Literal[
    "done",  # it takes effect and is answered
    "crash before",  # its actor dies before it leaves
    "crash after",  # it takes effect, and its actor dies
    "crash late",  # its actor dies, and it takes effect at any later time, or never
    "answer lost",  # it takes effect; the HTTP client sends it again, at any later time
    "unanswered",  # it takes no effect, and the actor is told that nothing is known
    "landed unanswered",  # it takes effect, and the actor is told that nothing is known
    "late",  # the actor is told that nothing is known, and it takes effect at any later time, or never
    "conflict",  # 409, though nothing is there
]
FAULTS: tuple[Fate, ...] = ("crash before", "crash after", "answer lost", "landed unanswered", "unanswered", "conflict")
LATE: tuple[Fate, ...] = ("crash late", "late")
"""The same with effects that come when nobody waits for them any more. Costlier to explore."""
PAUSE = cast("Verb", "pause")
WRITES: tuple[Verb, ...] = ("PutObject", "DeleteObjects", "CopyObject")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ACTOR: contextvars.ContextVar[int] = contextvars.ContextVar("actor", default=-1)
"""Whose code runs; set by its first request, if not before."""


class Violation(AssertionError):  # noqa: N818 - it is a finding
    """A promise does not hold on some schedule; the text ends with that schedule and how to run it again."""


class Clock:
    """Passes when the explorer says so. `now` and `monotonic` are the two clocks of a process."""

    def __init__(self) -> None:
        self.passed = timedelta(0)

    def now(self) -> datetime:
        return BEGIN + self.passed

    def monotonic(self) -> float:
        return self.passed.total_seconds()


class QuietLoop(asyncio.AbstractEventLoop):
    """An event loop without files, threads or a clock that ticks: first come, first served, until nothing can move."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._ready: deque[tuple[asyncio.Handle, Callable[..., object], tuple[Any, ...], contextvars.Context]] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle, int]] = []
        self._timer_numbers = itertools.count()
        self.clock = clock or Clock()
        self.complaints: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.dead: set[int] = set()
        """The actors of whose code nothing runs any more."""

    def run_until_quiet(self) -> None:
        asyncio._set_running_loop(self)
        try:
            self._take_due_timers()
            while self._ready:
                handle, callback, arguments, context = self._ready.popleft()
                if not handle.cancelled() and context.get(ACTOR, -1) not in self.dead:
                    context.run(callback, *arguments)
                self._take_due_timers()
        finally:
            asyncio._set_running_loop(None)

    def next_timer(self) -> float | None:
        """When the next thing is due that waits for nothing but time."""
        while self._timers and (self._timers[0][2].cancelled() or self._timers[0][3] in self.dead):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _take_due_timers(self) -> None:
        while (due := self.next_timer()) is not None and due <= self.time():
            handle = heapq.heappop(self._timers)[2]
            self.call_soon(handle._callback, *handle._args, context=handle._context)  # type: ignore[attr-defined]

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self)
        self._ready.append((handle, callback, args, context or contextvars.copy_context()))
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        context = context or contextvars.copy_context()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._timer_numbers), handle, context.get(ACTOR, -1)))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Said by a timer; `next_timer` drops it."""

    def time(self) -> float:
        return self.clock.monotonic()

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
        except Exception as error:  # noqa: BLE001 - handed to the caller, who awaits it
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if "was destroyed but it is pending" not in context["message"]:  # that is how an actor dies here
            self.complaints.append(str(context))


def at_once(awaitable: Awaitable[T]) -> T:
    """The result of something that waits for nothing but its turn, as the memory store does."""
    steps = awaitable.__await__()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)


@dataclass(slots=True, eq=False)
class Waiting:
    """A request at the gate. A `ghost` (no `answer`) has nobody waiting for its answer any more."""

    actor: int
    number: int
    request: Request
    send: Send[Any]
    answer: asyncio.Future[Any] | None
    since: timedelta
    repeated: bool = False
    parts: dict[str, Send[Any]] = field(default_factory=dict)
    """Of a DeleteObjects of several keys: those that are still there."""

    @property
    def writes(self) -> bool:
        return self.request.verb in WRITES


class Pick(NamedTuple):
    """What happens next: `entry` meets `fate` (`part`: only this key of a DeleteObjects), or `leap` passes."""

    entry: Waiting | None
    fate: Fate = "done"
    part: str = ""
    leap: timedelta = timedelta(0)


class Gate(StoreWrapper):
    """One actor's way to the store; all that it runs dies together."""

    def __init__(self, store: ObjectStore, world: World, actor: int, name: str) -> None:
        super().__init__(store)
        self.world, self.actor, self.name, self.sent = world, actor, name, 0

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which the store is used."""
        return self.world.loop

    async def pause(self) -> None:
        """The actor computes, or is held up, for as long as the explorer likes."""
        await self._wait(Request(PAUSE, ""), _nothing)

    async def around(self, request: Request, send: Send[T]) -> T:
        return await self._wait(request, send)

    async def delete(self, keys: Sequence[str]) -> None:
        request = Request("DeleteObjects", keys[0] if keys else "")
        parts = {key: _delete_one(self.store, key) for key in keys} if len(keys) > 1 else {}
        await self._wait(request, lambda: self.store.delete(keys), parts)

    async def _wait(self, request: Request, send: Send[T], parts: dict[str, Send[Any]] | None = None) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        ACTOR.set(self.actor)
        self.sent += 1
        since = self.world.clock.passed
        self.world.waiting.append(Waiting(self.actor, self.sent, request, send, answer, since, parts=parts or {}))
        return await answer


async def _nothing() -> Any:
    return None


def _delete_one(store: ObjectStore, key: str) -> Send[Any]:
    return lambda: store.delete([key])


class World:
    """One run of a scenario: store and clock, the actors at their gates, and what they have been told so far."""

    def __init__(self, *, flight: timedelta = timedelta(minutes=10), cancelled_may_land: bool = False) -> None:
        self.clock = Clock()
        self.flight = flight
        self.cancelled_may_land = cancelled_may_land
        """Whether a write whose actor no longer waits (a time-out) can take effect later. Else it is withdrawn."""
        self.store = MemoryStore(now=self.clock.now)
        self.loop = QuietLoop(self.clock)  # type: ignore[abstract]  # of its methods, what is used
        self.gates: list[Gate] = []
        self.waiting: list[Waiting] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.told: list[int] = []
        """Per gate, a hash of every answer so far and its time: a deterministic program depends on nothing else."""
        self.before: Callable[[int, Request], None] = lambda actor, request: None
        """Called before a request takes effect (of a DeleteObjects: for each key)."""
        self.after: Callable[[int, Request, object], None] = lambda actor, request, answer: None
        """Called after it, before the actor learns of it."""

    def gate(self, name: str = "worker", store: ObjectStore | None = None) -> Gate:
        """A new actor's way to the store, or to another `store` around it."""
        self.gates.append(Gate(store or self.store, self, len(self.gates), name))
        self.told.append(0)
        return self.gates[-1]

    def start(self, program: Coroutine[Any, Any, None], gate: Gate | None = None) -> None:
        """Starts a program, of the actor with that gate. It must not end with an error."""
        context = contextvars.copy_context()
        if gate is not None:
            context.run(ACTOR.set, gate.actor)
        self.tasks.append(self.loop.create_task(program, context=context))

    def fates(self, entry: Waiting, faults: Sequence[Fate], left: int) -> Iterator[Pick]:
        """What can become of a request, given how many faults are still to be spent."""
        for key in entry.parts if len(entry.parts) > 1 else ():
            yield Pick(entry, part=key)
        if len(entry.parts) < 2:
            yield Pick(entry)
        if not left or entry.answer is None or entry.request.verb == PAUSE:
            return
        for fault in faults:
            if not entry.writes and fault != "unanswered":
                continue  # to die before or after a read is to die after the last write
            if fault == "crash before" and entry.number > 1:
                continue  # likewise
            if fault == "answer lost" and entry.repeated:
                continue
            if fault == "conflict" and entry.request.mode != "create":
                continue
            yield Pick(entry, fault)

    def can_leap(self, leap: timedelta) -> bool:
        """Whether so much time can pass now: not while an actor's write is in flight for too long."""
        latest = self.clock.passed + leap - self.flight
        return not any(e.writes and e.answer is not None and e.since < latest for e in self.waiting)

    def take(self, pick: Pick) -> None:
        """Lets it happen, and all actors continue until all wait again."""
        if pick.entry is None:
            self.clock.passed += pick.leap
            late = self.clock.passed - self.flight
            self.waiting[:] = [e for e in self.waiting if e.answer is not None or e.since >= late]
            self.run_until_quiet()
        elif pick.part:
            self._take_effect(pick.entry, [pick.part])
        else:
            self.settle(pick.entry, pick.fate)

    def settle(self, entry: Waiting, fate: Fate) -> None:
        """Lets `fate` happen to the request, and all actors continue until all wait again."""
        waits = entry.answer
        if fate != "answer lost":
            self.waiting.remove(entry)
        told: object = None
        if fate in ("done", "crash after", "answer lost", "landed unanswered"):
            told = self._take_effect(entry)
        if fate == "answer lost":
            entry.repeated = True
        elif fate in ("crash before", "crash after", "crash late"):
            self._die(entry.actor)
            if fate == "crash late":
                entry.answer = None
                self.waiting.append(entry)
        elif waits is None:
            pass
        elif fate == "done":
            self._tell(entry, told)
            waits.set_result(told)
        elif fate == "conflict":
            self._tell(entry, Refused("ConditionalRequestConflict"))
            waits.set_result(Refused("ConditionalRequestConflict"))
        else:
            self._tell(entry, fate)
            waits.set_exception(StoreWrapper(self.store).unavailable(entry.request, fate))
            if fate == "late":
                entry.answer = None
                self.waiting.append(entry)
        self.run_until_quiet()

    def _take_effect(self, entry: Waiting, keys: Sequence[str] | None = None) -> object:
        if entry.request.verb == PAUSE:
            return None
        if not entry.parts:
            self.before(entry.actor, entry.request)
            told: object = at_once(entry.send())
            if entry.repeated and isinstance(told, Written):
                told = replace(told, repeated=True)  # as `S3ObjectStore` says it
            self.after(entry.actor, entry.request, told)
            return told
        for key in keys if keys is not None else list(entry.parts):
            one = Request(entry.request.verb, key)
            self.before(entry.actor, one)
            at_once(entry.parts.pop(key)())
            self.after(entry.actor, one, None)
        return None

    def run_until_quiet(self) -> None:
        """Lets all actors continue; a read whose actor no longer wants the answer is withdrawn."""
        self.loop.run_until_quiet()
        for entry in [e for e in self.waiting if e.answer is not None and e.answer.cancelled()]:
            if self.cancelled_may_land and entry.writes:
                entry.answer = None
            else:
                self.waiting.remove(entry)
        while not self.waiting and (due := self.loop.next_timer()) is not None:
            self.clock.passed = max(self.clock.passed, timedelta(seconds=due))
            if self.clock.monotonic() < due:  # a timedelta has whole microseconds
                self.clock.passed += timedelta(microseconds=1)
            self.loop.run_until_quiet()

    def end(self) -> None:
        """Clears the dead away, without effect on the store."""
        self.loop.dead.clear()
        for task in self.tasks:
            task.cancel()
        self.loop.run_until_quiet()

    def state(self) -> Hashable:
        """Everything that the future depends on, the ledger aside."""
        waiting = tuple(
            sorted((e.actor, e.number, e.answer is None, e.repeated, e.since, *e.parts) for e in self.waiting)
        )
        return self.objects(), self.clock.passed, tuple(self.told), waiting, tuple(task.done() for task in self.tasks)

    def objects(self) -> Hashable:
        """What is stored."""
        return tuple((key, _brief(stored)) for key, stored in sorted(self.store._objects.items()))

    def _tell(self, entry: Waiting, answer: object) -> None:
        self.told[entry.actor] = hash((self.told[entry.actor], entry.number, self.clock.passed, _brief(answer)))

    def _die(self, actor: int) -> None:
        self.waiting[:] = [e for e in self.waiting if e.actor != actor or e.answer is None]
        self.told[actor] = -1
        self.loop.dead.add(actor)


def _brief(answer: object) -> Hashable:
    """As much of an answer as tells it from every other."""
    if isinstance(answer, StoredObject):
        return _brief(answer.head)
    if isinstance(answer, ObjectHead):
        return answer.etag, answer.last_modified, tuple(sorted(answer.attributes.metadata.items()))
    if isinstance(answer, Page):
        return tuple((line.key, line.last_modified) for line in answer.objects), answer.next_token, *answer.prefixes
    if isinstance(answer, Written):
        return "Written", answer.repeated
    if isinstance(answer, Refused):
        return "Refused"
    return str(answer)


class Ledger:
    """What the actors were told and therefore may rely on. A scenario's own ledger raises `Violation`."""

    def fingerprint(self) -> Hashable:
        """Everything that its later judgements depend on."""
        return ()

    def look(self, world: World) -> None:
        """Asked after every pick: is what the store shows right?"""

    def close(self, world: World) -> None:
        """The last word, when all programs have ended and the store is quiet."""


Scenario = Callable[[World], Ledger]
Chooser = Callable[[Sequence[Pick]], int]


@dataclass(slots=True)
class Report:
    """How much was explored. `schedules`: runs from start to end, or to a state that another run had reached."""

    schedules: int = 0
    requests: int = 0
    states: int = 0

    def __str__(self) -> str:
        return f"{self.schedules} schedules, {self.states} states, {self.requests} requests"


@dataclass(slots=True)
class Explorer:
    """Takes every sequence of picks through a scenario, with at most `budget` faults in each."""

    scenario: Scenario
    faults: Sequence[Fate] = FAULTS
    budget: int = 1
    leaps: Sequence[timedelta] = ()
    flight: timedelta = timedelta(minutes=10)
    report: Report = field(default_factory=Report)
    _seen: set[Hashable] = field(default_factory=set)
    _ends: set[Hashable] = field(default_factory=set)

    def explore(self) -> Report:
        """Raises `Violation`, its schedule in the text, or says how much was explored without one."""
        picks: list[int] = []
        while True:
            widths = self._run(self._along(picks), skip_seen=len(picks))
            self.report.schedules += 1
            picks = picks[: len(widths)]
            picks += [0] * (len(widths) - len(picks))
            while picks and picks[-1] + 1 >= widths[len(picks) - 1]:
                picks.pop()
            if not picks:
                self.report.states = len(self._seen)
                return self.report
            picks[-1] += 1

    def sample(self, count: int, seed: int | None = None) -> Report:
        """`count` runs at random, for scenarios too wide to be exhausted.

        The same seed gives the same runs; None: the one in `EXPLORER_SEED`, or a new one. It is printed.
        """
        if seed is None:
            seed = int(os.environ.get("EXPLORER_SEED") or random.SystemRandom().randrange(1 << 32))
        print(f"EXPLORER_SEED={seed}")
        for number in range(count):
            self._run(_at_random(random.Random(f"{seed}:{number}")))
            self.report.schedules += 1
        return self.report

    def replay(self, picks: Sequence[int]) -> None:
        """One run again, as a `Violation` tells it."""
        self._run(self._along(picks))

    @staticmethod
    def _along(picks: Sequence[int]) -> Chooser:
        """Along `picks`, then always the first choice."""
        left = iter(picks)
        return lambda choices: next(left, 0)

    def _run(self, choose: Chooser, *, skip_seen: int | None = None) -> list[int]:
        """One run; gives the number of choices at each pick. From pick `skip_seen` on, ends at a state seen before."""
        world = World(flight=self.flight, cancelled_may_land=True)
        ledger = self.scenario(world)
        schedule: list[str] = []
        picks: list[int] = []
        widths: list[int] = []
        left, leaps = self.budget, list(self.leaps)
        try:
            world.run_until_quiet()
            self._judge(world, ledger)
            while world.waiting:
                if skip_seen is not None and len(widths) >= skip_seen:
                    state = hash((world.state(), ledger.fingerprint(), left, len(leaps)))
                    if state in self._seen:
                        return widths
                    self._seen.add(state)
                choices = self._choices(world, left, leaps)
                picks.append(choose(choices))
                widths.append(len(choices))
                pick = choices[picks[-1]]
                schedule.append(_line(world, pick))
                if pick.entry is None:
                    leaps.pop(0)
                elif pick.entry.request.verb != PAUSE:
                    self.report.requests += 1
                    left -= pick.fate != "done"
                world.take(pick)
                self._judge(world, ledger)
            if skip_seen is None or self._ends_anew(world, ledger):
                ledger.close(world)
        except Violation as found:
            raise Violation(
                f"{found}\nschedule:\n  " + "\n  ".join(schedule) + f"\nrun it again: replay({picks})"
            ) from found
        finally:
            world.end()
        return widths

    def _ends_anew(self, world: World, ledger: Ledger) -> bool:
        """Whether no run before ended so: what `close` finds depends on store, clock and ledger alone."""
        end = hash(("end", world.objects(), world.clock.passed, ledger.fingerprint()))
        if end in self._ends:
            return False
        self._ends.add(end)
        return True

    def _choices(self, world: World, left: int, leaps: Sequence[timedelta]) -> list[Pick]:
        if not leaps:  # then a pause that ends now is as good as one that ends later: nobody sees the difference
            for entry in world.waiting:
                if entry.request.verb == PAUSE:
                    return [Pick(entry)]
        choices = [pick for entry in world.waiting for pick in world.fates(entry, self.faults, left)]
        if leaps and world.can_leap(leaps[0]):
            choices.append(Pick(None, leap=leaps[0]))
        return choices

    def _judge(self, world: World, ledger: Ledger) -> None:
        for task in world.tasks:
            if task.done() and (error := task.exception()) is not None:
                raise error if isinstance(error, Violation) else Violation(f"an actor ended with {error!r}") from error
        if world.loop.complaints:
            raise Violation(f"the event loop complains: {world.loop.complaints}")
        ledger.look(world)


def _at_random(chance: random.Random) -> Chooser:
    """Mostly what goes well: a fault at every tenth request, a leap at every eighth, while there are any."""

    def choose(choices: Sequence[Pick]) -> int:
        faults = [n for n, pick in enumerate(choices) if pick.fate != "done"]
        leaps = [n for n, pick in enumerate(choices) if pick.entry is None]
        fine = [n for n, pick in enumerate(choices) if pick.entry is not None and pick.fate == "done"]
        if leaps and (not fine or chance.random() < 1 / 8):
            return chance.choice(leaps)
        return chance.choice(faults if faults and chance.random() < 1 / 10 else fine)

    return choose


def _line(world: World, pick: Pick) -> str:
    entry = pick.entry
    if entry is None:
        return f"{pick.leap} pass"
    actor = f"{world.gates[entry.actor].name} {entry.actor}"
    if entry.request.verb == PAUSE:
        return f"{actor}: continues"
    mode = f" ({entry.request.mode})" if entry.request.mode else ""
    again = ", again" if entry.repeated else ", late" if entry.answer is None else ""
    key = ", ".join([pick.part] if pick.part else entry.parts or [entry.request.key])
    return f"{actor}: {entry.request.verb} {key}{mode}{again}: {pick.fate}"
