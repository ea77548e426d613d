"""Any serializer, read from `self.serde` at every use: encryption, allowlists, clones, opaque tags."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from s3_checkpoint import MemoryStore, StateDecodingError, StateEncodingError
from s3_checkpoint.langgraph import S3Saver
from tests.langgraph.counting import at, checkpoint, id_of, put

SECRET = "a-value-nobody-may-read"
KEY = b"0123456789abcdef"


@dataclass
class Mine:
    """A type of the application's."""

    n: int


def bodies(store: MemoryStore) -> bytes:
    return b"".join(store._objects[key.decode()].body for key in store._keys)


def write(saver: S3Saver) -> None:
    config = put(saver, at("t"), {"small": SECRET, "big": SECRET * 10_000}, note=SECRET)
    saver.put_writes(config, [("x", SECRET)], "task")


def read(saver: S3Saver) -> list[Any]:
    found = saver.get_tuple(at("t"))
    assert found is not None
    values = found.checkpoint["channel_values"]
    return [values["small"], values["big"], found.metadata["note"], found.pending_writes]  # type: ignore[typeddict-item]


PLAIN = [SECRET, SECRET * 10_000, SECRET, [("task", "x", SECRET)]]


def test_an_encrypted_serializer_covers_values_writes_and_metadata() -> None:
    store, other = MemoryStore(), MemoryStore()
    with S3Saver(store, serde=EncryptedSerializer.from_pycryptodome_aes(key=KEY)) as saver:
        write(saver)

        assert read(saver) == PLAIN
    with S3Saver(other) as saver:
        write(saver)

    assert SECRET.encode() not in bodies(store)
    assert SECRET.encode() in bodies(other)


def test_the_wrong_key_is_an_error_never_an_empty_answer() -> None:
    store = MemoryStore()
    with S3Saver(store, serde=EncryptedSerializer.from_pycryptodome_aes(key=KEY)) as saver:
        write(saver)
    with S3Saver(store, serde=EncryptedSerializer.from_pycryptodome_aes(key=KEY[::-1])) as saver:
        with pytest.raises(StateDecodingError, match="serializer cannot read it") as caught:
            saver.get_tuple(at("t"))
        with pytest.raises(StateDecodingError):
            list(saver.list(at("t")))

    assert caught.value.key.startswith("threads/t/!/")


def test_a_serializer_replaced_after_construction_is_the_one_that_is_used() -> None:
    """LangGraph and its users assign to `serde`; old data stays readable, for encryption marks its tags."""
    store = MemoryStore()
    with S3Saver(store) as saver:
        write(saver)
        saver.serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY)
        assert read(saver) == PLAIN
        saver.delete_thread("t")

        write(saver)

        assert read(saver) == PLAIN
    assert SECRET.encode() not in bodies(store)


def test_a_clone_shares_everything_but_the_serializer() -> None:
    with S3Saver(MemoryStore()) as saver:
        write(saver)

        clone = copy.copy(saver)
        clone.serde = EncryptedSerializer.from_pycryptodome_aes(key=KEY)
        put(clone, at("u"), {"n": 1})

        assert read(clone) == PLAIN
        assert clone.serde is not saver.serde
        with pytest.raises(StateDecodingError):
            saver.get_tuple(at("u"))


def test_strict_mode_and_allowlists_reach_the_serializer(caplog: pytest.LogCaptureFixture) -> None:
    """Under `LANGGRAPH_STRICT_MSGPACK` every compile makes such a clone: strict, plus the types of the graph."""
    with S3Saver(MemoryStore(), serde=JsonPlusSerializer(allowed_msgpack_modules=None)) as strict:
        config = put(strict, at("t"), {"mine": Mine(3)})

        allowing = strict.with_allowlist([(Mine.__module__, "Mine")])
        with caplog.at_level(logging.WARNING):
            blocked = strict.get_tuple(config)
            allowed = allowing.get_tuple(config)

        assert isinstance(allowing, S3Saver)
        assert allowed is not None
        assert allowed.checkpoint["channel_values"] == {"mine": Mine(3)}
        assert blocked is not None
        assert blocked.checkpoint["channel_values"] != {"mine": Mine(3)}
        assert "not support msgpack allowlist" not in caplog.text


class JsonLines:
    """A serializer of the application's, with tags of its own."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return f"mine/{type(obj).__name__}", json.dumps(obj).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        assert data[0].startswith("mine/")
        return json.loads(data[1])


def test_tags_of_any_serializer_are_opaque() -> None:
    with S3Saver(MemoryStore(), serde=JsonLines(), inline_bytes=10) as saver:
        config = put(saver, at("t"), {"small": 1, "large": "x" * 50})
        saver.put_writes(config, [("x", [1, None])], "task")

        found = saver.get_tuple(at("t"))

    assert found is not None
    assert found.checkpoint["channel_values"] == {"small": 1, "large": "x" * 50}
    assert found.pending_writes == [("task", "x", [1, None])]


class Unstorable:
    def __reduce__(self) -> Any:
        raise TypeError("no")


def test_a_value_the_serializer_refuses_is_named_and_nothing_is_written() -> None:
    store = MemoryStore()
    with S3Saver(store, serde=JsonLines()) as saver:
        with pytest.raises(StateEncodingError, match=r"\$\.channel_values\.bad") as caught:
            put(saver, at("t"), {"good": 1, "bad": Unstorable()})
        assert isinstance(caught.value.__cause__, TypeError)
        with pytest.raises(StateEncodingError, match=r"\$writes\[1\]\.bad"):
            saver.put_writes(at("t", checkpoint_id="c"), [("a", 1), ("bad", Unstorable())], "task")

    assert store._keys == []


def test_a_checkpoint_that_is_too_large_is_refused_and_nothing_is_written() -> None:
    store = MemoryStore()
    with S3Saver(store, max_state_bytes=1_000, inline_bytes=500) as saver:
        for values in ({"big": "x" * 2_000}, {f"c{n}": "x" * 100 for n in range(20)}):
            with pytest.raises(StateEncodingError, match="more than 1000 allowed"):
                put(saver, at("t"), values)
        with pytest.raises(StateEncodingError, match="more than 1000 allowed"):
            saver.put_writes(at("t", checkpoint_id="c"), [("x", "y" * 2_000)], "task")

    assert store._keys == []


def test_more_large_values_than_a_key_can_name_are_stored_nevertheless() -> None:
    with S3Saver(MemoryStore(), inline_bytes=100) as saver:
        values = {f"c{n}": f"{n}" * 200 for n in range(60)}
        first = put(saver, at("t", "deep|" * 30), values)
        second = checkpoint({**values, "n": 1})
        config = saver.put(first, second, {}, {"n": 1})

        found = saver.get_tuple(config)

    assert found is not None
    assert found.checkpoint["channel_values"] == {**values, "n": 1}
    assert id_of(found.config) == second["id"]
