"""Every order in which appends, merges, deletions and reads of one transcript can meet, with faults at every request.

The explorer is that of `tests/proofs/scheduler.py`. Entries have no uuid here, so that nothing is forgiven. After every
request of every order: what can be loaded is what could be loaded before, and perhaps more at its end; or, once a
deletion has taken effect, only what was appended since. Each append is there whole and once, or not at all. One that
was acknowledged is there until it is deleted. In the end, whatever is left can be removed to the last object.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from s3_checkpoint import InvalidArgumentError, StoreUnavailableError
from s3_checkpoint._format.session_keys import Transcript, clock_key
from s3_checkpoint.claude import session_calls
from s3_checkpoint.claude.listing import keys_of, list_transcript
from s3_checkpoint.claude.removal import compact, delete_transcript, end, merge
from s3_checkpoint.claude.session_log import SessionLog
from s3_checkpoint.object_store import ObjectStore, Written
from s3_checkpoint.testing import Request
from tests.proofs.scheduler import FAULTS, LATE, Explorer, Gate, Ledger, Scenario, Violation, World

T = TypeVar("T")
ONE = Transcript("", "project", "session")
HOUR = timedelta(hours=1)
HALF, LONG = timedelta(minutes=29), timedelta(minutes=75)


def log_on(world: World, store: ObjectStore, name: str, grace: timedelta = HOUR) -> SessionLog:
    """One process."""
    numbers = itertools.count()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)

    return SessionLog(
        store,
        prefix="",
        compression=None,
        max_part_bytes=10**6,
        max_session_bytes=10**6,
        conditional_writes=True,
        grace=grace,
        fold=lambda before, transcript, entries: {"count": (before or {"count": 0})["count"] + len(entries)},
        new_id=lambda: f"{name}-{next(numbers)}",
        sleep=sleep,
        jitter=lambda: 0.5,
        monotonic=world.clock.monotonic,
    )


def done(world: World, work: Coroutine[Any, Any, T]) -> T:
    """What `work` comes to, which waits for nothing but the store itself."""
    task = asyncio.Task(work, loop=world.loop)
    world.loop.run_until_quiet()
    return task.result()


@dataclass(slots=True)
class Entries(Ledger):
    """What may be relied on of the transcript. An append is known by a letter, and has two entries."""

    world: World
    visible: tuple[str, ...] = ()
    history: list[tuple[str, ...]] = field(default_factory=lambda: [()])
    acknowledged: dict[str, int] = field(default_factory=dict)
    """Appends, and at which length of `history` they were told."""
    deleted: dict[str, bool] = field(default_factory=dict)
    """Appends that a deletion took, and whether they had been acknowledged by then."""
    stale: bool = True

    def __post_init__(self) -> None:
        def after(actor: int, request: Request, answer: object) -> None:
            self.stale = self.stale or request.verb in ("PutObject", "DeleteObjects")
            # The empty part takes effect at once, and deletes what can be seen just then.
            stored = self.world.store._objects.get(request.key)
            if isinstance(answer, Written) and request.mode == "create" and stored is not None and not stored.body:
                self.deleted |= {label: label in self.acknowledged for label in self.visible}

        self.world.after = after

    def fingerprint(self) -> Hashable:
        return self.visible, tuple(sorted(self.acknowledged)), tuple(sorted(self.deleted.items()))

    def look(self, world: World) -> None:
        if not self.stale:
            return
        self.stale = False
        found = done(world, log_on(world, world.store, "eye").load(ONE)) or []
        labels = tuple(entry["label"] for entry in found[::2])
        if [entry["label"] for entry in found] != [label for label in labels for _ in range(2)]:
            raise Violation(f"an append is torn, or there twice: {found}")
        if len(set(labels)) != len(labels):
            raise Violation(f"an append is there twice: {labels}")
        left = tuple(label for label in self.visible if label not in self.deleted)
        if labels[: len(left)] != left:
            raise Violation(f"{self.visible} was there, {sorted(self.deleted)} were deleted, and now it is {labels}")
        for label in self.deleted.keys() & set(labels):
            if self.deleted.pop(label):
                raise Violation(f"{label} was acknowledged, deleted, and came back")
            # Else its writer knew nothing of it, and has handed it in again since: appended after the deletion.
        if missing := set(self.acknowledged) - self.deleted.keys() - set(labels):
            raise Violation(f"{sorted(missing)} were acknowledged, and are not there")
        self.visible = labels
        self.history.append(labels)

    def close(self, world: World) -> None:
        """A day later, a janitor can remove everything."""
        for _ in range(3):
            world.clock.passed += timedelta(days=1)
            janitor = log_on(world, world.store, "janitor")
            done(world, delete_transcript(janitor, ONE))
        world.clock.passed += timedelta(days=1)
        done(world, compact(log_on(world, world.store, "janitor"), ONE))
        if left := set(world.store._objects) - {clock_key("")}:
            raise Violation(f"{left} cannot be removed")


Program = Callable[[Entries, SessionLog, Gate], Coroutine[Any, Any, None]]


def appends(*labels: str) -> Program:
    """As the SDK does it: a batch that fails is handed in again, and dropped after that."""

    async def program(ledger: Entries, log: SessionLog, gate: Gate) -> None:
        for label in labels:
            batch = [{"label": label, "n": n} for n in range(2)]
            for _ in range(2):
                try:
                    await session_calls.append(log, ONE, batch, 0)
                except StoreUnavailableError:
                    continue
                except InvalidArgumentError:
                    if not ledger.deleted:
                        raise Violation("a transcript that nobody deleted is called removed") from None
                    return
                ledger.acknowledged[label] = len(ledger.history)
                break

    return program


def loads(times: int = 1) -> Program:
    async def program(ledger: Entries, log: SessionLog, gate: Gate) -> None:
        for _ in range(times):
            ledger.look(ledger.world)
            since = len(ledger.history) - 1
            try:
                found = await log.load(ONE) or []
            except StoreUnavailableError:
                continue
            ledger.look(ledger.world)
            labels = tuple(entry["label"] for entry in found[::2])
            if labels not in ledger.history[since:]:
                raise Violation(f"{labels} was read, and never was: {ledger.history[since:]}")

    return program


async def compacts(ledger: Entries, log: SessionLog, gate: Gate) -> None:
    try:
        await compact(log, ONE)
    except StoreUnavailableError:
        return


async def deletes(ledger: Entries, log: SessionLog, gate: Gate) -> None:
    try:
        await delete_transcript(log, ONE)
    except StoreUnavailableError:
        return


def processes(*programs: Program, before: str = "", grace: timedelta = HOUR) -> Scenario:
    """One process per program; the transcript has the appends `before`, by the first one."""

    def scenario(world: World) -> Entries:
        ledger = Entries(world)
        for number, program in enumerate(programs):
            gate = world.gate(f"{number}")
            log = log_on(world, gate, f"p{number}", grace)
            if number == 0 and before:
                log.store = world.store
                for label in before:
                    done(world, appends(label)(ledger, log, gate))
                log.store = gate
                ledger.look(world)
            world.start(program(ledger, log, gate), gate)
        return ledger

    return scenario


EXPLORED: dict[str, Explorer] = {
    "two appends": Explorer(processes(appends("a"), appends("b")), budget=1),
    "one writer and two faults": Explorer(processes(appends("a", "b")), budget=2),
    "two appends and a merge": Explorer(processes(appends("c"), appends("d"), compacts, before="ab"), budget=0),
    "a merge and a read": Explorer(processes(compacts, loads(), before="abc"), budget=0),
    "an append and a deletion": Explorer(processes(appends("b"), deletes, before="a"), budget=1),
    "two appends and a deletion": Explorer(processes(appends("b"), appends("c"), deletes, before="a"), budget=0),
    "a merge and a deletion": Explorer(processes(compacts, deletes, before="abc"), budget=0),
    "a deletion and a read": Explorer(processes(deletes, loads(), before="ab"), budget=1),
    "an append that comes late": Explorer(processes(appends("a", "b"), appends("c")), LATE, budget=1),
    "an append and a merge hours apart": Explorer(
        processes(appends("d"), compacts, before="abc"), budget=0, leaps=[LONG]
    ),
}

LONG_ONES: dict[str, Explorer] = {
    "an append, a merge and a read": Explorer(processes(appends("d"), compacts, loads(), before="abc"), budget=0),
    "a merge and a read with faults": Explorer(processes(compacts, loads(), before="abc"), budget=1),
    "two appends of one writer and a deletion": Explorer(processes(appends("c", "d"), deletes, before="ab"), budget=1),
    "an append and a merge hours apart, with faults": Explorer(
        processes(appends("d"), compacts, before="abc"), budget=1, leaps=[LONG]
    ),
    "a merge and a deletion with faults": Explorer(processes(compacts, deletes, before="abc"), budget=1),
}


@pytest.mark.parametrize("name", [*EXPLORED, *(pytest.param(name, marks=pytest.mark.long) for name in LONG_ONES)])
def test_loadable_entries_only_grow_until_they_are_deleted(name: str) -> None:
    """In every order, with a fault at every request."""
    report = (EXPLORED | LONG_ONES)[name].explore()

    print(report)
    assert report.schedules > 5


def test_appends_merges_and_a_deletion_sampled_with_faults_and_hours_between() -> None:
    """Wider than can be exhausted."""
    explorer = Explorer(
        processes(appends("c", "d", "e"), appends("f", "g"), compacts, deletes, loads(2), before="ab"),
        (*FAULTS, *LATE),
        budget=2,
        leaps=[HALF, LONG, HALF, LONG],
    )

    print(explorer.sample(120, seed=19))


async def merges_and_removes_at_once(ledger: Entries, log: SessionLog, gate: Gate) -> None:
    """Wrong: what was merged goes, however young."""
    await merge(log, await list_transcript(log.store, ONE))
    listing = await list_transcript(log.store, ONE)
    await log.store.delete(keys_of(listing.superfluous()))


async def removes_what_it_deletes(ledger: Entries, log: SessionLog, gate: Gate) -> None:
    """Wrong: young parts are removed, and not emptied."""
    listing = await list_transcript(log.store, ONE)
    if listing.counts and await end(log, listing):
        await log.store.delete(keys_of([one for one in listing.stored if not one.ends_transcript]))


async def appends_later(ledger: Entries, log: SessionLog, gate: Gate) -> None:
    """Counts on the number that it has seen to be free."""
    await gate.pause()
    await appends("z")(ledger, log, gate)


@pytest.mark.parametrize("wrong", [merges_and_removes_at_once, removes_what_it_deletes])
def test_the_explorer_finds_a_removal_that_frees_young_numbers(wrong: Program) -> None:
    """Else it would prove nothing."""
    with pytest.raises(Violation):
        Explorer(processes(appends_later, appends("b", "c"), wrong, before="a"), budget=0).explore()
