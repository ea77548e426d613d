"""Steps from the newest down: as they are asked for, whatever the gaps between them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_checkpoint._format.keys import MAX_STEP, RunKeys
from s3_checkpoint._runs.step_search import StepIndex
from tests.runs.listing_stores import CountedStore
from tests.states import RUN

KEYS = RunKeys("", RUN)


async def backwards(store: CountedStore) -> list[int]:
    return [step async for step in StepIndex(store).backwards(KEYS)]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [0],
        [MAX_STEP],
        range(1000),
        range(1001),
        range(3500),
        range(0, 500_000, 250),
        [*range(1500), *range(2**40, 2**40 + 1500), 2**63, MAX_STEP],
        [step**3 for step in range(1200)],
    ],
    ids=["none", "0", "greatest", "1000", "1001", "3500", "sparse", "clusters", "thinning"],
)
@pytest.mark.parametrize("page_keys", [1000, 130])
async def test_every_step_comes_once_from_the_newest_down(steps: Sequence[int], page_keys: int) -> None:
    """Also from a store whose pages are short."""
    store = CountedStore(page_keys=page_keys)
    await store.fill(KEYS, steps, others=["readme.txt", "00000000000000000003.json.bak"])

    assert await backwards(store) == sorted(steps, reverse=True)


@given(st.sets(st.integers(0, 300) | st.integers(0, 10**6) | st.integers(0, MAX_STEP), max_size=60), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
async def test_any_steps_come_in_descending_order(steps: set[int], page_keys: int) -> None:
    """With pages of a few keys, every path of the search is taken."""
    store = CountedStore(page_keys=page_keys)
    await store.fill(KEYS, steps)

    assert await backwards(store) == sorted(steps, reverse=True)


async def test_directory_buckets_are_listed_whole() -> None:
    """They list in no order."""
    store = CountedStore(ordered=False)
    await store.fill(KEYS, range(1200))

    assert await backwards(store) == [*range(1199, -1, -1)]
    assert store.lists == 2


async def test_short_runs_are_listed_once() -> None:
    """As for `list`."""
    store = CountedStore()
    await store.fill(KEYS, range(1000))

    assert len(await backwards(store)) == 1000
    assert store.lists == 1


@pytest.mark.parametrize(("count", "most"), [(20_000, 40)])
async def test_the_newest_steps_of_a_long_run_cost_a_search(count: int, most: int) -> None:
    """And not the listing of all of it: that is paid as the iteration gets there."""
    store = CountedStore()
    await store.fill(KEYS, range(count))

    async with aclosing(StepIndex(store).backwards(KEYS)) as steps:
        first = [await anext(steps) for _ in range(900)]
        begun = store.lists
        rest = [step async for step in steps]

    assert first + rest == [*range(count - 1, -1, -1)]
    assert begun <= most
    assert store.lists <= begun + count // 1000 + 1
