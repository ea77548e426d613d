"""The store does what LangGraph's `BaseStore` says: on a memory store, and on the moto server by either transport."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)

from s3_checkpoint import MemoryStore, S3Settings
from s3_checkpoint._format.json_codec import compact_digest
from s3_checkpoint.errors import (
    InvalidArgumentError,
    LifecycleError,
    StateDecodingError,
    StateEncodingError,
    StoreUnavailableError,
)
from s3_checkpoint.langgraph import S3Saver, S3Store
from s3_checkpoint.object_store import ObjectAttributes
from s3_checkpoint.testing import CorruptBody
from tests.langgraph.counting import at, put

HOSTILE = ["a b", "a/b", "/", "..", "%2F", "*", "é" * 150, "x" * 300, "!", "~", "\n", "🦊", "a.json", "items", "\x00"]
LABELS = [text for text in HOSTILE if "." not in text and "\x00" not in text]


class Clock:
    """The time of day, as the test sets it."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 28, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def go(self, **by: float) -> None:
        """Later it is."""
        self.time += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def objects(clock: Clock) -> MemoryStore:
    return MemoryStore(now=clock)


@pytest.fixture
def timed(objects: MemoryStore, clock: Clock) -> S3Store:
    """A store whose time is the test's."""
    return S3Store(objects, now=clock)


def keys(memories: S3Store, *namespace: str, **search: Any) -> list[str]:
    return [found.key for found in memories.search(namespace, **search)]


def test_an_item_is_what_was_put_and_a_new_put_keeps_when_it_was_created(memories: S3Store) -> None:
    """Of two puts the later one counts."""
    value = {"text": "é", "n": [1, 2.5, None, True], "inner": {"": []}}
    memories.put(("users", "7"), "prefs", value)
    first = memories.get(("users", "7"), "prefs")
    memories.put(("users", "7"), "prefs", {"text": "new"})

    second = memories.get(("users", "7"), "prefs")

    assert first is not None
    assert second is not None
    assert (first.value, first.key, first.namespace) == (value, "prefs", ("users", "7"))
    assert first.created_at == first.updated_at <= second.updated_at
    assert (second.value, second.created_at) == ({"text": "new"}, first.created_at)
    assert memories.get(("users",), "prefs") is None
    assert memories.get(("users", "7", "prefs"), "prefs") is None


def test_a_deleted_item_is_gone_and_deleting_can_be_repeated(memories: S3Store) -> None:
    """What is put after is a new item."""
    memories.put(("a",), "k", {"n": 1})
    before = memories.get(("a",), "k")

    memories.delete(("a",), "k")
    memories.delete(("a",), "k")

    assert memories.get(("a",), "k") is None
    assert memories.search(("a",)) == []
    assert memories.list_namespaces() == []
    memories.put(("a",), "k", {"n": 2})
    after = memories.get(("a",), "k")
    assert before is not None
    assert after is not None
    assert after.created_at > before.created_at


def test_hostile_names_neither_meet_nor_leave_their_place(memories: S3Store) -> None:
    """Spaces, slashes, wildcards, NUL, hundreds of bytes."""
    names = [((one, "inner"), key) for one in LABELS for key in HOSTILE[:4]] + [(("a",), key) for key in HOSTILE]
    memories.batch([PutOp(namespace, key, {"at": [*namespace, key]}) for namespace, key in names])

    found = memories.batch([GetOp(namespace, key) for namespace, key in names])

    assert [item.value["at"] for item in found] == [[*namespace, key] for namespace, key in names]  # type: ignore[union-attr]
    for label in LABELS:
        assert sorted(keys(memories, label)) == sorted(HOSTILE[:4])
    assert sorted(keys(memories, "a", limit=99)) == sorted(HOSTILE)
    assert memories.list_namespaces() == sorted([("a",), *((label, "inner") for label in LABELS)])


def test_a_batch_reads_before_it_writes_and_the_last_put_of_a_key_counts(memories: S3Store) -> None:
    """As in LangGraph's own stores; results are in the order of the operations."""
    memories.put(("a",), "k", {"n": 0})
    ops: list[Op] = [
        PutOp(("a",), "k", {"n": 1}),
        GetOp(("a",), "k"),
        PutOp(("a",), "k", None),
        SearchOp(("a",)),
        PutOp(("a",), "k", {"n": 2}),
        PutOp(("b",), "gone", {"n": 3}),
        PutOp(("b",), "gone", None),
        ListNamespacesOp(),
        GetOp(("a",), "absent"),
    ]

    results: list[Any] = memories.batch(ops)

    assert results[1].value == {"n": 0}
    assert [found.value for found in results[3]] == [{"n": 0}]
    assert results[7] == [("a",)]
    assert [results[index] for index in (0, 2, 4, 5, 6, 8)] == [None] * 6
    assert memories.get(("a",), "k").value == {"n": 2}  # type: ignore[union-attr]
    assert memories.get(("b",), "gone") is None
    assert memories.batch([]) == []


def test_items_written_last_are_found_first(timed: S3Store, clock: Clock) -> None:
    """By the store's clock; of one second, by key. Pages follow one another."""
    for number in (3, 1, 4, 1, 5, 9, 2, 6):
        timed.put(("a", str(number % 2)), str(number), {"n": number})
        clock.go(seconds=1)

    assert keys(timed, "a") == ["6", "2", "9", "5", "1", "4", "3"]
    assert keys(timed, "a", limit=2, offset=1) == ["2", "9"]
    assert keys(timed, "a", offset=7) == []
    assert keys(timed, "a", limit=0) == []
    assert keys(timed, limit=1) == ["6"]
    assert keys(timed, "a", "0") == ["6", "2", "4"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"color": "red"}, "acf"),
        ({"color": {"$eq": "red"}}, "acf"),
        ({"color": {"$ne": "red"}}, "bde"),
        ({"n": {"$gt": 2}}, "cd"),
        ({"n": {"$gte": 2, "$lt": 4}}, "bc"),
        ({"n": {"$lte": "2"}}, "ab"),
        ({"day": {"$gt": "2026-01-31"}}, "bc"),
        ({"inner": {"deep": {"$gte": 1}}}, "ab"),
        ({"inner": {"deep": 1}}, "a"),
        ({"list": [1, {"x": 2}]}, "d"),
        ({"list": [1]}, ""),
        ({"color": None}, "de"),
        ({"color": "red", "n": 3}, "c"),
        ({"absent": {"$gt": 0}}, ""),
        ({}, "abcdef"),
    ],
)
def test_filters_keep_what_matches(memories: S3Store, wanted: dict[str, Any], found: str) -> None:
    """What cannot be compared does not match, and fails nothing."""
    values: dict[str, dict[str, Any]] = {
        "a": {"color": "red", "n": 1, "day": "2026-01-01", "inner": {"deep": 1}},
        "b": {"color": "blue", "n": 2, "day": "2026-02-01", "inner": {"deep": 2}},
        "c": {"color": "red", "n": 3, "day": "2026-03-01", "inner": 1},
        "d": {"n": 4.5, "list": [1, {"x": 2, "y": 3}]},
        "e": {"n": None, "list": [1, 2]},
        "f": {"color": "red", "n": "many"},
    }
    memories.batch([PutOp(("all",), key, value) for key, value in values.items()])

    assert "".join(sorted(keys(memories, filter=wanted))) == found


def test_filters_and_arguments_that_cannot_be_are_refused_before_any_request() -> None:
    """On a store that nobody can reach."""
    credentials = {"access_key_id": "testing", "secret_access_key": "testing"}
    unreachable = {"bucket": "nowhere", "endpoint_url": "http://127.0.0.1:9", "max_attempts": 1, **credentials}
    memories = S3Store(S3Settings.model_validate(unreachable))
    wrong: list[tuple[type[Exception], str, Op]] = [
        (InvalidArgumentError, "operators", SearchOp((), {"a": {"$in": [1]}})),
        (InvalidArgumentError, "operators", SearchOp((), {"a": {"b": {"$gt": 1, "c": 2}}})),
        (InvalidArgumentError, "orders numbers", SearchOp((), {"a": [{"$gt": None}]})),
        (InvalidArgumentError, "filter must be a dict", SearchOp((), [1])),  # type: ignore[arg-type]
        (InvalidArgumentError, "limit", SearchOp((), None, -1)),
        (InvalidArgumentError, "offset", SearchOp((), None, 1, -1)),
        (InvalidArgumentError, "limit", ListNamespacesOp(limit=True)),
        (InvalidArgumentError, "max_depth", ListNamespacesOp(max_depth=-1)),
        (InvalidArgumentError, "match_type", ListNamespacesOp((MatchCondition("infix", ("a",)),))),  # type: ignore[arg-type]
        (InvalidArgumentError, "key must be text", GetOp(("a",), 7)),  # type: ignore[arg-type]
        (InvalidArgumentError, "makes keys of", GetOp(("long" * 20,) * 20, "k")),
        (InvalidArgumentError, "ttl must be minutes", PutOp(("a",), "k", {}, ttl=0)),
        (InvalidArgumentError, "ttl must be minutes", PutOp(("a",), "k", {}, ttl=float("inf"))),
        (InvalidArgumentError, "value must be a dict", PutOp(("a",), "k", [1])),  # type: ignore[arg-type]
        (InvalidArgumentError, "ops must be", "get"),  # type: ignore[list-item]
        (InvalidNamespaceError, "periods", GetOp(("a.b",), "k")),
        (InvalidNamespaceError, "empty", PutOp(("",), "k", {})),
        (InvalidNamespaceError, "must be text", SearchOp((7,))),  # type: ignore[arg-type]
        (InvalidNamespaceError, "NUL", ListNamespacesOp((MatchCondition("prefix", ("\x00",)),))),
        (InvalidNamespaceError, "not one text", GetOp("users", "k")),  # type: ignore[arg-type]
        (NotImplementedError, "no vector index", SearchOp((), query="what do I like?")),
    ]
    for kind, text, op in wrong:
        with pytest.raises(kind, match=text):
            memories.batch([GetOp(("a",), "k"), op])
    with pytest.raises(StoreUnavailableError):
        memories.get(("a",), "k")
    memories.close()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": {"b": [1, {2}]}}, "$.a.b[1]"),
        ({"a": (1, 2)}, "$.a"),
        ({"a": float("nan")}, "$.a"),
        ({"a": "\ud800"}, "$.a"),
        ({1: 2}, "$[1]"),
        ({"a": datetime(2026, 1, 1, tzinfo=UTC)}, "$.a"),
        ({"a": b"\xff"}, "$.a"),
    ],
)
def test_a_value_that_json_cannot_hold_is_refused_with_its_path(value: Any, path: str) -> None:
    """And nothing of the batch is written."""
    objects = MemoryStore()
    memories = S3Store(objects)

    with pytest.raises(StateEncodingError) as refused:
        memories.batch([PutOp(("a",), "good", {}), PutOp(("a",), "bad", value)])

    assert refused.value.path == path
    assert objects._keys == []


def test_an_item_larger_than_allowed_is_neither_written_nor_read() -> None:
    """A reader with less room says so."""
    objects = MemoryStore()
    S3Store(objects, max_state_bytes=2_000).put(("a",), "k", {"text": "x" * 1_500})

    with pytest.raises(StateEncodingError, match="2000"):
        S3Store(objects, max_state_bytes=2_000).put(("a",), "k", {"text": "x" * 2_000})
    with pytest.raises(StateEncodingError, match="more than max_state_bytes"):
        S3Store(objects, max_state_bytes=2_000).put(("a",), "k", {"text": "x" * 1_950})
    with pytest.raises(StateDecodingError):
        S3Store(objects, max_state_bytes=100).get(("a",), "k")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, ["a", "a b", "a b c", "a c f", "b"]),
        ({"prefix": ("a",)}, ["a", "a b", "a b c", "a c f"]),
        ({"prefix": ("a", "*", "c")}, ["a b c"]),
        ({"prefix": ("*", "c")}, ["a c f"]),
        ({"suffix": ("c",)}, ["a b c"]),
        ({"suffix": ("c", "*")}, ["a c f"]),
        ({"prefix": ("a",), "suffix": ("b",)}, ["a b"]),
        ({"max_depth": 1}, ["a", "b"]),
        ({"prefix": ("a", "b"), "max_depth": 2}, ["a b"]),
        ({"limit": 2, "offset": 1}, ["a b", "a b c"]),
        ({"limit": 0}, []),
        ({"prefix": ("absent",)}, []),
        ({"suffix": ("a", "b", "c", "d")}, []),
    ],
)
def test_namespaces_are_listed_as_asked(memories: S3Store, asked: dict[str, Any], found: list[str]) -> None:
    """Those that items are in, ascending."""
    namespaces = [("b",), ("a", "c", "f"), ("a",), ("a", "b", "c"), ("a", "b")]
    memories.batch([PutOp(namespace, key, {}) for namespace in namespaces for key in "xy"])

    assert memories.list_namespaces(**asked) == [tuple(names.split()) for names in found]


def test_an_item_is_not_returned_once_its_ttl_is_over(timed: S3Store, clock: Clock) -> None:
    """Neither by get nor by search; what is put then is a new item."""
    timed.put(("a",), "short", {"n": 1}, ttl=10)
    timed.put(("a",), "long", {"n": 2})

    clock.go(minutes=9.9)
    assert timed.get(("a",), "short", refresh_ttl=False) is not None
    assert keys(timed, "a", refresh_ttl=False) == ["long", "short"]
    clock.go(minutes=0.1)

    assert timed.get(("a",), "short") is None
    assert keys(timed, "a") == ["long"]
    assert keys(timed, "a", limit=1) == ["long"]
    timed.put(("a",), "short", {"n": 3})
    found = timed.get(("a",), "short")
    assert found is not None
    assert found.created_at == clock.time


def test_reading_renews_a_ttl_unless_told_otherwise(timed: S3Store, clock: Clock) -> None:
    """By get and by search, from the moment of the read; the item is otherwise as it was put."""
    timed.put(("a",), "k", {"n": 1}, ttl=10)
    put_at = clock.time

    for _ in range(3):
        clock.go(minutes=6)
        found = timed.get(("a",), "k")
        clock.go(minutes=6)
        searched = timed.search(("a",))
        assert found is not None
        assert [found.updated_at, found.created_at, searched[0].updated_at] == [put_at] * 3
    timed.get(("a",), "k", refresh_ttl=False)
    clock.go(minutes=10)

    assert timed.get(("a",), "k") is None


def test_a_store_has_defaults_for_ttl(objects: MemoryStore, clock: Clock) -> None:
    """LangGraph's configuration; what nothing here does is refused, not ignored."""
    timed = S3Store(objects, now=clock, ttl={"default_ttl": 10, "refresh_on_read": False})
    timed.put(("a",), "default", {})
    timed.put(("a",), "kept", {}, ttl=None)
    timed.put(("a",), "own", {}, ttl=20)

    clock.go(minutes=9)
    timed.get(("a",), "default")
    clock.go(minutes=1)

    assert sorted(keys(timed, "a")) == ["kept", "own"]
    with pytest.raises(InvalidArgumentError, match="sweep_ttl"):
        S3Store(objects, ttl={"sweep_interval_minutes": 5})
    with pytest.raises(InvalidArgumentError, match="default_ttl"):
        S3Store(objects, ttl={"default_ttl": -1})


def test_a_sweep_removes_what_has_been_over_for_the_grace(timed: S3Store, objects: MemoryStore, clock: Clock) -> None:
    """And nothing else, of this family or another."""
    with S3Saver(objects) as saver:
        put(saver, at("t"))
    asyncio.run(objects.put("memories/foreign.txt", b"", ObjectAttributes(), mode="create"))
    timed.batch([PutOp(("a", str(n % 3)), str(n), {}, ttl=10) for n in range(250)])
    timed.put(("a",), "later", {}, ttl=60)
    timed.put(("a",), "kept", {})
    before = len(objects._keys)

    clock.go(minutes=69)
    assert timed.sweep_ttl() == 0
    clock.go(minutes=1)
    assert timed.sweep_ttl() == 250
    assert timed.sweep_ttl() == 0

    assert before - len(objects._keys) == 250
    assert timed.get(("a",), "kept") is not None
    assert asyncio.run(timed.asweep_ttl(grace=timedelta(0))) == 1
    with pytest.raises(InvalidArgumentError, match="grace"):
        timed.sweep_ttl(grace=timedelta(seconds=-1))


def test_a_sweep_goes_by_the_clock_of_the_store_and_not_of_the_machine(objects: MemoryStore, clock: Clock) -> None:
    """A sweeper whose clock is a year ahead removes nothing that lives."""
    S3Store(objects, now=clock).put(("a",), "k", {}, ttl=10)

    assert S3Store(objects, now=lambda: clock.time + timedelta(days=366)).sweep_ttl() == 0


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"format": 2}, "format 2"),
        ({"key": "other"}, "another item"),
        ({"namespace": ["b"]}, "another item"),
        ({"namespace": [""]}, "another item"),
        ({"value": [1]}, "no item"),
        ({"created_at": "yesterday"}, "no item"),
        ({"updated_at": "2026-01-01T00:00:00"}, "no item"),
        ({"ttl_minutes": 5}, "no item"),
        ({"ttl_minutes": "5", "expires_at": "2026-01-01T00:00:00+00:00"}, "no item"),
        ({"write_id": None}, "no item"),
    ],
)
def test_an_object_that_is_no_item_is_an_error_and_not_an_answer(damage: dict[str, Any], reason: str) -> None:
    """A copy to another key by other means is one, too."""
    objects = MemoryStore()
    memories = S3Store(objects)
    memories.put(("a",), "k", {"n": 1})
    key = "memories/a/k.json"

    async def rewrite() -> None:
        stored = await objects.get(key, max_bytes=10_000)
        assert stored is not None
        body = json.dumps({**json.loads(stored.body), **damage}, separators=(",", ":")).encode()
        attributes = stored.head.attributes
        metadata = {**attributes.metadata, "digest": compact_digest(body)}
        await objects.put(key, body, replace(attributes, metadata=metadata), mode="overwrite")

    asyncio.run(rewrite())

    for read in (lambda: memories.get(("a",), "k"), lambda: memories.search(("a",))):
        with pytest.raises(StateDecodingError, match=reason):
            read()


def test_a_damaged_body_is_an_error() -> None:
    """It does not match its digest."""
    objects = MemoryStore()
    memories = S3Store(CorruptBody(objects, lambda body: body.replace(b"red", b"bad")))
    memories.put(("a",), "k", {"color": "red"})

    with pytest.raises(StateDecodingError, match="digest"):
        memories.get(("a",), "k")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_items_can_be_compressed_and_what_was_stored_otherwise_is_still_read(compression: Any) -> None:
    """Large ones are encoded and decoded in a thread."""
    objects = MemoryStore()
    S3Store(objects).put(("a",), "plain", {"n": 1})
    memories = S3Store(objects, compression=compression)
    large = {"text": ["word"] * 200_000}
    memories.put(("a",), "large", large)

    assert memories.get(("a",), "large").value == large  # type: ignore[union-attr]
    assert objects._objects["memories/a/large.json"].head.size < 100_000
    assert S3Store(objects).get(("a",), "large").value == large  # type: ignore[union-attr]
    assert memories.get(("a",), "plain").value == {"n": 1}  # type: ignore[union-attr]


def test_the_async_methods_do_the_same(memories: S3Store) -> None:
    """In any loop, of any thread, several at once."""

    async def use(name: str) -> None:
        await asyncio.gather(*(memories.aput((name,), str(n), {"n": n}) for n in range(5)))
        assert (await memories.aget((name,), "3")).value == {"n": 3}  # type: ignore[union-attr]
        assert len(await memories.asearch((name,), filter={"n": {"$lt": 3}})) == 3
        assert await memories.alist_namespaces(prefix=(name,)) == [(name,)]
        await memories.adelete((name,), "3")
        assert memories.get((name,), "3") is None
        with pytest.raises(NotImplementedError, match="index"):
            await memories.asearch((name,), query="?")

    workers = [threading.Thread(target=asyncio.run, args=[use(f"worker-{n}")]) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len(memories.search((), limit=99)) == 12


def test_a_value_changed_by_its_caller_changes_for_no_other_reader(memories: S3Store) -> None:
    """Nor what is stored."""
    value = {"list": [1]}
    memories.put(("a",), "k", value)
    value["list"].append(2)

    for _ in range(2):
        memories.search(("a",))[0].value["list"].append(3)
        memories.get(("a",), "k").value["list"].append(4)  # type: ignore[union-attr]

    assert memories.get(("a",), "k").value == {"list": [1]}  # type: ignore[union-attr]


def test_a_store_opens_as_the_saver_does(shared_settings: S3Settings) -> None:
    """By `with`, by `async with`, by `setup`; a URL, settings, or an open store; closed, it says so."""
    url = f"s3://{shared_settings.bucket}/opened"
    rest = shared_settings.model_dump(exclude={"bucket", "prefix"}, exclude_none=True)

    async def use() -> None:
        async with S3Store.from_conn_string(url, **rest) as memories:
            await memories.aput(("a",), "k", {"n": 1})
        memories = S3Store(shared_settings.model_copy(update={"prefix": "opened"}))
        await memories.asetup()
        assert await memories.aget(("a",), "k") is not None
        await memories.aclose()
        with pytest.raises(LifecycleError):
            await memories.aget(("a",), "k")

    asyncio.run(use())
    with S3Store.from_conn_string(url, **rest) as memories:
        assert memories.get(("a",), "k") is not None
    memories = S3Store(shared_settings, prefix="opened")
    memories.setup()
    assert memories.get(("a",), "k") is not None
    memories.close()


@pytest.mark.parametrize(
    "options",
    [
        {"max_search_items": 0},
        {"cache_bytes": -1},
        {"max_state_bytes": "1"},
        {"prefix": "p" * 401},
        {"cache_bytes": None},
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    """When the store is made."""
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        S3Store(MemoryStore(), **options)
