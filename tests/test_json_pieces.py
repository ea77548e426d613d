"""Large JSON objects in pieces: the same JSON, the same value, and nothing else passes for it."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue
from pydantic_core import from_json, to_json

from s3_checkpoint import MemoryStore, S3Checkpointer, StateEncodingError
from s3_checkpoint.json_pieces import from_json_in_pieces, to_json_in_pieces
from s3_checkpoint.keys import RunKeys
from s3_checkpoint.off_loop import CHUNK_BYTES

RUN = UUID(int=4)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    SCALARS | TEXT | st.sampled_from(["[", "{\n", "\n]", ",", '"', "\\", "}\n,"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT, inner, max_size=6),
    max_leaves=40,
)
OBJECTS = st.dictionaries(TEXT, JSON, min_size=1, max_size=6)
ITEMS: dict[str, Any] = {"items": [{"id": n, "text": "t" * 40, "tags": ["a"]} for n in range(40_000)], "n": 1}


@settings(max_examples=300, deadline=None)
@given(value=OBJECTS, piece=st.integers(9, 200))
@example(value={"a": [0] * 3000, "b": {str(n): [n] for n in range(2000)}}, piece=100)
def test_what_is_written_in_pieces_is_the_same_json(value: dict[str, Any], piece: int) -> None:
    """For every reader of JSON, and read in pieces too: types and the order of names included."""
    data = to_json_in_pieces(value, piece)
    if data is None:
        return

    assert data.startswith(b"{\n")
    assert to_json(json.loads(data)) == to_json(value)
    assert to_json(from_json_in_pieces(data)) == to_json(value)
    assert data == to_json_in_pieces(json.loads(json.dumps(value)), piece)


@settings(max_examples=400, deadline=None)
@given(
    value=OBJECTS,
    piece=st.integers(9, 60),
    cuts=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3)), min_size=1, max_size=3),
    inserted=st.lists(st.sampled_from([b"\n", b",", b"[", b"]", b"{", b"}", b":", b'"', b" ", b"1", b'"a":', b""])),
)
def test_of_damaged_pieces_nothing_is_made_that_is_not_there(
    value: dict[str, Any], piece: int, cuts: list[tuple[int, int]], inserted: list[bytes]
) -> None:
    """Whatever is read is what the JSON says as a whole; what is no JSON is never read."""
    data = bytearray(to_json_in_pieces(value, piece) or b"{\n" + to_json(value)[1:])
    for (place, length), text in zip(cuts, inserted, strict=False):
        start = place % (len(data) + 1)
        data[start : start + length] = text

    found = from_json_in_pieces(data)

    if found is not None:
        assert to_json(found) == to_json(from_json(bytes(data)))


@pytest.mark.parametrize(
    "lines",
    [
        ['{"a":1}'],
        ["{", '"a":1'],
        ["{", '"a":1,', "}"],
        ["{", '"a":1', '"b":2', "}"],
        ["{", '"a":1', "}", ""],
        ["{", '"a":1', "}", "{"],
        ["{", '"a":1', "},"],
        ["{", "}"],
        ["{", '"a":[', "]", "}"],
        ["{", '"a":[,', "1", "]", "}"],
        ["{", '"a":[', "1", "}", "}"],
        ["{", '"a":[', '"b":[', "1", "]", "]", "}"],
        ["{", '"a"[', "1", "]", "}"],
        ["{", "1:[", "1", "]", "}"],
        ["{", '"a":[', ",", "1", "]", "}"],
        ["{", '"a":[', "1],[2", "]", "}"],
        ["{", '"a":', "1", "}"],
        ["[", "1", "]"],
    ],
)
def test_what_is_laid_out_otherwise_is_left_to_be_read_whole(lines: list[str]) -> None:
    """JSON or not."""
    assert from_json_in_pieces("\n".join(lines).encode()) is None


async def test_a_large_state_is_stored_in_pieces_and_comes_back() -> None:
    """No line is much longer than a piece; the object is plain JSON with one line for each small part."""
    store = MemoryStore()
    checkpointer: S3Checkpointer[Any] = S3Checkpointer(dict[str, JsonValue], store)

    await checkpointer.save(RUN, 0, ITEMS)

    stored = await store.get(RunKeys("", RUN).state(0), max_bytes=2**30)
    assert stored is not None
    lines = stored.body.split(b"\n")
    assert len(stored.body) > 4 * CHUNK_BYTES
    assert max(map(len, lines)) < 2 * CHUNK_BYTES
    assert (lines[:2], lines[-3:]) == ([b"{", b'"items":['], [b"],", b'"n":1', b"}"])
    assert json.loads(stored.body) == ITEMS
    assert await checkpointer.load(RUN, 0) == ITEMS


@pytest.mark.parametrize("type_", [dict, dict[str, Any], dict[str, JsonValue]])
async def test_pieces_are_read_as_the_whole_is(type_: Any) -> None:
    """A state written in pieces by one type of state is read by others, in pieces or not."""
    store = MemoryStore()

    class Items(BaseModel):
        items: list[dict[str, JsonValue]]
        n: int

    await S3Checkpointer(type_, store).commit(RUN, 0, ITEMS, [])

    assert (await S3Checkpointer(Items, store).load(RUN)) == Items(**ITEMS)
    others: list[Any] = [dict, dict[str, Any], JsonValue]
    for other in others:
        assert await S3Checkpointer(other, store).load(RUN) == ITEMS
    await S3Checkpointer(type_, store).commit(RUN, 0, json.loads(json.dumps(ITEMS)), [])  # the same content again


@pytest.mark.parametrize(
    "bad",
    [float("nan"), float("inf"), {1: "x"}, b"\xff", "\ud800", object(), (1, 2), UUID(int=1)],
    ids=["nan", "inf", "int-key", "bytes", "surrogate", "object", "tuple", "uuid"],
)
async def test_what_would_not_come_back_is_refused_with_its_place(bad: object) -> None:
    """As in a small state."""
    checkpointer = S3Checkpointer(dict, store := MemoryStore())

    with pytest.raises(StateEncodingError, match=r"\$\.items\[39999\]\.bad"):
        await checkpointer.save(RUN, 0, {"items": [*ITEMS["items"][:-1], {"bad": bad}]})

    assert not (await store.list("")).objects


async def test_what_contains_itself_is_refused() -> None:
    """With no more memory than a dozen times what it takes itself."""
    size = 2_000_000
    endless: dict[str, Any] = {"text": ["x" * 1000] * (size // 1000)}
    endless["self"] = endless
    checkpointer = S3Checkpointer(dict, MemoryStore())

    tracemalloc.start()
    try:
        with pytest.raises(StateEncodingError, match="contains itself"):
            await checkpointer.save(RUN, 0, endless)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 20 * size


async def test_a_name_that_is_no_text_is_refused_as_such() -> None:
    """Also where what it names is large."""
    with pytest.raises(StateEncodingError, match="its key is a int, not a string"):
        await S3Checkpointer(dict, MemoryStore()).save(RUN, 0, {1: ITEMS["items"]})


def test_a_line_too_long_to_be_copied_is_left_to_be_read_whole() -> None:
    """It would be held several times."""
    data = b'{\n"text":"' + b"x" * 9 * CHUNK_BYTES + b'"\n}'

    assert from_json_in_pieces(data) is None
    assert from_json_in_pieces(data.replace(b"x" * 2 * CHUNK_BYTES, b"")) is not None


@pytest.mark.parametrize("value", [[1] * 10**6, {"n": 1}, {"text": "x" * 20 * CHUNK_BYTES}, "x" * 10**6])
def test_other_values_are_written_whole(value: object) -> None:
    """What is no object, not large, or one long text."""
    assert to_json_in_pieces(value) is None
