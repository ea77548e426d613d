"""A run that dies at its n-th write to the store, for every n, and the next worker that finishes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from langgraph.graph import START, StateGraph

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.testing import (
    Aim,
    Crash,
    CrashAfter,
    CrashBefore,
)
from s3_checkpoint.testing.counting import Counting
from tests.langgraph.graphs import Trail

STEPS = ("plan", "search", "write", "check")
CONFIG: Any = {"configurable": {"thread_id": "t"}}


def work(store: ObjectStore, ran: Counter[str]) -> Any:
    """Begins the run, or continues with it, as a worker does that knows nothing but the thread."""
    builder: Any = StateGraph(Trail)

    def step(name: str) -> Any:
        def node(_: Any) -> Any:
            ran[name] += 1
            return {"trail": [name]}

        return node

    builder.add_sequence([(name, step(name)) for name in STEPS])
    builder.add_edge(START, STEPS[0])
    with S3Saver(store) as saver:
        graph = builder.compile(checkpointer=saver)
        begun = saver.get_tuple(CONFIG) is not None
        return graph.invoke(None if begun else {"trail": ["begin"]}, CONFIG, durability="sync")


def puts_of_a_run() -> int:
    store = Counting(MemoryStore())
    work(store, Counter())
    return store.requests["PUT"]


@pytest.mark.parametrize("crash", [CrashBefore, CrashAfter])
def test_a_run_that_dies_anywhere_is_finished_and_at_most_one_step_runs_again(
    crash: Callable[[ObjectStore, Aim], ObjectStore],
) -> None:
    """With durability `sync`, a superstep begins once the one before is stored."""
    puts = puts_of_a_run()
    assert puts == 11  # a checkpoint for the input and each superstep, and the writes of each task, the input's too

    for n in range(1, puts + 1):
        store, ran = MemoryStore(), Counter[str]()
        with pytest.raises(Crash):
            work(crash(store, Aim("PutObject", first=n)), ran)

        result = work(store, ran)

        assert result == {"trail": ["begin", *STEPS]}, n
        assert set(ran) == set(STEPS)
        assert sum(ran.values()) <= len(STEPS) + 1, (n, ran)
