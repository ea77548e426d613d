"""What each call of the store costs: requests by verb, and round trips."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, SearchOp

from s3_checkpoint import MemoryStore
from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.langgraph import S3Store
from s3_checkpoint.testing import Counting
from tests.request_tables import requests_on


@pytest.fixture
def store() -> Counting:
    return Counting(MemoryStore())


@pytest.fixture
def memories(store: Counting) -> S3Store:
    return S3Store(store)


def cost(store: Counting, call: Callable[[], Any]) -> tuple[dict[str, int], int]:
    store.reset()
    call()
    return dict(store.requests), store.rounds


def fill(store: Counting, count: int) -> None:
    """`count` items, by another process."""
    S3Store(store.store).batch([PutOp(("all", str(n % 7)), str(n), {"n": n}) for n in range(count)])


def test_get_and_put_take_one_request(store: Counting, memories: S3Store) -> None:
    """Whether the item is new, put before, or read before."""
    assert cost(store, lambda: memories.put(("a",), "k", {"n": 1})) == ({"PUT": 1}, 1)
    assert cost(store, lambda: memories.put(("a",), "k", {"n": 2})) == ({"PUT": 1}, 1)
    assert cost(store, lambda: memories.get(("a",), "k")) == ({"GET": 1}, 1)
    assert cost(store, lambda: memories.get(("a",), "absent")) == ({"GET": 1}, 1)
    reader = S3Store(store)
    reader.get(("a",), "k")
    assert cost(store, lambda: reader.put(("a",), "k", {"n": 3})) == ({"PUT": 1}, 1)
    assert cost(store, lambda: memories.delete(("a",), "k")) == ({"DELETE": 1}, 1)
    assert cost(store, lambda: memories.put(("a",), "k", {"n": 1})) == ({"PUT": 1}, 1)


def test_a_put_over_what_this_process_does_not_know_takes_three(store: Counting, memories: S3Store) -> None:
    """Of a fresh process, and after another worker's put; so does one whose item is gone."""
    other = S3Store(store)
    other.put(("a",), "k", {"n": 1})

    assert cost(store, lambda: memories.put(("a",), "k", {"n": 2})) == ({"PUT": 2, "GET": 1}, 3)
    assert cost(store, lambda: other.put(("a",), "k", {"n": 3})) == ({"PUT": 2, "GET": 1}, 3)
    memories.delete(("a",), "k")
    assert cost(store, lambda: other.put(("a",), "k", {"n": 4})) == ({"PUT": 2, "GET": 1}, 3)


def test_a_search_reads_what_it_returns_and_no_more(store: Counting, memories: S3Store) -> None:
    """Whatever the namespace holds; a page further on reads up to its end."""
    fill(store, 1_500)

    assert cost(store, lambda: memories.search(("all",))) == ({"LIST": 2, "GET": 10}, 3)
    fresh = S3Store(store)
    assert cost(store, lambda: fresh.search(("all", "3"), limit=5, offset=5)) == ({"LIST": 1, "GET": 10}, 2)
    assert cost(store, lambda: memories.search(("absent",))) == ({"LIST": 1}, 1)
    assert cost(store, lambda: memories.search(("all",), limit=0)) == ({}, 0)


def test_a_filtered_search_reads_until_enough_match(store: Counting, memories: S3Store) -> None:
    """32 at a time, the last written first."""
    fill(store, 100)

    assert cost(store, lambda: memories.search(("all",), filter={"n": {"$gte": 0}}))[0] == {"LIST": 1, "GET": 32}
    store.most_in_flight = 0
    fresh = S3Store(store)
    assert cost(store, lambda: fresh.search(("all",), filter={"n": -1})) == ({"LIST": 1, "GET": 100}, 5)
    assert store.most_in_flight == 32


def test_a_search_asks_only_for_what_has_changed_since_it_was_read(store: Counting, memories: S3Store) -> None:
    """Without a cache, for everything."""
    fill(store, 30)
    memories.search((), limit=30)
    memories.get(("all", "1"), "1")
    S3Store(store.store).put(("all", "1"), "1", {"n": -1})

    assert cost(store, lambda: memories.search((), limit=30)) == ({"LIST": 1, "GET": 1}, 2)
    assert cost(store, lambda: memories.search((), filter={"n": -1})) == ({"LIST": 1}, 1)
    uncached = S3Store(store, cache_bytes=0)
    uncached.search((), limit=30)
    assert cost(store, lambda: uncached.search((), limit=30)) == ({"LIST": 1, "GET": 30}, 2)


def test_a_search_over_more_items_than_allowed_is_an_error_that_says_so(store: Counting) -> None:
    """It ends with the page that shows it, and reads nothing; so does a listing of namespaces."""
    fill(store, 1_200)
    memories = S3Store(store, max_search_items=500)

    def refused(call: Callable[[], Any]) -> None:
        with pytest.raises(InvalidArgumentError, match="more than 500 items"):
            call()

    assert cost(store, lambda: refused(lambda: memories.search(("all",)))) == ({"LIST": 1}, 1)
    assert cost(store, lambda: refused(memories.list_namespaces)) == ({"LIST": 1}, 1)
    assert len(memories.search(("all", "3"), limit=500)) == 171


def test_listing_namespaces_reads_nothing_but_for_hashed_labels(store: Counting, memories: S3Store) -> None:
    """And lists no more than the literal beginning of the prefix."""
    fill(store, 1_500)
    long = ("x" * 200, "inner")
    S3Store(store.store).batch([PutOp(long, key, {}) for key in "abc"])

    assert cost(store, lambda: memories.list_namespaces(prefix=("all", "3"))) == ({"LIST": 1}, 1)
    assert cost(store, lambda: memories.list_namespaces(prefix=("all", "*"))) == ({"LIST": 2}, 2)
    assert cost(store, memories.list_namespaces)[0] == {"LIST": 2, "GET": 1}
    assert memories.list_namespaces(prefix=("x" * 200,)) == [long]


def test_a_batch_sends_its_reads_together_and_then_its_writes(store: Counting) -> None:
    """All deletes in one request."""
    fill(store, 5)
    memories = S3Store(store, cache_bytes=0)
    ops: list[Op] = [
        *(GetOp(("all", str(n)), str(n)) for n in range(5)),
        SearchOp(("all",), limit=5),
        ListNamespacesOp(),
        *(PutOp(("new",), str(n), {}) for n in range(4)),
        *(PutOp(("all", str(n)), str(n), None) for n in range(5)),
    ]

    assert cost(store, lambda: memories.batch(ops)) == ({"GET": 10, "LIST": 2, "PUT": 4, "DELETE": 1}, 3)


def test_reading_writes_only_where_a_ttl_is_due(store: Counting) -> None:
    """Once a twentieth of it is over, and then once for all who read."""
    time = datetime(2026, 11, 28, tzinfo=UTC)
    memories = S3Store(store, now=lambda: time)
    memories.put(("a",), "ttl", {}, ttl=100)
    memories.put(("a",), "none", {})

    def read() -> dict[str, int]:
        return cost(store, lambda: memories.get(("a",), "ttl"))[0]

    assert read() == {"GET": 1}
    time += timedelta(minutes=4)
    assert read() == {"GET": 1}
    time += timedelta(minutes=1)
    assert cost(store, lambda: memories.get(("a",), "ttl", refresh_ttl=False))[0] == {"GET": 1}
    assert read() == {"GET": 1, "PUT": 1}
    assert read() == {"GET": 1}
    time += timedelta(minutes=5)
    assert cost(store, lambda: memories.search(("a",), limit=1))[0] == {"LIST": 1, "PUT": 1}


def test_a_sweep_looks_at_each_item_without_reading_it(store: Counting) -> None:
    """And removes a hundred with one request."""
    time = datetime(2026, 11, 28, tzinfo=UTC)
    store.store = MemoryStore(now=lambda: time)
    memories = S3Store(store, now=lambda: time)
    memories.batch([PutOp(("a",), str(n), {}, ttl=5 if n % 2 else None) for n in range(1_100)])
    time += timedelta(hours=2)

    assert cost(store, memories.sweep_ttl)[0] == {"LIST": 2, "HEAD": 1_100, "DELETE": 11}
    assert cost(store, memories.sweep_ttl)[0] == {"LIST": 1, "HEAD": 550}


def test_the_first_put_reads_without_conditional_writes(store: Counting) -> None:
    """Later ones take one request."""
    memories = S3Store(store, conditional_writes=False)
    S3Store(store.store).put(("a",), "k", {"n": 1})
    created = memories.get(("a",), "k")
    fresh = S3Store(store, conditional_writes=False)

    assert cost(store, lambda: fresh.put(("a",), "k", {"n": 2})) == ({"GET": 1, "PUT": 1}, 2)
    assert cost(store, lambda: fresh.put(("a",), "k", {"n": 3})) == ({"PUT": 1}, 1)
    assert [request.mode for request in store.sent] == ["overwrite"]
    found = memories.get(("a",), "k")
    assert created is not None
    assert found is not None
    assert (found.value, found.created_at) == ({"n": 3}, created.created_at)


def test_making_opening_and_closing_cost_nothing_and_setup_one_list(store: Counting, memories: S3Store) -> None:
    """Nor does an empty batch."""

    def open_and_close() -> None:
        with S3Store(store) as opened:
            opened.batch([])

    assert cost(store, open_and_close) == ({}, 0)
    assert cost(store, memories.setup) == ({"LIST": 1}, 1)


def test_the_page_says_what_calls_cost() -> None:
    """Each row of its table, counted."""
    time = datetime(2026, 11, 28, tzinfo=UTC)
    store = Counting(MemoryStore(now=lambda: time))
    memories, other = (S3Store(store, now=lambda: time) for _ in range(2))
    fill(store, 100)

    def counted(call: Callable[[], Any]) -> dict[str, int]:
        return cost(store, call)[0]

    found = {
        "`put` of a new item, or of one that this process has read or put": counted(
            lambda: memories.put(("a",), "k", {}, ttl=100)
        ),
        "`put` over an item that this process does not know, or not as it is": counted(
            lambda: other.put(("a",), "k", {}, ttl=100)
        ),
        "`get`": counted(lambda: memories.get(("a",), "k")),
        "`search(limit=10)` among up to 1,000 items": counted(lambda: memories.search(("all",))),
        "the same again, with nothing changed since": counted(lambda: memories.search(("all",))),
        "`search(filter=…)` among 100 items that do not match": counted(
            lambda: other.search(("all",), filter={"n": -1})
        ),
        "`list_namespaces` with up to 1,000 items": counted(memories.list_namespaces),
    }
    time += timedelta(minutes=50)
    found["`get` that renews a TTL"] = counted(lambda: memories.get(("a",), "k"))
    keys = [PutOp(("all", str(n % 7)), str(n), None) for n in range(3)]
    found["`delete`, also of many in one batch"] = counted(lambda: memories.batch(keys))
    memories.batch([PutOp(("a",), str(n), {}, ttl=1) for n in range(2)])
    time += timedelta(hours=1)
    time += timedelta(minutes=1)
    found["`sweep_ttl` over 100 items, of which some have ended"] = counted(memories.sweep_ttl)

    assert found == requests_on("guides/langgraph-memory.md")
