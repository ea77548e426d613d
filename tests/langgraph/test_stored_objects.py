"""What is in the bucket: keys, bodies, and what reading says when they have been tampered with."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import get_args

import ormsgpack
import pytest

from s3_checkpoint import MemoryStore, StateDecodingError, StoreUnavailableError
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore, PutMode, Refused, Written
from s3_checkpoint.settings import Compression
from tests.langgraph.counting import Counting, at, put

BIG = "x" * 100_000


def keys_of(store: MemoryStore) -> list[str]:
    return sorted(key.decode() for key in store._keys)


def find(store: MemoryStore, part: str) -> str:
    return next(key for key in keys_of(store) if part in key)


def one_thread(store: MemoryStore) -> None:
    with S3Saver(store) as saver:
        config = put(saver, at("t"), {"n": 1, "big": BIG})
        saver.put_writes(config, [("x", 1)], "task")


async def overwrite(store: MemoryStore, key: str, body: bytes) -> None:
    """Puts a body there, with the digest that belongs to it."""
    attributes = ObjectAttributes("application/octet-stream", None, {"digest": hashlib.sha256(body).hexdigest()})
    await store.put(key, body, attributes, mode="overwrite")


async def test_bodies_are_msgpack_around_the_serializers_bytes_and_values_are_those_bytes() -> None:
    store = MemoryStore()
    one_thread(store)

    envelope = ormsgpack.unpackb(store._objects[find(store, "/c.-")].body)
    writes = ormsgpack.unpackb(store._objects[find(store, "/w.task.r000000")].body)
    value = store._objects[find(store, "/values/")].body

    with S3Saver(store) as saver:
        assert value == saver.serde.dumps_typed(BIG)[1]
    assert envelope["inline"] == {"n": ["msgpack", b"\x01"]}
    assert envelope["values"]["big"][:2] == [find(store, "/values/").rpartition("/")[2], "msgpack"]
    assert writes["rows"] == [[0, "x", "", ["msgpack", b"\x01"]]]


@pytest.mark.parametrize(
    ("part", "body", "reason"),
    [
        ("/c.", b"\xc1", "not msgpack"),
        ("/c.", b"", "not msgpack"),
        ("/c.", ormsgpack.packb([1]), "not a msgpack map"),
        ("/c.", ormsgpack.packb({"format": 2}), "layout format 2"),
        ("/c.", ormsgpack.packb({"format": 1, "id": 3}), "no checkpoint of this library"),
        ("/w.", ormsgpack.packb({"format": 1, "rows": [[0, "x", "", ["msgpack", "text"]]]}), "no writes"),
        ("/values/", b"another value", "does not match its name"),
    ],
)
async def test_tampered_objects_are_errors_that_name_them(part: str, body: bytes, reason: str) -> None:
    store = MemoryStore()
    one_thread(store)
    key = find(store, part)
    await overwrite(store, key, body)

    with S3Saver(store) as saver, pytest.raises(StateDecodingError, match=reason) as caught:
        await saver.aget_tuple(at("t"))

    assert caught.value.key == key


@pytest.mark.parametrize("part", ["/c.", "/w.", "/values/"])
async def test_one_flipped_bit_anywhere_is_found_out(part: str) -> None:
    store = MemoryStore()
    one_thread(store)
    key = find(store, part)
    stored = store._objects[key]
    for at_byte in range(0, len(stored.body), max(1, len(stored.body) // 25)):
        damaged = bytearray(stored.body)
        damaged[at_byte] ^= 1
        store._objects[key] = replace(stored, body=bytes(damaged))

        with S3Saver(store) as saver, pytest.raises(StateDecodingError, match="does not match its") as caught:
            await saver.aget_tuple(at("t"))
        assert caught.value.key == key


@pytest.mark.parametrize("how", ["get_tuple", "list"])
async def test_a_large_value_that_is_gone_is_an_error_never_an_empty_answer(how: str) -> None:
    store = MemoryStore()
    one_thread(store)
    key = find(store, "/values/")
    await store.delete([key])

    with S3Saver(store) as saver, pytest.raises(StateDecodingError, match="not there") as caught:
        saver.get_tuple(at("t")) if how == "get_tuple" else list(saver.list(at("t")))

    assert caught.value.key == key


async def test_objects_of_others_under_the_prefix_are_left_alone_and_out() -> None:
    store = MemoryStore()
    one_thread(store)
    directory = find(store, "/c.").rpartition("/")[0]
    strangers = ["threads/t/!/zz/c.-", "threads/t/!/0fz/c.-", f"{directory}/c.other", "threads/t", "threads/x/y"]
    for key in strangers:
        await overwrite(store, key, b"stranger")

    with S3Saver(store) as saver:
        found = await saver.aget_tuple(at("t"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"n": 1, "big": BIG}
        assert len([item async for item in saver.alist(None)]) == 1


class StoppedAt(Counting):
    """Fails every PUT of a key with this in it, as when the process dies there."""

    def __init__(self, store: ObjectStore, part: str) -> None:
        super().__init__(store)
        self.part = part

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        if self.part in key:
            raise StoreUnavailableError("PutObject", self.bucket, key, outcome_unknown=True)
        return await super().put(key, body, attributes, mode=mode)


@pytest.mark.parametrize("part", ["/values/", "/c."])
def test_a_checkpoint_that_can_be_seen_has_all_its_values(part: str) -> None:
    """Values first: a put that is cut short anywhere leaves the checkpoint before it the newest."""
    store = MemoryStore()
    with S3Saver(store) as saver:
        first = put(saver, at("t"), {"n": 1})
    with S3Saver(StoppedAt(store, part)) as saver, pytest.raises(StoreUnavailableError):
        put(saver, first, {"big": BIG})

    with S3Saver(store) as saver:
        found = saver.get_tuple(at("t"))
        assert found is not None
        assert found.config == first


class AnswerLost(Counting):
    """Carries out each first PUT of a key, and sends it again, as HTTP clients do when no answer comes."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        await super().put(key, body, attributes, mode=mode)
        return await super().put(key, body, attributes, mode=mode)


def test_writes_whose_answer_was_lost_are_there_once() -> None:
    store = MemoryStore()
    with S3Saver(AnswerLost(store)) as saver:
        config = put(saver, at("t"))
        saver.put_writes(config, [("x", 1)], "task")
        saver.put_writes(config, [("x", 2), ("y", 2)], "task")

        found = saver.get_tuple(config)

    assert found is not None
    assert found.pending_writes == [("task", "x", 1), ("task", "y", 2)]
    assert sum("/w." in key for key in keys_of(store)) == 2


def test_a_store_without_conditional_writes_keeps_first_and_last_too() -> None:
    store = MemoryStore()
    with S3Saver(store, conditional_writes=False) as saver:
        config = put(saver, at("t"))
        saver.put_writes(config, [("x", 1)], "task")
        saver.put_writes(config, [("x", 2), ("y", 2)], "task")

        found = saver.get_tuple(config)

    assert found is not None
    assert found.pending_writes == [("task", "x", 1), ("task", "y", 2)]


@pytest.mark.parametrize("compression", get_args(Compression))
def test_compression_is_below_the_serializer_and_read_by_the_objects_own_header(compression: Compression) -> None:
    store = MemoryStore()
    with S3Saver(store, compression=compression) as saver:
        config = put(saver, at("t"), {"n": 1, "big": BIG})
        saver.put_writes(config, [("x", BIG)], "task")

    assert sum(stored.head.size for stored in store._objects.values()) < 5_000
    assert {stored.head.attributes.content_encoding for stored in store._objects.values()} == {compression}
    with S3Saver(store) as saver:
        found = saver.get_tuple(at("t"))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"n": 1, "big": BIG}
    assert found.pending_writes == [("task", "x", BIG)]


async def test_a_checkpoint_deleted_between_listing_and_reading_is_not_there() -> None:
    class DeletesAfterList(Counting):
        async def list(self, *args: object, **options: object) -> object:  # type: ignore[override]
            page = await super().list(*args, **options)  # type: ignore[arg-type]
            await self.store.delete([line.key for line in page.objects])
            return page

    store = MemoryStore()
    one_thread(store)
    with S3Saver(DeletesAfterList(store)) as saver:  # type: ignore[arg-type]
        assert await saver.aget_tuple(at("t")) is None
    one_thread(store)
    with S3Saver(DeletesAfterList(store)) as saver:  # type: ignore[arg-type]
        assert [item async for item in saver.alist(at("t"))] == []
