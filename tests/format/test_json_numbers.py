"""What is no number in JSON is neither written nor read, whatever the type."""

from __future__ import annotations

import json
import math
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, JsonValue

from s3_checkpoint import ActiveSnapshot, MemoryStore, S3Checkpointer, StateDecodingError, StateEncodingError
from s3_checkpoint._format.json_codec import compact_digest
from s3_checkpoint._format.json_numbers import odd_number
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._format.metadata import ObjectMetadata
from s3_checkpoint._runs.fork import origin_of
from s3_checkpoint.object_store import ObjectAttributes

RUN = UUID(int=5)
KEYS = RunKeys("", RUN)
ODD = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1E999", "1e+999", "1e0999", "1.5e309", "9" * 400 + ".0"]
ODD += ["1" * 250 + "e99", "0.1e400", "123.456E+0400"]


class Constants(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    x: float


class Strings(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    x: float


async def stored(body: bytes, **metadata: str) -> MemoryStore:
    store = MemoryStore()
    described = {"format": "1", "schema-version": "1", "write-id": "w", "digest": compact_digest(body), **metadata}
    await store.put(KEYS.state(0), body, ObjectAttributes(metadata=described), mode="overwrite")
    return store


@pytest.mark.parametrize("number", ODD, ids=lambda number: number[:20])
@pytest.mark.parametrize(
    "state_type", [Any, dict[str, Any], dict[str, float], dict[str, JsonValue], Constants, Strings]
)
async def test_a_body_with_what_is_no_number_is_refused(number: str, state_type: Any) -> None:
    """pydantic reads it as NaN or infinity, and no other reader of the object would."""
    store = await stored(b'{"x": ' + number.encode() + b"}")

    migrated: dict[str, Any] = {"schema_version": 2, "migrations": {1: lambda state: state}}
    for options in ({}, migrated):
        with pytest.raises(StateDecodingError):
            await S3Checkpointer(state_type, store, **options).load(RUN, 0)


async def test_active_tasks_with_what_is_no_number_are_refused() -> None:
    """In the payload of a task."""
    store = await stored(b"{}")
    body = b'[{"node_name": "a", "payload": {"x": 1e999}}]'
    attributes = ObjectAttributes(metadata={"format": "1", "write-id": "w", "digest": compact_digest(body)})
    await store.put(KEYS.active(0), body, attributes, mode="overwrite")

    with pytest.raises(StateDecodingError, match="1e999 is no number"):
        await S3Checkpointer(dict[str, Any], store).load_active(RUN, 0)


@pytest.mark.parametrize(
    "body",
    [
        {"hash": "3e1234567890", "text": 'NaN "Infinity" 1e999 \\', "n": 1e308, "m": 5e-324, "z": 1e-999},
        {"digits": "7" * 1000, "quoted": '\\"NaN', "list": ["1e999", '"', "1E+999"]},
        {"NaN": "Infinity", "1e999": [1e22, 1e300]},
        {"e": 1e100, "f": 123456789012345680000.0},
    ],
)
async def test_text_that_looks_like_one_is_text(body: Any) -> None:
    """Strings, keys, hashes, and the largest and smallest floats there are."""
    store = MemoryStore()
    checkpointer = S3Checkpointer(dict[str, Any], store)

    await checkpointer.save(RUN, 0, body)

    assert await checkpointer.load(RUN, 0) == body


async def test_an_integer_is_as_long_as_it_likes_where_the_type_is_one() -> None:
    """A float would read it as infinity: refused there."""
    body = b'{"x": ' + b"7" * 400 + b"}"

    assert await S3Checkpointer(dict[str, int], await stored(body)).load(RUN, 0) == {"x": int("7" * 400)}
    assert await S3Checkpointer(dict[str, Any], await stored(body)).load(RUN, 0) == {"x": int("7" * 400)}
    with pytest.raises(StateDecodingError, match=r"does not fit the type at \$\.x"):
        await S3Checkpointer(dict[str, float], await stored(body)).load(RUN, 0)


async def test_infinity_as_a_constant_is_not_written_and_as_text_comes_back() -> None:
    """A body is JSON: `jq` reads it. The error says what to set instead."""
    checkpointer = S3Checkpointer(Constants, MemoryStore())

    with pytest.raises(StateEncodingError, match="ser_json_inf_nan") as refused:
        await checkpointer.save(RUN, 0, Constants(x=math.inf))
    assert refused.value.path == "$.x"

    strings = S3Checkpointer(Strings, MemoryStore())
    await strings.commit(RUN, 0, Strings(x=-math.inf), [ActiveSnapshot(node_name="a")])
    assert await strings.load(RUN, 0) == Strings(x=-math.inf)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
@example(["1e9999", 'a"', "\\", "NaN"])
def test_no_json_is_refused(value: Any) -> None:
    """Whatever its strings look like."""
    assert odd_number(json.dumps(value).encode()) is None
    assert odd_number(json.dumps(value, ensure_ascii=False, indent=1).encode(errors="replace")) is None


@given(JSON, st.sampled_from(ODD), st.integers(0, 3))
def test_every_odd_number_is_found(value: Any, number: str, padding: int) -> None:
    """Wherever it is, in a body of several megabytes too."""
    text = json.dumps([value, "x" * (padding << 19), "MARK", value]).replace('"MARK"', number, 1)

    found = odd_number(text.encode())

    assert (found is not None and not found.is_integer) or '"MARK"' in json.dumps(value)


@pytest.mark.parametrize("step", ["9" * 5000, "1" * 21, str(2**64), "-1", "", "٣", "1e3"])
def test_an_origin_that_is_no_step_is_none(step: str) -> None:
    """Five thousand digits were a bare `ValueError`."""
    metadata = ObjectMetadata(origin=f"{UUID(int=1)}/{step}")

    assert origin_of(metadata) is None


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "9" * 400, None])
def test_an_odd_number_is_found_on_whatever_line_it_is(number: str | None) -> None:
    """A large state is written over several lines, and is looked through line by line; ids in it look like numbers."""
    lines = ["{", '"ids":[', *(f'"{n}e{n}9{n}",' for n in range(100, 90_000)), '"NaN"', "],", '"n":[', "1", "]", "}"]
    body = "\n".join(lines)
    data = body.replace("\n1\n", f"\n{number}\n") if number else body

    found = odd_number(data.encode())

    assert found == odd_number(data.replace("\n", "").encode())
    assert (found is None) is (number is None)
