"""What finding steps costs: LISTs, and the round trips that wait for one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from uuid import UUID

import pytest

from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._runs.step_listing import PARALLEL
from s3_checkpoint._runs.step_search import StepIndex
from tests.runs.listing_stores import ComputedRun, CountedStore

RUN = RunKeys("p", UUID(int=7))

random = Random(7)
SPREADS: dict[str, Callable[[int], Sequence[int]]] = {
    "dense": range,
    "from-the-end": lambda count: range(2**64 - count, 2**64),
    "every-1000th": lambda count: range(0, count * 1000, 1000),
    "milliseconds": lambda count: range(1_790_000_000_000, 1_790_000_000_000 + count * 977, 977),
    "widest": lambda count: range(0, 2**64 - 1, (2**64 - 1) // (count - 1)),
    "random": lambda count: [n * 2**42 + random.getrandbits(42) for n in range(count)],
}


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize(
    ("count", "lists", "round_trips"),
    [(1, 1, 1), (1000, 1, 1), (1001, 16, 2), (10_000, 32, 4), (19_999, 60, 5), (100_000, 60, 5), (1_000_000, 60, 6)],
)
async def test_the_latest_of_a_long_run_takes_few_requests(
    spread: str, count: int, lists: int, round_trips: int
) -> None:
    """1 LIST up to 1,000 steps, 4 round trips at 10,000, 60 LISTs in 6 round trips at a million."""
    if count == 1 and spread == "widest":
        pytest.skip("one step has no spread")
    steps = SPREADS[spread](count)
    store = ComputedRun(RUN, steps)

    assert await StepIndex(store).latest(RUN) == steps[-1]

    assert store.lists <= lists
    assert store.rounds <= round_trips


class WholePages(ComputedRun):
    """A store to which a LIST of one key costs as much as one of a thousand."""

    whole_pages = True


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize(("count", "lists", "round_trips"), [(1000, 1, 1), (10_000, 24, 4), (1_000_000, 50, 8)])
async def test_a_store_without_max_keys_is_asked_for_fewer_pages(
    spread: str, count: int, lists: int, round_trips: int
) -> None:
    """6 probes a round instead of 14, and two round trips more at a million steps."""
    steps = SPREADS[spread](count)
    store = WholePages(RUN, steps)

    assert await StepIndex(store).latest(RUN) == steps[-1]

    assert store.lists <= lists
    assert store.rounds <= round_trips


async def test_clusters_with_wide_gaps_take_one_round_trip_more() -> None:
    """A thousand clusters of a thousand steps; and a million steps with one far behind them, which is found at once."""
    clusters = ComputedRun(RUN, *(range(first, first + 1000) for first in range(0, 1000 * 2**50, 2**50)))
    lonely = ComputedRun(RUN, range(1_000_000), [2**63])

    assert await StepIndex(clusters).latest(RUN) == 999 * 2**50 + 999
    assert await StepIndex(lonely).latest(RUN) == 2**63

    assert (clusters.lists <= 100, clusters.rounds <= 7) == (True, True)
    assert (lonely.lists, lonely.rounds) == (16, 2)


@pytest.mark.parametrize("newer", [0, 1, 999])
@pytest.mark.parametrize("how", ["seen", "latest", "steps"])
async def test_one_list_when_this_process_has_seen_a_recent_step(newer: int, how: str) -> None:
    """However long the run, by whatever call it was seen, and with up to 999 newer ones."""
    index = StepIndex(store := ComputedRun(RUN, range(50_000)))
    await (getattr(index, how)(RUN) if how != "seen" else _see(index, 49_999))
    store.stretches = (range(50_000 + newer),)
    store.reset()

    assert await index.latest(RUN) == 49_999 + newer

    assert store.lists == 1


async def _see(index: StepIndex, step: int) -> None:
    index.seen(RUN, 7)
    index.seen(RUN, step)
    index.seen(RUN, 8)


async def test_other_keys_beyond_the_steps_cost_one_round_trip() -> None:
    """A few stray files, which sort behind every step in use."""
    store = CountedStore()
    await store.fill(RUN, range(10_000), ["1.json", "10.json", "index.html", "~"])

    assert await StepIndex(store).latest(RUN) == 9_999

    assert store.lists <= 50
    assert store.rounds <= 5


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("count", [2, 1000, 1001, 2000, 2001, 4000, 10_000, 20_000, 100_000])
async def test_a_listing_costs_its_pages_and_a_few(spread: str, count: int) -> None:
    """n/1000 LISTs and at most 20 more, in n/16,000 round trips and at most 8 more; never more than 16 in flight."""
    steps = SPREADS[spread](count)
    store = ComputedRun(RUN, steps)

    assert await StepIndex(store).steps(RUN) == list(steps)

    pages = -(-count // 1000)
    assert store.lists <= (pages if count <= 2000 else pages + 20)
    assert store.rounds <= max(pages, 1) if count <= 2000 else pages / PARALLEL + 8
    assert store.most_in_flight <= PARALLEL


async def test_a_listing_follows_the_steps_wherever_they_stand() -> None:
    """Two clusters 2^63 apart are both read in parallel."""
    store = ComputedRun(RUN, range(50_000), range(2**63, 2**63 + 50_000))

    assert len(await StepIndex(store).steps(RUN)) == 100_000

    assert store.rounds <= 20


async def test_a_directory_bucket_is_listed_page_by_page() -> None:
    """Its listings have no order: the latest step costs them all."""
    store = CountedStore(ordered=False, page_keys=10)
    await store.fill(RUN, range(95))

    assert await StepIndex(store).latest(RUN) == 94

    assert store.lists == 10
