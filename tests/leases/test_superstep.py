"""`run_superstep` with a lease: no node runs in two workers at once."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from s3_checkpoint import (
    END,
    Checkpointer,
    ConfigurationError,
    Graph,
    LeaseHeldError,
    MemoryStore,
    Next,
    S3Checkpointer,
    Task,
    run_superstep,
)
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.testing.counting import Counting
from tests.states import Counter

RUN = UUID(int=9)


async def test_a_second_worker_runs_no_node_while_the_first_holds_the_lease(store: ObjectStore) -> None:
    """It is refused after 1 GET; afterwards the run is where the first worker left it."""
    inside, proceed = asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    async def node(state: Counter, task: Task) -> Next:
        ran.append(task.step)
        inside.set()
        await proceed.wait()
        return Next(1, END)

    graph: Graph[Counter] = Graph(
        start="node", nodes={"node": node}, apply=lambda state, update: Counter(n=state.n + update)
    )
    counting = Counting(store)
    first, second = S3Checkpointer(Counter, store), S3Checkpointer(Counter, counting)
    await run_superstep(first, graph, RUN, initial=Counter(n=0), lease_ttl_s=30)
    with_first_look = await run_superstep(second, graph, RUN, expected_step=-1, lease_ttl_s=30)
    working = asyncio.create_task(run_superstep(first, graph, RUN, lease_ttl_s=30))
    await inside.wait()
    counting.reset()

    with pytest.raises(LeaseHeldError) as refused:
        await run_superstep(second, graph, RUN, lease_ttl_s=30)
    requests = counting.taken()
    proceed.set()
    reached = await working

    assert with_first_look.superseded
    assert refused.value.purpose == "superstep"
    head = await store.head(RunKeys("", RUN).lease)
    assert head is not None
    # A transport that does not tell the store's Date writes a small object to see the time.
    assert requests == ({"GET": 1} if head.date else {"GET": 1, "PUT": 1, "HEAD": 1})
    assert (reached.state.n, reached.finished, ran) == (1, True, [1])
    assert (await run_superstep(second, graph, RUN, lease_ttl_s=30)).finished


class ThreeCalls(Checkpointer[Counter]):
    """The trait's required calls, and no store that could hold a lease."""

    async def save(self, run_id: UUID | str, step: int, state: Counter) -> None:
        """Keeps nothing."""

    async def load(self, run_id: UUID | str, step: int | None = None) -> Counter | None:
        return None

    async def list(self, run_id: UUID | str) -> list[int]:
        return []


@pytest.mark.parametrize(
    "checkpointer",
    [ThreeCalls(), S3Checkpointer(Counter, MemoryStore(), conditional_writes=False)],
    ids=["trait", "no-conditions"],
)
async def test_a_checkpointer_without_leases_is_a_configuration_error(checkpointer: Checkpointer[Counter]) -> None:
    """Asked for, a lease is held, or nothing runs."""
    graph: Graph[Counter] = Graph(start="node", nodes={"node": _never}, apply=lambda state, update: state)

    with pytest.raises(ConfigurationError):
        await run_superstep(checkpointer, graph, RUN, initial=Counter(n=0), lease_ttl_s=30)


async def _never(state: Counter, task: Task) -> Next:
    raise AssertionError("it runs")
