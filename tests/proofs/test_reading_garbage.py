"""Whatever is in the bucket: reading it gives what was written or one of our errors, within a bound of memory."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue, TypeAdapter

from s3_checkpoint import ActiveSnapshot, CheckpointError, MemoryStore, S3Checkpointer, StateDecodingError
from s3_checkpoint._format.keys import MAX_STEP, RunKeys
from s3_checkpoint.object_store import ObjectAttributes, StoredObject
from s3_checkpoint.testing import (
    CorruptBody,
    ListedButGone,
    SmallPages,
)
from tests.proofs.scheduler import World

T = TypeVar("T")
RUN = UUID("11111111-2222-4333-8444-555555555555")
KEYS = RunKeys("", RUN)
MEGABYTE = 1024**2


class Tree(BaseModel):
    name: str
    weight: float = 1.0
    leaves: list[Tree] = []
    notes: dict[str, JsonValue] = {}


TREE: Any = TypeAdapter(Tree)
STATE = Tree(name="root", leaves=[Tree(name="é", weight=0.1)], notes={"a": [1, None, "x"]})
ACTIVE = [ActiveSnapshot(node_name="next", payload={"n": 1}), ActiveSnapshot(node_name="other")]
READS: dict[str, Callable[[S3Checkpointer[Tree]], Coroutine[Any, Any, object]]] = {
    "load": lambda c: c.load(RUN),
    "load of the step": lambda c: c.load(RUN, 7),
    "load_active": lambda c: c.load_active(RUN, 7),
    "resume": lambda c: c.resume(RUN),
    "list": lambda c: c.list(RUN),
}


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """To its end, on a store in memory: all it waits for is its turn."""
    loop = World().loop
    task = loop.create_task(coroutine)
    loop.run_until_quiet()
    result: T = task.result()
    return result


def committed(compression: str | None = None) -> MemoryStore:
    """A store in which step 7 is committed, its tasks in an object of their own."""
    store = MemoryStore()
    writer: S3Checkpointer[Tree] = S3Checkpointer(
        TREE, store, compression=compression, inline_tasks="never", new_id=lambda: "w1"
    )
    run(writer.commit(RUN, 7, STATE, ACTIVE))
    return store


def outcomes(store: Any, **options: Any) -> dict[str, object]:
    """What each reading call gives; `CheckpointError` if it raises one of ours. Anything else comes through."""
    found: dict[str, object] = {}
    for name, read in READS.items():
        try:
            found[name] = run(read(S3Checkpointer(TREE, store, **options)))
        except CheckpointError:
            found[name] = CheckpointError
    return found


HONEST = {name: outcomes(committed())[name] for name in READS}


def put(store: MemoryStore, key: str, stored: StoredObject) -> None:
    run(store.put(key, stored.body, stored.head.attributes, mode="overwrite"))


@st.composite
def mutations(draw: st.DrawFn, body: bytes) -> bytes:
    """The body, cut, stretched, with bytes flipped, or another one altogether."""
    at = draw(st.integers(0, len(body)))
    kind = draw(st.sampled_from(["cut", "insert", "flip", "other"]))
    if kind == "cut":
        return body[:at] + body[draw(st.integers(at, len(body))) :]
    if kind == "insert":
        return body[:at] + draw(st.binary(max_size=20)) + body[at:]
    if kind == "flip":
        flipped = bytearray(body)
        flipped[at % len(body)] ^= draw(st.integers(1, 255))
        return bytes(flipped)
    return draw(st.binary(max_size=200))


kinds = st.sampled_from([KEYS.state(7), KEYS.committed_active(7, "w1")])
text = st.text(max_size=80)
small = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@small
@given(st.data(), kinds, st.sampled_from([None, "gzip", "zstd"]))
def test_a_damaged_body_is_an_error_or_what_was_written(data: st.DataObject, key: str, compression: str | None) -> None:
    """The digest tells; damage that does not reach the JSON (a gzip header's, say) does no harm."""
    store = committed(compression)
    stored = store._objects[key]
    put(store, key, replace(stored, body=data.draw(mutations(stored.body))))

    for name, outcome in outcomes(store).items():
        assert outcome in (CheckpointError, HONEST[name])


JSON_BOMBS = {
    "deep": b"[" * 500_000,
    "deep and closed": b'{"notes":' * 100_000 + b"0" + b"}" * 100_000,
    "a number of a million digits": b'{"name":"x","weight":' + b"9" * 1_000_000 + b"}",
    "an exponent without end": b'{"name":"x","weight":1e999999999999}',
    "a million keys": b'{"name":"x",' + b'"k":0,' * 200_000 + b'"z":0}',
    "not UTF-8": b'{"name":"\xff\xfe"}',
    "a lone surrogate": b'{"name":"\\ud800"}',
    "NaN": b'{"name":"x","weight":NaN}',
    "null": b"null",
    "nothing": b"",
}


def forged(store: MemoryStore, key: str, body: bytes, **metadata: str) -> None:
    """`body` at `key`, with the digest that belongs to it."""
    old = store._objects[key]
    described = {**old.head.attributes.metadata, "digest": hashlib.sha256(body).hexdigest(), **metadata}
    attributes = replace(old.head.attributes, metadata=described)
    put(store, key, StoredObject(body, replace(old.head, attributes=attributes)))


@small
@given(st.data(), kinds, st.booleans())
def test_a_forged_body_is_an_error_or_fits_the_type(data: st.DataObject, key: str, old: bool) -> None:
    """Another program wrote it, and its digest is right: it is read as JSON of the type, or not at all."""
    store = committed()
    forged(store, key, data.draw(mutations(store._objects[key].body)))

    found = outcomes(store, **({"schema_version": 2, "migrations": {1: lambda state: state}} if old else {}))

    assert isinstance(found["load"], Tree) or found["load"] is CheckpointError
    assert found["list"] == [7]


@pytest.mark.parametrize("name", JSON_BOMBS)
@pytest.mark.parametrize("migrated", [False, True])
def test_json_made_to_break_a_parser_is_an_error(name: str, migrated: bool) -> None:
    """Neither the stack nor the patience is exhausted."""
    store = committed()
    forged(store, KEYS.state(7), JSON_BOMBS[name])
    forged(store, KEYS.committed_active(7, "w1"), JSON_BOMBS[name])

    found = outcomes(store, **({"schema_version": 2, "migrations": {1: lambda state: state}} if migrated else {}))

    assert found["load_active"] is CheckpointError
    assert found["resume"] is CheckpointError
    fits = {"a million keys", "NaN", "an exponent without end"}  # infinity, as a float64 reads it
    assert found["load"] is CheckpointError or (name in fits and isinstance(found["load"], Tree))


names = st.sampled_from(["format", "write-id", "digest", "active", "active-digest", "schema-version", "other"])


@small
@given(kinds, names, st.one_of(st.none(), text, st.sampled_from(["0", "-1", "٣", "1e3", "999999999999", "../../x"])))
@example(KEYS.state(7), "active", "w1/../w1")
@example(KEYS.state(7), "schema-version", "²")
def test_metadata_of_any_kind_is_an_error_or_harmless(key: str, name: str, value: str | None) -> None:
    """What it says is checked before it is believed, and never becomes part of a key unseen."""
    store = committed()
    stored = store._objects[key]
    described = {**stored.head.attributes.metadata, name: value or ""}
    if value is None:
        del described[name]
    attributes = replace(stored.head.attributes, metadata=described)
    put(store, key, replace(stored, head=replace(stored.head, attributes=attributes)))

    found = outcomes(store)

    assert found["list"] == [7]
    assert found["load"] in (CheckpointError, HONEST["load"])
    # A state that names no snapshot is a saved one, whose tasks are those of `save_active`: here, none.
    unbound = key == KEYS.state(7) and name == "active" and not value
    assert found["load_active"] in (CheckpointError, HONEST["load_active"], [] if unbound else HONEST["load_active"])


@small
@given(text)
@example("gzip, gzip")
@example("br")
def test_a_content_encoding_of_any_kind_is_an_error_or_harmless(encoding: str) -> None:
    store = committed()
    stored = store._objects[KEYS.state(7)]
    attributes = replace(stored.head.attributes, content_encoding=encoding)
    put(store, KEYS.state(7), replace(stored, head=replace(stored.head, attributes=attributes)))

    assert outcomes(store)["load"] in (CheckpointError, HONEST["load"])


digits = st.text("0123456789", min_size=17, max_size=23)
looks_like_a_step = st.one_of(
    st.integers(0, 30).map(lambda step: f"{step:020d}.json"),
    st.integers(0, 2**70).map(lambda step: f"{step:020d}.json"),
    st.sampled_from([MAX_STEP - 1, MAX_STEP, MAX_STEP + 1, 10**20 - 1]).map(lambda step: f"{step:020d}.json"),
    digits.map("{}.json".format),
    st.text("0123456789٠١२３.jsonJSON-+_ ", min_size=20, max_size=26),
    st.integers(1, 10**19).map(lambda step: f"-{step:019d}.json"),
    st.sampled_from(["", ".json", "00000000000000000001", "00000000000000000001.json/x", "٠" * 20 + ".json", "zzz"]),
    text,
)


def step_of(name: str) -> int | None:
    """What a step's name is, said in another way than the library does."""
    head, tail = name[:20], name[20:]
    if tail != ".json" or len(head) != 20 or not head.isascii() or not head.isdigit() or int(head) >= 2**64:
        return None
    return int(head)


@small
@given(st.lists(looks_like_a_step, max_size=40), st.integers(1, 5), st.booleans())
@example(["00000000000000000001.json", *(f"{'9' * 20}{n}" for n in range(9))], 2, True)
@example([f"{step:020d}.json" for step in (0, 1, 2, MAX_STEP)], 1, True)
@example(["000000000000000000007.json", "0000000000000000007.json"], 2, True)
def test_keys_that_look_like_steps_but_are_not_are_skipped(found: list[str], page: int, ordered: bool) -> None:
    """The list and the latest step are those that the key grammar says, on pages of any size and in any order."""
    store = MemoryStore(ordered=ordered)
    for name in found:
        with_surrogates = any(0xD800 <= ord(letter) < 0xE000 for letter in name)
        if not with_surrogates:
            run(store.put(KEYS.steps + name, b"{}", ObjectAttributes(), mode="overwrite"))
    expected = sorted({step for name in found if (step := step_of(name)) is not None})
    checkpointer = S3Checkpointer(TREE, SmallPages(store, page))

    assert run(checkpointer.list(RUN)) == expected
    if not expected:
        assert run(checkpointer.resume(RUN)) is None
        assert run(checkpointer.load(RUN)) is None
        return
    with pytest.raises(StateDecodingError) as caught:
        run(checkpointer.load(RUN))
    assert caught.value.key == KEYS.state(expected[-1])


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """The block allocates no more than `limit` bytes at any time, beyond what there was before."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:,} bytes were allocated"


def gzip_bomb() -> bytes:
    return gzip.compress(bytes(256 * MEGABYTE), 9)


def zstd_bomb() -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(256 * MEGABYTE))


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", gzip_bomb),
    "gzip of many members": ("gzip", lambda: gzip.compress(bytes(MEGABYTE)) * 256),
    "gzip of empty members": ("gzip", lambda: gzip.compress(b"", mtime=0) * 50_000),
    "zstd": ("zstd", zstd_bomb),
    "zstd of many frames": ("zstd", lambda: zstandard.ZstdCompressor().compress(bytes(MEGABYTE)) * 256),
    "zstd with a window of 128 MB": (
        "zstd",
        lambda: zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=27)
        ).compressobj().compress(bytes(1000)) + b"\x01\x00\x00",
    ),
    "no compression at all": ("", lambda: bytes(3 * MEGABYTE)),
}  # fmt: skip


@pytest.mark.parametrize("key", [KEYS.state(7), KEYS.committed_active(7, "w1")], ids=["state", "active"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_the_bound(name: str, key: str) -> None:
    """It is found out before `max_state_bytes` of it are held: the bound, and a constant.

    Story: a megabyte of empty gzip members kept the reader busy for hours, each one copying all that were left.
    """
    encoding, make = BOMBS[name]
    store, body = committed(), make()
    stored = store._objects[key]
    attributes = replace(stored.head.attributes, content_encoding=encoding or None)
    put(store, key, StoredObject(body, replace(stored.head, attributes=attributes)))
    checkpointer: S3Checkpointer[Tree] = S3Checkpointer(TREE, store, max_state_bytes=2 * MEGABYTE)

    with memory_below(2 * MEGABYTE + MEGABYTE), pytest.raises(StateDecodingError):
        run(checkpointer.resume(RUN))


def test_a_step_that_is_listed_but_gone_is_searched_for_again() -> None:
    """Deleted between the listing and the reading: the next look finds what is there."""
    store = committed()

    found = run(S3Checkpointer(TREE, ListedButGone(store, ["00000000000000000009.json"])).resume(RUN))

    assert found is not None
    assert (found.step, found.state, list(found.active)) == (7, STATE, ACTIVE)


def test_a_body_that_changes_on_the_way_is_an_error_not_a_state() -> None:
    """The digest is checked at every read."""
    checkpointer: S3Checkpointer[Tree] = S3Checkpointer(
        TREE, CorruptBody(committed(), lambda body: body.replace(b"root", b"boot"))
    )

    with pytest.raises(StateDecodingError, match="digest"):
        run(checkpointer.load(RUN, 7))
