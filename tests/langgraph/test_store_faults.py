"""What the store makes of lost answers, conflicts and outages, and of other writers at the same item."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from langgraph.store.base import PutOp

from s3_checkpoint import MemoryStore
from s3_checkpoint.errors import AccessDeniedError, StoreUnavailableError
from s3_checkpoint.langgraph import S3Store
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.testing import Aim, AnswerLost, Conflict409, Counting, Denied, SlowDown503, Unanswered
from s3_checkpoint.testing.wrappers import Request, Send, StoreWrapper, T, Verb

PUT: Final = "PutObject"


class Before(StoreWrapper):
    """Something happens before the request is sent that the aim meets."""

    def __init__(self, store: ObjectStore, aim: Aim, happens: Callable[[], object]) -> None:
        super().__init__(store, aim)
        self.happens = happens

    async def around(self, request: Request, send: Send[T]) -> T:
        if self.aim.meets(request):
            await asyncio.to_thread(self.happens)
        return await send()


@pytest.fixture
def objects() -> MemoryStore:
    return MemoryStore()


async def no_wait(_: float) -> None:
    return None


@pytest.mark.parametrize("known", [False, True], ids=["created", "replaced"])
def test_a_put_whose_answer_is_lost_counts_once(objects: MemoryStore, known: bool) -> None:
    """Its repeat is refused by its own success; the write id tells."""
    counted = Counting(objects)
    memories = S3Store(AnswerLost(counted, Aim(PUT, first=2 if known else 1)))
    if known:
        memories.put(("a",), "k", {"n": 0})
        counted.reset()

    memories.put(("a",), "k", {"n": 1})

    assert counted.requests == {"PUT": 2, "GET": 1}
    memories.put(("a",), "k", {"n": 2})
    assert counted.requests == {"PUT": 3, "GET": 1}
    assert memories.get(("a",), "k").value == {"n": 2}  # type: ignore[union-attr]


@pytest.mark.parametrize("known", [False, True], ids=["created", "replaced"])
@pytest.mark.parametrize("landed", [False, True], ids=["lost", "landed"])
def test_a_put_that_is_never_answered_succeeds_if_it_landed_and_can_be_repeated_if_not(
    objects: MemoryStore, landed: bool, known: bool
) -> None:
    """What is read back tells."""
    memories = S3Store(Unanswered(objects, Aim(PUT, first=2 if known else 1), landed=landed))
    if known:
        memories.put(("a",), "k", {"n": 0})

    if landed:
        memories.put(("a",), "k", {"n": 1})
    else:
        with pytest.raises(StoreUnavailableError) as failed:
            memories.put(("a",), "k", {"n": 1})
        assert failed.value.outcome_unknown
        memories.put(("a",), "k", {"n": 1})

    assert memories.get(("a",), "k").value == {"n": 1}  # type: ignore[union-attr]


@pytest.mark.parametrize("known", [False, True], ids=["created", "replaced"])
def test_a_put_refused_for_another_write_in_progress_is_made_again(objects: MemoryStore, known: bool) -> None:
    """After a wait, which grows."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    aim = Aim(PUT, first=2 if known else 1, times=3)
    memories = S3Store(Conflict409(objects, aim), sleep=sleep, jitter=lambda: 0.5)
    if known:
        memories.put(("a",), "k", {"n": 0})

    memories.put(("a",), "k", {"n": 1})

    assert waits == [0.05, 0.1, 0.2]
    assert memories.get(("a",), "k").value == {"n": 1}  # type: ignore[union-attr]


def test_a_put_that_is_refused_for_ever_says_so(objects: MemoryStore) -> None:
    """It ends, and wrote nothing."""
    memories = S3Store(Conflict409(objects, Aim(PUT, times=10_000)), sleep=no_wait)

    with pytest.raises(StoreUnavailableError, match="first 100 times") as failed:
        memories.put(("a",), "k", {"n": 1})

    assert not failed.value.outcome_unknown
    assert objects._keys == []


def test_an_outage_is_told_and_the_call_can_be_repeated(objects: MemoryStore) -> None:
    """503 for each verb in turn."""
    memories = S3Store(objects)
    memories.put(("a",), "k", {"n": 0})
    calls: list[tuple[Verb, Callable[[S3Store], object]]] = [
        ("GetObject", lambda memories: memories.get(("a",), "k")),
        ("GetObject", lambda memories: memories.search(("a",))),
        ("ListObjectsV2", lambda memories: memories.search(("a",))),
        ("ListObjectsV2", lambda memories: memories.list_namespaces()),
        ("HeadObject", lambda memories: memories.sweep_ttl()),
        ("PutObject", lambda memories: memories.put(("a",), "new", {})),
        ("DeleteObjects", lambda memories: memories.delete(("a",), "new")),
    ]
    for verb, call in calls:
        faulty = S3Store(SlowDown503(objects, Aim(verb)))
        with pytest.raises(StoreUnavailableError):
            call(faulty)
        call(faulty)

    assert memories.get(("a",), "new") is None


def test_a_denied_read_is_no_empty_answer(objects: MemoryStore) -> None:
    """Neither of a get nor of a search."""
    S3Store(objects).put(("a",), "k", {})
    memories = S3Store(Denied(objects, Aim("GetObject", times=2)))

    with pytest.raises(AccessDeniedError):
        memories.get(("a",), "k")
    with pytest.raises(AccessDeniedError):
        memories.search(("a",))


def test_two_writers_of_one_item_put_one_over_the_other_and_keep_when_it_was_created(objects: MemoryStore) -> None:
    """Many puts at once, from two processes that do not know of each other; under lost answers and 409s."""
    S3Store(objects).put(("a",), "k", {"n": -1})
    created = S3Store(objects).get(("a",), "k").created_at  # type: ignore[union-attr]
    faults = [AnswerLost(objects, Aim(PUT, times=5)), Conflict409(objects, Aim(PUT, first=3, times=4))]

    async def write(faulty: ObjectStore, worker: int) -> None:
        memories = S3Store(faulty, sleep=no_wait)
        await asyncio.gather(*(memories.aput(("a",), "k", {"worker": worker, "n": n}) for n in range(10)))
        await memories.aput(("a",), "k", {"worker": worker, "n": "last"})

    async def both() -> None:
        await asyncio.gather(*(write(faulty, worker) for worker, faulty in enumerate(faults)))

    asyncio.run(both())

    found = S3Store(objects).get(("a",), "k")
    assert found is not None
    assert found.value["n"] == "last"
    assert found.created_at == created


def test_a_put_over_a_write_that_came_between_keeps_its_time_of_creation(objects: MemoryStore) -> None:
    """The item was removed, and created again by another worker, since this one read it."""
    other = S3Store(objects)
    other.put(("a",), "k", {"n": 0})

    def replace() -> None:
        other.delete(("a",), "k")
        other.put(("a",), "k", {"n": 1})

    memories = S3Store(Before(objects, Aim(PUT), replace))
    memories.get(("a",), "k")
    memories.put(("a",), "k", {"n": 2})

    created = other.get(("a",), "k")
    assert created is not None
    assert created.value == {"n": 2}
    assert created.created_at < created.updated_at


@pytest.mark.parametrize("same_process", [False, True], ids=["another process", "this process"])
def test_a_ttl_renewed_by_a_reader_never_brings_back_an_older_value(objects: MemoryStore, same_process: bool) -> None:
    """Story: the renewal of a slow reader must not replace what was put since it read."""
    time = datetime(2026, 11, 28, tzinfo=UTC)
    other = S3Store(objects, now=lambda: time)
    other.put(("a",), "k", {"n": 0}, ttl=10)
    time += timedelta(minutes=5)

    def put_another() -> None:
        (memories if same_process else other).put(("a",), "k", {"n": 1}, ttl=20)

    memories = S3Store(Before(objects, Aim(PUT), put_another), now=lambda: time)
    memories.get(("a",), "k")

    assert other.get(("a",), "k").value == {"n": 1}  # type: ignore[union-attr]
    time += timedelta(minutes=19)
    assert other.get(("a",), "k") is not None


def test_a_search_renews_over_what_it_has_read_and_not_over_what_this_process_has_put_since(
    objects: MemoryStore,
) -> None:
    """The put comes while another item of the page is still being read."""
    time = datetime(2026, 11, 28, tzinfo=UTC)
    S3Store(objects, now=lambda: time).batch([PutOp(("a",), key, {"n": 0}, ttl=10) for key in "xy"])
    time += timedelta(minutes=5)
    aim = Aim("GetObject", under="y.json")
    memories = S3Store(Before(objects, aim, lambda: memories.put(("a",), "x", {"n": 1}, ttl=10)), now=lambda: time)

    memories.search(("a",))

    assert memories.get(("a",), "x").value == {"n": 1}  # type: ignore[union-attr]


def test_an_item_that_goes_between_listing_and_reading_is_left_out(objects: MemoryStore) -> None:
    """Another takes its place on the page."""
    plain = S3Store(objects)
    plain.batch([PutOp(("x" * 200,), str(n), {"n": n}) for n in range(3)])
    memories = S3Store(Before(objects, Aim("GetObject"), lambda: plain.delete(("x" * 200,), "0")))
    newest_first = [found.key for found in plain.search(())]
    plain.put(("x" * 200,), "0", {"n": 0})

    found = memories.search((), limit=2)

    assert sorted(newest_first) == ["0", "1", "2"]
    assert sorted(item.key for item in found) == ["1", "2"]
    assert memories.list_namespaces() == [("x" * 200,)]


class Held(StoreWrapper):
    """The request takes effect, and its answer never comes."""

    landed = threading.Event()

    async def around(self, request: Request, send: Send[T]) -> T:
        answer = await send()
        if self.aim.meets(request):
            self.landed.set()
            await asyncio.Event().wait()
        return answer


def test_a_cancelled_call_leaves_the_store_usable(objects: MemoryStore) -> None:
    """What became of its put is as if its answer had been lost."""
    held = Held(objects, Aim(PUT))
    memories = S3Store(held)

    async def use() -> None:
        call = asyncio.create_task(memories.aput(("a",), "k", {"n": 1}))
        await asyncio.to_thread(held.landed.wait)

        call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call
        await memories.aput(("a",), "k", {"n": 2})

    asyncio.run(use())

    assert memories.get(("a",), "k").value == {"n": 2}  # type: ignore[union-attr]
