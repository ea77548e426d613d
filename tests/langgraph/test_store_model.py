"""Any sequence of calls gives what LangGraph's `InMemoryStore` gives: a state machine against it.

But for what is told apart on purpose: results are in the order of writing, the last first; a namespace without items is
not listed; `created_at` outlives a put.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from langgraph.store.base import GetOp, Item, ListNamespacesOp, MatchCondition, Op, PutOp, SearchItem, SearchOp
from langgraph.store.memory import InMemoryStore

from s3_checkpoint import MemoryStore
from s3_checkpoint._format.memory_keys import item_key
from s3_checkpoint.langgraph import S3Store
from s3_checkpoint.testing import SmallPages

LABELS = st.sampled_from(["a", "b", "a b", "a/b", "x" * 90, "items"])
NAMESPACES = st.lists(LABELS, min_size=1, max_size=3).map(tuple)
KEYS = st.sampled_from(["k", "", "k/1", "é" * 100, "a"])
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "red", "1"])
VALUES = st.fixed_dictionaries(
    {"n": st.integers(-3, 3) | st.sampled_from([0.5, 1.0])},
    optional={"color": LEAVES, "inner": st.dictionaries(st.sampled_from("xy"), LEAVES), "list": st.lists(LEAVES)},
)
ORDERED = st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.integers(-3, 3), min_size=1, max_size=2)
EQUAL = st.dictionaries(st.sampled_from(["$eq", "$ne"]), LEAVES, min_size=1, max_size=2)
FILTERS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "n": ORDERED | EQUAL | LEAVES,
        "color": EQUAL | LEAVES,
        "inner": st.dictionaries(st.sampled_from("xy"), EQUAL | LEAVES, max_size=2),
        "list": st.lists(LEAVES, max_size=2),
        "absent": EQUAL | LEAVES,
    },
)
PATHS = st.lists(LABELS | st.just("*"), min_size=1, max_size=3).map(tuple)
KINDS: st.SearchStrategy[Literal["prefix", "suffix"]] = st.sampled_from(["prefix", "suffix"])
CONDITIONS = st.lists(
    st.tuples(KINDS, PATHS).map(lambda condition: MatchCondition(*condition)),
    max_size=2,
).map(tuple)
SMALL = st.integers(0, 4)
PUTS = st.tuples(NAMESPACES, KEYS, VALUES | st.none()).map(lambda put: PutOp(*put))
OPS = st.one_of(
    st.tuples(NAMESPACES, KEYS).map(lambda get: GetOp(*get)),
    st.tuples(st.just(()) | NAMESPACES, FILTERS, st.integers(0, 12), SMALL).map(lambda search: SearchOp(*search)),
    st.tuples(st.none() | CONDITIONS, st.none() | SMALL, st.integers(0, 12), SMALL).map(
        lambda listing: ListNamespacesOp(*listing)
    ),
    PUTS,
    PUTS,
)
ALL = 1_000


class Written(NamedTuple):
    """What the model knows of an item besides its value."""

    value: Any
    created_at: datetime
    updated_at: datetime


class Memories(RuleBasedStateMachine):
    """One bucket, two processes, and the dict that `InMemoryStore` is filled from for each question."""

    def __init__(self) -> None:
        super().__init__()
        self.time = datetime(2026, 11, 28, tzinfo=UTC)
        self.items: dict[tuple[tuple[str, ...], str], Written] = {}
        store = SmallPages(MemoryStore(now=lambda: self.time), 3)
        self.processes = [S3Store(store, now=lambda: self.time, cache_bytes=size) for size in (0, 10_000)]

    def teardown(self) -> None:
        """Threads end with their example."""
        for process in self.processes:
            process.close()

    @initialize(ops=st.lists(PUTS, max_size=8))
    def filled(self, ops: list[PutOp]) -> None:
        """The bucket of an application that has run for a while."""
        self.batch(ops, 0)

    @rule(ops=st.lists(OPS, max_size=6), process=st.integers(0, 1))
    def batch(self, ops: list[Op], process: int) -> None:
        """The single calls are batches of one."""
        self.time += timedelta(seconds=1)

        found = self.processes[process].batch(ops)

        assert list(map(shown, found)) == [shown(self.expected(op)) for op in ops]
        last = {(op.namespace, op.key): op.value for op in ops if isinstance(op, PutOp)}
        for place, value in last.items():
            before = self.items.pop(place, None)
            if value is not None:
                self.items[place] = Written(value, before.created_at if before else self.time, self.time)

    def expected(self, op: Op) -> Any:
        """What `InMemoryStore` gives, with times, and in the order of writing."""
        if isinstance(op, PutOp):
            return None
        reference = InMemoryStore()
        for (namespace, key), item in self.items.items():
            reference.put(namespace, key, item.value)
        if isinstance(op, SearchOp):
            found: Any = reference.batch([op._replace(limit=ALL, offset=0)])[0]
            ordered = sorted(found, key=lambda item: item_key("", item.namespace, item.key))
            ordered.sort(key=lambda item: self.of(item).updated_at, reverse=True)
            return [self.timed(item) for item in ordered[op.offset : op.offset + op.limit]]
        result = reference.batch([op])[0]
        return self.timed(result) if isinstance(result, Item) else result

    def of(self, item: Item) -> Written:
        return self.items[item.namespace, item.key]

    def timed(self, item: Item) -> Item:
        item.created_at, item.updated_at = self.of(item).created_at, self.of(item).updated_at
        return item


def shown(result: Any) -> Any:
    """What two results are compared by: type and every field."""
    if isinstance(result, list):
        return [shown(one) for one in result]
    return (type(result), repr(result.dict())) if isinstance(result, Item | SearchItem) else result


TestMemories = Memories.TestCase
TestMemories.settings = settings(derandomize=True, max_examples=50, stateful_step_count=8, deadline=None)
