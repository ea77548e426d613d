"""Bounded concurrency: results in order, no more tasks than the bound, the first error itself, nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest

from s3_checkpoint._concurrency.gather import Budget, both, each, gather_bounded, ordered_map, task_group


class Calls:
    """Calls that end when told to, and how many have begun, are in flight and have ended."""

    def __init__(self, awaited: int = 0) -> None:
        self._awaited = awaited
        self.have_begun = asyncio.Event()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.made = 0
        self.most = 0
        self.gate = asyncio.Event()

    def make(self, count: int, failing: frozenset[int] = frozenset()) -> Iterator[Coroutine[Any, Any, int]]:
        for item in range(count):
            self.made += 1
            yield self.call(item, item in failing)

    async def call(self, item: int, fails: bool = False) -> int:
        self.begun.append(item)
        if len(self.begun) == self._awaited:
            self.have_begun.set()
        self.most = max(self.most, len(self.begun) - len(self.ended))
        try:
            if fails:
                raise ValueError(item)
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.ended.append(item)
        return item * 10


@pytest.mark.parametrize("count", [0, 1, 3, 50])
async def test_gather_bounded_gives_all_results_in_order(count: int) -> None:
    """However many there are, from a list or from a generator."""
    calls = Calls()
    calls.gate.set()
    expected = [item * 10 for item in range(count)]

    assert await gather_bounded(calls.make(count), limit=3) == expected
    assert await gather_bounded(list(calls.make(count)), limit=3) == expected


async def test_gather_bounded_holds_no_more_tasks_and_coroutines_than_its_bound() -> None:
    """Story: 20,000 calls, 64 at a time, were 20,001 tasks from the start."""
    calls = Calls(8)
    before = len(asyncio.all_tasks())

    whole = asyncio.create_task(gather_bounded(calls.make(20_000), limit=8))
    await calls.have_begun.wait()

    assert calls.made == 8
    assert len(asyncio.all_tasks()) - before == 1 + 8
    calls.gate.set()
    assert len(await whole) == 20_000
    assert calls.most == 8


async def test_gather_bounded_raises_the_first_error_itself_and_ends_the_others() -> None:
    """Not an `ExceptionGroup`; its context stays what it was, and calls that have not begun never begin."""
    calls = Calls()

    with pytest.raises(ValueError, match="2") as raised:
        await gather_bounded(calls.make(50, frozenset({2, 3})), limit=4)

    assert raised.value.__context__ is None
    assert sorted(calls.ended) == [0, 1, 2, 3]
    assert calls.made == 4
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_gather_bounded_closes_coroutines_that_never_began() -> None:
    """Python would warn of each ("was never awaited"), and warnings are errors here."""
    calls = Calls()

    with pytest.raises(ValueError, match="0"):
        await gather_bounded([calls.call(item, item == 0) for item in range(9)], limit=1)

    assert calls.begun == [0]


async def test_gather_bounded_cancelled_ends_its_calls_first() -> None:
    """Nothing continues behind a call that has ended."""
    calls = Calls(3)
    whole = asyncio.create_task(gather_bounded(calls.make(9), limit=3))
    await calls.have_begun.wait()

    whole.cancel()
    await asyncio.wait([whole])

    assert whole.cancelled()
    assert sorted(calls.ended) == [0, 1, 2]


async def test_gather_bounded_is_cancelled_by_a_call_that_is() -> None:
    """A future below it was cancelled, say: a `TaskGroup` would take the call as done, without a result."""
    calls = Calls()

    async def cancelled() -> int:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await gather_bounded([calls.call(0), cancelled(), calls.call(2)])

    assert sorted(calls.ended) == [0, 2]


async def test_gather_bounded_raises_what_its_generator_raises() -> None:
    """At once or after some calls."""
    calls = Calls()
    calls.gate.set()

    def broken(after: int) -> Iterator[Coroutine[Any, Any, int]]:
        yield from calls.make(after)
        raise KeyError("broken")

    for after in (0, 1, 5):
        with pytest.raises(KeyError, match="broken"):
            await gather_bounded(broken(after), limit=2)


async def test_gather_bounded_leaves_a_timeout_to_its_caller() -> None:
    """`asyncio.timeout` around it works as around any call."""
    calls = Calls()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await gather_bounded(calls.make(9))

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_both_gives_two_results_of_different_types() -> None:
    """Or the first error, once the other call has ended."""
    calls = Calls()

    async def word() -> str:
        calls.gate.set()
        return "word"

    assert await both(calls.call(1), word()) == (10, "word")

    calls.gate.clear()
    with pytest.raises(ValueError, match="1"):
        await both(calls.call(0), calls.call(1, fails=True))
    assert calls.ended == [1, 1, 0]


async def test_task_group_raises_an_error_of_its_block_itself() -> None:
    """Once its tasks are cancelled and have ended."""
    calls = Calls()

    async def block() -> None:
        async with task_group() as group:
            group.create_task(calls.call(0))
            await asyncio.sleep(0)
            raise KeyError("block")

    with pytest.raises(KeyError, match="block"):
        await block()

    assert calls.ended == [0]


async def test_ordered_map_takes_an_async_iterator_and_closes_it() -> None:
    """A listing, say, that is read as far as it is needed."""
    closed = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            async for item in each(range(9)):
                yield item
        finally:
            closed.set()

    async def call(item: int) -> int:
        return item

    async with ordered_map(call, items(), ahead=2) as results:
        assert await anext(results) == 0

    assert closed.is_set()


async def test_ordered_map_gives_results_in_order_whichever_call_ends_first() -> None:
    """The first may be the slowest."""
    last_done = asyncio.Event()

    async def call(item: int) -> int:
        if item == 0:
            await last_done.wait()
        if item == 3:
            last_done.set()
        return item * 10

    assert [result async for result in ordered_map(call, range(4), ahead=4)] == [0, 10, 20, 30]


@pytest.mark.parametrize("ahead", [1, 3, 100])
async def test_ordered_map_has_no_more_than_the_bound_in_flight_or_unread(ahead: int) -> None:
    """A reader that stops reading stops the calls."""
    begun = 0

    async def call(item: int) -> int:
        nonlocal begun
        begun += 1
        return item

    async with ordered_map(call, range(50), ahead=ahead) as results:
        read = [await anext(results), await anext(results)]
        for _ in range(10):
            await asyncio.sleep(0)

        assert read == [0, 1]
        assert begun <= ahead + 2


async def test_ordered_map_raises_an_error_in_its_place() -> None:
    """After the results before it, and nothing after it; the calls in flight are ended."""

    async def call(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        if item > 2:
            await asyncio.Event().wait()
        return item

    seen: list[int] = []

    async def read() -> None:
        async for result in ordered_map(call, range(9), ahead=5):
            seen.append(result)

    with pytest.raises(ValueError, match="two"):
        await read()

    assert seen == [0, 1]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_ordered_map_closed_ends_the_calls_in_flight() -> None:
    """And waits for their end."""
    ended: list[int] = []

    async def call(item: int) -> int:
        try:
            if item:
                await asyncio.Event().wait()
        finally:
            ended.append(item)
        return item

    async with ordered_map(call, range(9), ahead=3) as results:
        await anext(results)

    assert sorted(ended) == [0, 1, 2]


async def test_ordered_map_keeps_results_in_flight_or_unread_within_the_budget() -> None:
    """Eight reads ahead of 30 MB each were 240 MB: with a budget, heavy results are read a few at a time."""
    begun = 0
    most = 0

    async def call(item: int) -> bytes:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0)
        return bytes(100)

    read = 0
    async with ordered_map(call, range(40), ahead=8, budget=Budget(300, len)) as results:
        async for _ in results:
            read += 1
            for _ in range(4):
                await asyncio.sleep(0)
            most = max(most, begun - read)

    assert read == begun == 40
    assert 1 <= most <= 3


async def test_ordered_map_reads_a_result_heavier_than_the_budget_alone() -> None:
    """It is read all the same, and nothing with it."""
    in_flight = 0
    most = 0

    async def call(item: int) -> bytes:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return bytes(1000)

    results = [len(result) async for result in ordered_map(call, range(6), ahead=8, budget=Budget(300, len))]

    assert results == [1000] * 6
    assert most == 1


async def test_ordered_map_reads_light_results_as_far_ahead_as_without_a_budget() -> None:
    """Once the first has shown what they weigh."""
    begun = 0

    async def call(item: int) -> bytes:
        nonlocal begun
        begun += 1
        return b"x"

    async with ordered_map(call, range(40), ahead=8, budget=Budget(1000, len)) as results:
        await anext(results)
        assert begun == 1
        await anext(results)
        assert begun == 9


async def test_ordered_map_counts_no_bytes_for_an_error() -> None:
    """Also as the first result."""

    async def call(item: int) -> bytes:
        if item == 1:
            raise ValueError("one")
        return b"x"

    results = ordered_map(call, range(4), ahead=4, budget=Budget(1000, len))

    assert await anext(results) == b"x"
    with pytest.raises(ValueError, match="one"):
        await anext(results)


def test_a_budget_can_name_its_type() -> None:
    """Story: on Python 3.11, `Budget[int](…)` of a frozen dataclass with slots was a TypeError of the typing module."""
    assert Budget[bytes](300, len).limit == 300
