"""A release of pydantic that moves what is not documented costs time, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from s3_checkpoint._format.codec import StateCodec
from s3_checkpoint._format.pydantic_internals import PRIVATES, has_settings


class Item(BaseModel):
    text: str


def codec(state_type: Any) -> StateCodec[Any]:
    return StateCodec(state_type, schema_version=1, migrations={}, compression=None, max_bytes=10_000_000)


def test_settings_given_to_an_adapter_are_seen() -> None:
    """Those in its type are another matter."""
    assert has_settings(TypeAdapter(list[int], config=ConfigDict(strict=True)))
    assert not has_settings(TypeAdapter(list[int]))
    assert not has_settings(TypeAdapter(Item))


@pytest.mark.parametrize("private", PRIVATES)
@pytest.mark.parametrize("becomes", ["missing", "something else"])
def test_large_states_are_written_whole_without_a_private_of_pydantic(private: str, becomes: str) -> None:
    """The public way is slower, and all else is the same."""
    adapter = TypeAdapter(list[Item])
    state = [Item(text="x" * 1000) for _ in range(1000)]
    assert b"\n" in codec(adapter).encode(state).data
    if becomes == "missing":
        delattr(adapter, private)
    else:
        setattr(adapter, private, object())

    body = codec(adapter).encode(state)

    assert codec(adapter).round_trip(body) == state
    assert b"\n" not in body.data


def test_a_schema_of_another_make_is_left_alone() -> None:
    """The core schema is public, and what it says may change: an entry not known here means that values go whole."""
    adapter = TypeAdapter(list[Item])
    adapter.core_schema = {**adapter.core_schema, "something": "new"}
    state = [Item(text="x" * 1000) for _ in range(1000)]

    body = codec(adapter).encode(state)

    assert codec(adapter).round_trip(body) == state
    assert b"\n" not in body.data
