"""Every order in which workers can meet at a lease, with crashes and lost answers at every request.

The explorer is that of `tests/proofs/scheduler.py`. What holds on all of them: no worker replaces the record of
another before it is released or has expired by the store's clock; of those who believe to hold the lease, at most one
is within its time to live; an epoch is never used twice; and in the end the lease can be had again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from s3_checkpoint import LeaseHeldError, S3Checkpointer, StoreUnavailableError
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._leases import lease_object
from s3_checkpoint._leases.lease_object import LeaseObject
from s3_checkpoint._leases.record import LeaseRecord
from s3_checkpoint.lease import Lease, lease
from s3_checkpoint.object_store import Written
from s3_checkpoint.testing import Request
from tests.proofs.scheduler import FAULTS, LATE, Explorer, Gate, Ledger, Scenario, Violation, World
from tests.states import Counter

RUN = UUID(int=7)
KEY = RunKeys("", RUN).lease
TTL_S = 30.0
RENEWAL, EXPIRY = timedelta(seconds=11), timedelta(seconds=33)


@dataclass(slots=True)
class Holders(Ledger):
    """Who may believe what."""

    world: World
    lease_type: type[LeaseObject] = LeaseObject
    inside: dict[str, Lease] = field(default_factory=dict)
    epochs: dict[int, str] = field(default_factory=dict)
    last: tuple[LeaseRecord, datetime] | None = None

    def __post_init__(self) -> None:
        def after(actor: int, request: Request, answer: object) -> None:
            if request.verb == "PutObject" and isinstance(answer, Written):
                self.written()

        self.world.after = after

    def written(self) -> None:
        """A lease record has just been written over the last one."""
        stored = self.world.store._objects[KEY]
        record = LeaseRecord.parse(stored.body)
        if self.last is not None:
            before, since = self.last
            expired = self.world.clock.now() >= since + timedelta(seconds=before.ttl_s)
            if record.lease != before.lease and not (before.released or expired):
                raise Violation(f"{record.holder} took over from {before.holder}, who may still work")
        if self.epochs.setdefault(record.epoch, record.lease) != record.lease:
            raise Violation(f"epoch {record.epoch} was given twice")
        self.last = record, stored.head.last_modified

    def fingerprint(self) -> Hashable:
        return tuple(sorted(self.inside)), self.last

    def look(self, world: World) -> None:
        working = []
        for name, one in self.inside.items():
            holding = one._keeper._holding
            if holding is not None and holding.until > world.clock.monotonic():
                working.append(name)
        if len(working) > 1:
            raise Violation(f"{working} hold the lease at one time")

    def close(self, world: World) -> None:
        world.clock.passed += timedelta(hours=1)
        self.enter("afterwards", world.gate("afterwards"))

    def enter(self, name: str, gate: Gate) -> None:
        """One more worker, who must get it."""
        task = asyncio.Task(works(self, gate, name), loop=self.world.loop)
        self.world.run_until_quiet()
        while self.world.waiting:
            self.world.settle(self.world.waiting[0], "done")
        if not task.done() or task.result() is None:
            raise Violation("nobody can have the lease any more")


async def works(ledger: Holders, gate: Gate, name: str) -> int | None:
    """Takes the lease, works for as long as the explorer likes, gives it back; what epoch it had."""
    lease_object._honours_if_match.add(gate)
    names = iter(range(100))
    checkpointer = S3Checkpointer(
        Counter,
        gate,
        monotonic=ledger.world.clock.monotonic,
        new_id=lambda: f"{name}-{next(names)}",
        jitter=lambda: 0.5,
    )
    held = lease(checkpointer, RUN, TTL_S, holder=name)
    make = held._keeper._lease_of
    held._keeper._lease_of = partial(ledger.lease_type, **make.keywords)  # type: ignore[attr-defined]
    try:
        async with held as mine:
            ledger.inside[name] = held
            try:
                await gate.pause()
            finally:
                del ledger.inside[name]
            return mine.epoch
    except (LeaseHeldError, StoreUnavailableError):
        return None


def workers(*names: str, lease_type: type[LeaseObject] = LeaseObject) -> Scenario:
    def scenario(world: World) -> Holders:
        ledger = Holders(world, lease_type)
        for name in names:
            gate = world.gate(name)

            async def program(gate: Gate = gate, name: str = name) -> None:
                await works(ledger, gate, name)

            world.start(program(), gate)
        return ledger

    return scenario


EXPLORED: dict[str, Explorer] = {
    "two workers": Explorer(workers("a", "b"), budget=1),
    "two workers, and a time to live passes": Explorer(workers("a", "b"), budget=1, leaps=[EXPIRY]),
    "two workers, a renewal and an expiry": Explorer(workers("a", "b"), budget=0, leaps=[RENEWAL, EXPIRY]),
    "one worker and its renewals": Explorer(workers("a"), budget=1, leaps=[RENEWAL, EXPIRY]),
    "two workers and writes that come late": Explorer(workers("a", "b"), LATE, budget=1, leaps=[EXPIRY]),
    "three workers": Explorer(workers("a", "b", "c"), budget=0),
}


WIDE = [
    "two workers, and a time to live passes",
    "two workers, a renewal and an expiry",
    "two workers and writes that come late",
]
"""More than a few hundred schedules: at random here, in every order with the long tests."""


@pytest.mark.parametrize("name", WIDE)
def test_at_most_one_of_two_holders_at_random_is_within_its_time_to_live(name: str) -> None:
    """The same; always the same orders."""
    assert EXPLORED[name].sample(100, seed=0).requests > 400


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in WIDE else ()) for name in EXPLORED]
)
def test_at_most_one_of_two_holders_is_within_its_time_to_live(name: str) -> None:
    """In every order, with a fault at every request."""
    report = EXPLORED[name].explore()

    print(report)
    assert report.schedules > 5


@pytest.mark.long
def test_one_worker_and_its_renewals_with_two_faults() -> None:
    """A renewal that fails after one that failed."""
    print(Explorer(workers("a"), budget=2, leaps=[RENEWAL, RENEWAL, EXPIRY]).explore())


def test_three_workers_with_faults_and_expiries_sampled() -> None:
    """Wider than can be exhausted."""
    explorer = Explorer(workers("a", "b", "c"), (*FAULTS, *LATE), budget=2, leaps=[RENEWAL, EXPIRY, RENEWAL, EXPIRY])

    print(explorer.sample(200, seed=19))


class TakesOverTooEarly(LeaseObject):
    """Wrong: believes its own clock's idea of a time to live."""

    async def _check_expired(self, found: Any) -> None:
        if found.date - found.last_modified < timedelta(seconds=10):
            await super()._check_expired(found)


class NeverReadsBack(LeaseObject):
    """Wrong: takes over whatever is there, without a precondition that names it."""

    async def _put(self, record: LeaseRecord, mode: Any) -> Any:
        return await super()._put(record, "overwrite")


@pytest.mark.parametrize("wrong", [TakesOverTooEarly, NeverReadsBack])
def test_the_explorer_finds_a_lease_that_is_wrong(wrong: type[LeaseObject]) -> None:
    """Else it would prove nothing."""
    explorer = Explorer(workers("a", "b", lease_type=wrong), budget=1, leaps=[RENEWAL])

    with pytest.raises(Violation):
        explorer.explore()
