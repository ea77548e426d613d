"""A lease keeps others away while it is renewed, and no longer than its time to live after that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from s3_checkpoint import (
    ConfigurationError,
    InvalidArgumentError,
    LeaseHeldError,
    LifecycleError,
    MemoryStore,
    RunAdmin,
    S3Checkpointer,
    S3Settings,
    StateDecodingError,
    StoreUnavailableError,
    SyncS3Checkpointer,
)
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._leases.record import LeaseRecord
from s3_checkpoint.lease import Lease, lease
from s3_checkpoint.object_store import (
    ObjectAttributes,
    ObjectHead,
    ObjectStore,
    PutMode,
    Refused,
    StoredObject,
    Written,
)
from s3_checkpoint.testing import Aim, AnswerLost, Conflict409, Request, Send, StoreWrapper, Unanswered
from s3_checkpoint.testing.counting import Counting
from s3_checkpoint.testing.wrappers import T
from tests.request_tables import requests_on
from tests.states import Counter

RUN = UUID(int=7)
KEY = RunKeys("", RUN).lease


class StoreClock:
    """The store's time, which passes when a test says so."""

    def __init__(self, begin: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.time = begin

    def __call__(self) -> datetime:
        return self.time

    def passes(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> StoreClock:
    return StoreClock()


@pytest.fixture
def memory(clock: StoreClock) -> MemoryStore:
    return MemoryStore(now=clock)


def worker(store: ObjectStore, **options: Any) -> S3Checkpointer[Counter]:
    return S3Checkpointer(Counter, store, **options)


def leased(store: ObjectStore, holder: str = "a", ttl_s: float = 30, **options: Any) -> Lease:
    return lease(worker(store), RUN, ttl_s, holder=holder, **options)


async def record(store: ObjectStore) -> LeaseRecord:
    stored = await store.get(KEY, max_bytes=10_000)
    assert stored is not None
    return LeaseRecord.parse(stored.body)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():  # noqa: ASYNC110 - what is waited for is of another thread or a store
            await asyncio.sleep(0.01)


async def test_a_second_worker_is_told_who_holds_the_lease(store: ObjectStore) -> None:
    """Holder, purpose and the seconds after which it would be free."""
    async with leased(store, purpose="nightly") as held:
        with pytest.raises(LeaseHeldError) as refused:
            async with leased(store, "b"):
                pass

    assert (held.holder, held.purpose, held.epoch, held.lost.is_set()) == ("a", "nightly", 1, False)
    assert (refused.value.holder, refused.value.purpose, refused.value.retryable) == ("a", "nightly", True)
    assert 25 < refused.value.seconds_left <= 33
    assert refused.value.key == KEY


async def test_a_released_lease_is_free_at_once_and_its_epoch_grows(store: ObjectStore) -> None:
    """Each holder has a greater number than all before it."""
    epochs = []
    for holder in "abc":
        async with leased(store, holder) as held:
            epochs.append(held.epoch)

    assert epochs == [1, 2, 3]
    assert (await record(store)).released


@pytest.mark.parametrize(("seconds", "free"), [(31.9, False), (32, True)])
async def test_a_lease_can_be_taken_over_only_when_it_has_expired_by_the_clock_of_the_store(
    memory: MemoryStore, clock: StoreClock, seconds: float, free: bool
) -> None:
    """Its time to live is 30 s; two more are for a clock that tells whole seconds."""
    await _crashed(memory)
    clock.passes(seconds)

    if free:
        async with leased(memory, "b") as held:
            assert held.epoch == 2
    else:
        with pytest.raises(LeaseHeldError):
            async with leased(memory, "b"):
                pass


@pytest.mark.parametrize("hours", [-1, 0, 1])
async def test_the_clock_of_the_process_plays_no_part(hours: int) -> None:
    """A store an hour ahead or behind judges by its own time alone."""
    clock = StoreClock(datetime.now(UTC) + timedelta(hours=hours))
    memory = MemoryStore(now=clock)
    await _crashed(memory)

    with pytest.raises(LeaseHeldError) as refused:
        async with leased(memory, "b"):
            pass
    clock.passes(33)
    async with leased(memory, "b") as held:
        epoch = held.epoch

    assert refused.value.seconds_left == 32
    assert epoch == 2


async def _crashed(store: ObjectStore, ttl_s: float = 30) -> None:
    """A worker has taken the lease, and is gone."""
    await leased(store, "gone", ttl_s)._keeper._lease_of(store).take("gone", "", ttl_s)


async def test_the_lease_is_renewed_while_the_block_runs(memory: MemoryStore) -> None:
    """Three times within its time to live."""
    counting = Counting(memory)

    async with leased(counting, ttl_s=1) as held:
        await until(lambda: counting.requests["PUT"] >= 5)

        assert not held.lost.is_set()

    assert (await record(memory)).epoch == 1


async def test_a_lost_lease_cancels_the_block_and_says_who_has_it(memory: MemoryStore, clock: StoreClock) -> None:
    """`held.lost` is set before the cancellation is seen."""
    seen: list[bool] = []

    async def works_on() -> None:
        async with leased(memory, ttl_s=3) as held:
            clock.passes(6)
            async with leased(memory, "b", 60):
                try:
                    await asyncio.sleep(30)
                finally:
                    seen.append(held.lost.is_set())

    with pytest.raises(LeaseHeldError, match="taken over") as lost:
        await works_on()

    assert seen == [True]
    assert lost.value.holder == "b"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_lost_lease_is_told_even_if_the_block_ends_by_itself(memory: MemoryStore) -> None:
    """What was done may have been done twice; the caller hears of it, and the next await is not cancelled."""

    async def works_on() -> None:
        async with leased(memory, ttl_s=1) as held:
            await memory.delete([KEY])
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
            assert held.lost.is_set()

    with pytest.raises(LeaseHeldError, match="removed"):
        await works_on()

    await asyncio.sleep(0)


async def test_an_error_of_the_block_comes_through(memory: MemoryStore) -> None:
    """And the lease is given back."""
    with pytest.raises(ZeroDivisionError):
        async with leased(memory):
            raise ZeroDivisionError

    assert (await record(memory)).released


async def test_cancelling_the_block_from_outside_stays_a_cancellation(memory: MemoryStore) -> None:
    """The lease is given back all the same."""

    async def work() -> None:
        async with leased(memory):
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await until(lambda: KEY in memory._objects)
    await asyncio.sleep(0.01)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await record(memory)).released


async def test_renewals_without_an_answer_lose_the_lease_in_time(memory: MemoryStore) -> None:
    """The holder gives up before anybody could take it over: by when it sent its last write that landed."""
    silent = Unanswered(memory, Aim("PutObject", "lease", first=2, times=1000), landed=False)

    with pytest.raises((StoreUnavailableError, LeaseHeldError)):
        async with lease(_trusting(silent), RUN, 1):
            await asyncio.sleep(30)


def _trusting(store: ObjectStore) -> S3Checkpointer[Counter]:
    """Of a store that has been seen to honour `If-Match` already."""
    from s3_checkpoint._leases.lease_object import _honours_if_match

    _honours_if_match.add(store)
    return worker(store)


class Breaks(StoreWrapper):
    """A store with a fault of its own: it raises what no store may."""

    async def around(self, request: Request, send: Send[T]) -> T:
        if self.aim.meets(request):
            raise ZeroDivisionError
        return await send()


async def test_a_fault_while_renewing_loses_the_lease_and_is_not_swallowed(memory: MemoryStore) -> None:
    """Else the block would continue with a lease that nobody renews."""
    store = Breaks(memory, Aim("PutObject", "lease", first=2))

    with pytest.raises(LeaseHeldError, match="internal") as lost:
        async with lease(_trusting(store), RUN, 1):
            await asyncio.sleep(30)

    assert isinstance(lost.value.__cause__, ZeroDivisionError)


async def test_lease_is_held_for_as_long_as_at_most_s_allows(memory: MemoryStore) -> None:
    """What is stored never says more than that."""
    seen: list[float] = []

    async def works_on() -> None:
        async with leased(memory, ttl_s=30, at_most_s=1):
            seen.append((await record(memory)).ttl_s)
            await asyncio.sleep(30)

    with pytest.raises(LeaseHeldError, match="at_most_s"):
        await works_on()

    assert seen == [1]


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_lost_answer_is_resolved_by_reading_back(memory: MemoryStore, number: int, landed: bool) -> None:
    """Of taking, renewing and giving back: the lease is held by one, and free after."""
    store: ObjectStore = (
        AnswerLost(memory, Aim("PutObject", "lease", first=number))
        if landed
        else Conflict409(memory, Aim("PutObject", "lease", first=number))
    )

    async with lease(_trusting(store), RUN, 1, holder="a") as held:
        await until(lambda: store.aim.met >= 3)  # type: ignore[attr-defined]
        assert not held.lost.is_set()

    assert (await record(memory)).released
    async with leased(memory, "b") as held:
        assert held.epoch == 2


async def test_a_take_that_is_never_answered_counts_if_it_is_there(memory: MemoryStore) -> None:
    """One read tells; else the error stays, and nobody is locked out by it for longer than the time to live."""
    store = Unanswered(memory, Aim("PutObject", "lease"), landed=True)

    async with lease(_trusting(store), RUN, holder="a") as held:
        assert held.epoch == 1

    silent = Unanswered(memory, Aim("PutObject", "lease"), landed=False)
    with pytest.raises(StoreUnavailableError):
        async with lease(_trusting(silent), RUN, holder="a"):
            pass


class IgnoresIfMatch(StoreWrapper):
    """A store that has heard of `If-None-Match` alone."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        return await super().put(key, body, attributes, mode="create" if mode == "create" else "overwrite")


async def test_a_store_without_if_match_is_a_configuration_error(memory: MemoryStore) -> None:
    """Found out before anything is held."""
    with pytest.raises(ConfigurationError, match="If-Match"):
        async with leased(IgnoresIfMatch(memory)):
            pytest.fail("nothing is held")
    with pytest.raises(ConfigurationError, match="conditional_writes"):
        lease(worker(memory, conditional_writes=False), RUN)


class WithoutDate(StoreWrapper):
    """A transport that does not tell what the store's clock says."""

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        stored = await super().get(key, max_bytes=max_bytes)
        if stored is None:
            return None
        head = stored.head
        return StoredObject(stored.body, ObjectHead(head.attributes, head.etag, head.size, head.last_modified))


@pytest.mark.parametrize(("seconds", "free"), [(31, False), (33, True)])
async def test_a_transport_without_date_asks_the_store_for_the_time_by_a_write(
    memory: MemoryStore, clock: StoreClock, seconds: float, free: bool
) -> None:
    """`Last-Modified` of a write is the store's clock too; 2 requests more."""
    counting = Counting(memory)
    store = WithoutDate(counting)
    await _crashed(store)
    clock.passes(seconds)
    counting.reset()

    try:
        async with leased(store, "b"):
            held = True
    except LeaseHeldError:
        held = False

    assert held == free
    assert counting.requests["HEAD"] == 1


async def test_objects_that_are_no_lease_are_errors_and_stay(memory: MemoryStore) -> None:
    """Nothing is guessed of a foreign object, and nothing is written over it."""
    for body in (b"no", b"[]", b'{"format": 2}', json.dumps({"format": 1, "epoch": 0}).encode()):
        await memory.put(KEY, body, ObjectAttributes(), mode="overwrite")
        with pytest.raises(StateDecodingError):
            async with leased(memory):
                pass

    stored = await memory.get(KEY, max_bytes=1000)
    assert stored is not None
    assert stored.body == json.dumps({"format": 1, "epoch": 0}).encode()


@pytest.mark.parametrize(
    "options",
    [
        {"ttl_s": 0.5},
        {"ttl_s": 90_000},
        {"ttl_s": float("nan")},
        {"ttl_s": 10**400},
        {"ttl_s": "30"},
        {"holder": "x" * 201},
        {"purpose": 7},
        {"at_most_s": 0},
    ],
    ids=["ttl-small", "ttl-large", "ttl-nan", "ttl-huge", "ttl-text", "holder", "purpose", "at-most"],
)
def test_bounds_are_checked_before_any_request(memory: MemoryStore, options: dict[str, Any]) -> None:
    """And a run id is one."""
    with pytest.raises(InvalidArgumentError):
        lease(worker(memory), RUN, **options)
    with pytest.raises(InvalidArgumentError):
        lease(worker(memory), "no-uuid")


async def test_a_lease_is_entered_once(memory: MemoryStore) -> None:
    """Each holding has an object of its own."""
    once = leased(memory)
    async with once:
        pass

    with pytest.raises(LifecycleError):
        async with once:
            pass


async def test_requests_are_as_the_table_says(memory: MemoryStore) -> None:
    """Each row of it."""
    counting = Counting(memory)
    checkpointer = worker(counting)

    taken: dict[str, dict[str, int]] = {}
    first = lease(checkpointer, RUN, 1)
    await first.__aenter__()
    taken["taken, the first lease of a process"] = counting.taken()
    await until(lambda: bool(counting.requests))
    taken["renewed"] = counting.taken()
    with pytest.raises(LeaseHeldError):
        async with lease(checkpointer, RUN):
            pass
    taken["refused"] = counting.taken()
    await first.__aexit__(None, None, None)
    taken["released"] = counting.taken()
    async with lease(checkpointer, RUN):
        taken["taken"] = counting.taken()

    assert taken == requests_on("guides/leases.md")
    assert len(taken) == 5


async def test_a_lease_is_no_step_and_goes_with_its_run(memory: MemoryStore) -> None:
    """`list`, `resume` and `prune` do not see it; `delete` removes it, and the holder loses it."""
    checkpointer = worker(memory)
    admin = RunAdmin(checkpointer)
    async with lease(checkpointer, RUN):
        listed, resumed = await checkpointer.list(RUN), await checkpointer.resume(RUN)
        await checkpointer.commit(RUN, 0, Counter(n=1), [])
        pruned = await admin.prune(RUN, keep_last=1, grace=timedelta(0))
        newest = await checkpointer.resume(RUN)
        activity = [found async for found in admin.activity()]
        assert KEY in memory._objects

    async def works_on() -> None:
        async with lease(checkpointer, RUN, 1):
            await admin.delete(RUN, grace=timedelta(0))
            await asyncio.sleep(30)

    with pytest.raises(LeaseHeldError, match="removed"):
        await works_on()

    assert (listed, resumed) == ([], None)
    assert (pruned.kept, pruned.states, pruned.snapshots) == (1, 0, 0)
    assert newest is not None
    assert newest.step == 0
    assert [(found.run_id, found.newest_step) for found in activity] == [(RUN, 0)]
    assert not memory._objects


def test_the_sync_form_holds_a_lease_in_any_thread(settings: S3Settings) -> None:
    """Another thread is refused while the block runs, and served after it."""
    with SyncS3Checkpointer(Counter, settings) as checkpointer:
        answers: list[object] = []

        def rival() -> None:
            try:
                with checkpointer.lease(RUN, holder="b") as held:
                    answers.append(held.epoch)
            except LeaseHeldError as error:
                answers.append(error.holder)

        with checkpointer.lease(RUN, holder="a") as held:
            threading.Thread(target=rival).start()
            while not answers:
                held.lost.wait(0.01)
        rival()

        def works_on() -> None:
            with checkpointer.lease(RUN, 1, holder="a") as held:
                checkpointer.delete(RUN, grace=timedelta(0))
                assert held.lost.wait(20)

        with pytest.raises(LeaseHeldError):
            works_on()

    assert answers == ["a", 2]


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=pytest.mark.long)])
async def test_exactly_one_of_twenty_contenders_holds_the_lease_at_a_time(store: ObjectStore, rounds: int) -> None:
    """Each round begins with all of them asking at once, and one gets it."""
    checkpointers = [worker(store) for _ in range(20)]
    inside = 0
    most = 0
    epochs: list[int] = []

    async def contender(number: int, gate: asyncio.Event, asked: list[int]) -> bool:
        nonlocal inside, most
        try:
            async with lease(checkpointers[number], RUN, 60, holder=f"w{number}") as held:
                inside += 1
                most = max(most, inside)
                epochs.append(held.epoch)
                await gate.wait()
                inside -= 1
        except LeaseHeldError:
            return False
        else:
            return True
        finally:
            asked.append(number)
            if len(asked) == len(checkpointers) - 1:
                gate.set()

    for _ in range(rounds):
        gate = asyncio.Event()
        asked: list[int] = []
        winners = await asyncio.gather(*(contender(number, gate, asked) for number in range(20)))
        assert sum(winners) == 1

    assert most == 1
    assert epochs == list(range(1, rounds + 1))
