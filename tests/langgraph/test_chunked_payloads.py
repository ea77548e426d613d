"""Large values go through the serializer in chunks, in a thread; what comes back is what the whole would give."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from s3_checkpoint import MemoryStore, StateDecodingError
from s3_checkpoint._format.size_estimate import CHUNK_BYTES
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.langgraph.chunked_payloads import dump_payload, load_payload

SERDE = JsonPlusSerializer()
VALUES: dict[str, Any] = {
    "items": [{"id": n, "text": "t" * 40, "at": (n, {n})} for n in range(20_000)],
    "by number": {n: [n] * 9 for n in range(20_000)},
    "by name": {f"{n:030}": n for n in range(40_000)},
    "messages": [HumanMessage(content="t" * 200, id=str(n)) for n in range(4_000)],
    "of all sizes": ["x" * CHUNK_BYTES, *range(3000), "y" * 3 * CHUNK_BYTES, None, b"z"],
}


class OwnSerializer(JsonPlusSerializer):
    """One that is not known here."""


@pytest.mark.parametrize("name", VALUES)
def test_a_large_value_in_chunks_comes_back_as_from_one_payload(name: str) -> None:
    """The same values, types and order; no chunk is much larger than it should be."""
    tag, body = dump_payload(SERDE, VALUES[name])

    found = load_payload(SERDE, (tag, body))

    whole = SERDE.loads_typed(SERDE.dumps_typed(VALUES[name]))
    assert tag in ("msgpack-list", "msgpack-dict")
    assert repr(found) == repr(whole)


@pytest.mark.parametrize("value", [None, b"x" * 10**6, "x" * 10**6, [1] * 10, {"a": 1}, {1, 2}, (1,) * 10**6])
def test_other_values_are_payloads_of_the_serializer_alone(value: Any) -> None:
    """Small ones, and those that are no list or dict."""
    assert dump_payload(SERDE, value) == SERDE.dumps_typed(value)


def test_another_serializer_gets_its_values_whole() -> None:
    """What it makes of a list need not be what it makes of its parts."""
    own = OwnSerializer()

    assert dump_payload(own, VALUES["items"])[0] == "msgpack"
    assert load_payload(own, dump_payload(SERDE, VALUES["items"])) == load_payload(
        SERDE, own.dumps_typed(VALUES["items"])
    )


@pytest.mark.parametrize("body", [b"", b"\xc1", SERDE.dumps_typed([1])[1], SERDE.dumps_typed([b"\x80"])[1], b"\x91"])
def test_chunks_that_are_none_are_refused(body: bytes) -> None:
    """By the serializer's error or ours; a saver makes `StateDecodingError` of either."""
    with pytest.raises((ValueError, TypeError)):
        load_payload(SERDE, ("msgpack-list", body))


class Watched(JsonPlusSerializer):
    """Notes in which thread it works, and whether the collector runs then."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, bool]] = []

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        self._note(obj)
        return super().dumps_typed(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        found = super().loads_typed(data)
        self._note(found)
        return found

    def _note(self, value: Any) -> None:
        if isinstance(value, list):
            self.seen.append((threading.current_thread() is threading.main_thread(), gc.isenabled()))


@pytest.mark.parametrize(("value", "in_loop"), [(["x" * 100] * 5_000, False), ([1, 2], True)])
async def test_large_values_alone_leave_the_callers_loop(value: Any, in_loop: bool) -> None:
    """On `aput`, `aput_writes` and `aget_tuple`; the collector rests while they are encoded and decoded."""
    serde = Watched()
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"c": value}, {"c": "1"}
    async with S3Saver(MemoryStore(), serde=serde) as saver:
        config = await saver.aput(
            {"configurable": {"thread_id": "t", "checkpoint_ns": ""}},
            checkpoint,
            {"source": "loop", "step": 1, "parents": {}},
            {"c": "1"},
        )
        await saver.aput_writes(config, [("c", value)], "task")

        found = await saver.aget_tuple(config)

    assert found is not None
    assert repr(found.checkpoint["channel_values"]["c"]) == repr(value)
    assert [channel for _, channel, _ in found.pending_writes or ()] == ["c"]
    assert serde.seen == [(in_loop, in_loop)] * 4
    assert gc.isenabled()


async def test_a_cancelled_put_of_a_large_value_writes_nothing() -> None:
    """The thread ends by itself, and the saver can be used."""
    store = MemoryStore()
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"c": VALUES["items"]}, {"c": "1"}
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    async with S3Saver(store) as saver:
        putting = asyncio.ensure_future(
            saver.aput(config, checkpoint, {"source": "loop", "step": 1, "parents": {}}, {"c": "1"})
        )
        await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting

        assert not (await store.list("")).objects
        assert await saver.aget_tuple(config) is None


async def test_a_large_value_that_is_damaged_is_an_error() -> None:
    """Chunks that are not the serializer's."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"], checkpoint["channel_versions"] = {"c": VALUES["items"]}, {"c": "1"}
    store = MemoryStore()
    async with S3Saver(store, cache_bytes=0) as saver:
        config = await saver.aput(
            {"configurable": {"thread_id": "t", "checkpoint_ns": ""}},
            checkpoint,
            {"source": "loop", "step": 1, "parents": {}},
            {"c": "1"},
        )
        key = next(item.key for item in (await store.list("")).objects if "/values/" in item.key)
        await store.put(key, b"\x91\xc4\x01\xc1", store._objects[key].head.attributes, mode="overwrite")

        with pytest.raises(StateDecodingError):
            await saver.aget_tuple(config)
