"""Calls some way ahead of who reads them: in order, bounded, and ended when nobody reads on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from s3_checkpoint._concurrency.read_ahead import Budget, ReadAhead, each


async def test_results_come_in_order_whichever_call_ends_first() -> None:
    """The first may be the slowest."""
    last_done = asyncio.Event()

    async def call(item: int) -> int:
        if item == 0:
            await last_done.wait()
        if item == 3:
            last_done.set()
        return item * 10

    assert [result async for result in ReadAhead(each(range(4)), call, ahead=4)] == [0, 10, 20, 30]


@pytest.mark.parametrize("ahead", [1, 3, 100])
async def test_no_more_than_the_bound_are_under_way_or_unread(ahead: int) -> None:
    """A reader that stops reading stops the calls."""
    begun = 0

    async def call(item: int) -> int:
        nonlocal begun
        begun += 1
        return item

    async with aclosing(ReadAhead(each(range(50)), call, ahead=ahead)) as results:
        read = [await anext(results), await anext(results)]
        for _ in range(10):
            await asyncio.sleep(0)

        assert read == [0, 1]
        assert begun <= ahead + 2


async def test_an_error_comes_in_its_place() -> None:
    """After the results before it, and nothing after it; the calls under way are ended."""

    async def call(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        if item > 2:
            await asyncio.Event().wait()
        return item

    seen: list[int] = []

    async def read() -> None:
        async for result in ReadAhead(each(range(9)), call, ahead=5):
            seen.append(result)

    with pytest.raises(ValueError, match="two"):
        await read()

    assert seen == [0, 1]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_ends_the_calls_under_way() -> None:
    """And waits for their end."""
    ended: list[int] = []

    async def call(item: int) -> int:
        try:
            if item:
                await asyncio.Event().wait()
        finally:
            ended.append(item)
        return item

    async with aclosing(ReadAhead(each(range(9)), call, ahead=3)) as results:
        await anext(results)

    assert sorted(ended) == [0, 1, 2]


async def test_results_in_flight_or_unread_keep_to_the_budget() -> None:
    """Eight reads ahead of 30 MB each were 240 MB: with a budget, heavy results are read a few at a time."""
    begun = 0
    most = 0

    async def call(item: int) -> bytes:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0)
        return bytes(100)

    read = 0
    async with aclosing(ReadAhead(each(range(40)), call, ahead=8, budget=Budget(300, len))) as results:
        async for _ in results:
            read += 1
            for _ in range(4):
                await asyncio.sleep(0)
            most = max(most, begun - read)

    assert read == begun == 40
    assert 1 <= most <= 3


async def test_a_result_heavier_than_the_budget_goes_alone() -> None:
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

    results = [len(result) async for result in ReadAhead(each(range(6)), call, ahead=8, budget=Budget(300, len))]

    assert results == [1000] * 6
    assert most == 1


async def test_light_results_are_read_as_far_ahead_as_without_a_budget() -> None:
    """Once the first has shown what they weigh."""
    begun = 0

    async def call(item: int) -> bytes:
        nonlocal begun
        begun += 1
        return b"x"

    async with aclosing(ReadAhead(each(range(40)), call, ahead=8, budget=Budget(1000, len))) as results:
        await anext(results)
        assert begun == 1
        await anext(results)
        assert begun == 9


async def test_an_error_of_a_call_weighs_nothing_and_comes_in_its_place() -> None:
    """Also as the first result."""

    async def call(item: int) -> bytes:
        if item == 1:
            raise ValueError("one")
        return b"x"

    results = ReadAhead(each(range(4)), call, ahead=4, budget=Budget(1000, len))

    assert await anext(results) == b"x"
    with pytest.raises(ValueError, match="one"):
        await anext(results)


def test_a_budget_can_name_its_type() -> None:
    """Story: on Python 3.11, `Budget[int](…)` of a frozen dataclass with slots was a TypeError of the typing module."""
    assert Budget[bytes](300, len).limit == 300
