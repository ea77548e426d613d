"""A release of pydantic that moves what is not documented costs time, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, RootModel, computed_field, field_serializer, field_validator, model_validator

from s3_checkpoint.codec import StateCodec
from s3_checkpoint.pydantic_internals import PRIVATES, has_only_fields


class Item(BaseModel):
    text: str


class State(BaseModel):
    items: list[Item]


def _validated() -> type[BaseModel]:
    class Validated(State):
        @field_validator("items")
        @classmethod
        def check(cls, items: list[Item]) -> list[Item]:
            return items

    return Validated


def _validated_as_a_whole() -> type[BaseModel]:
    class Validated(State):
        @model_validator(mode="after")
        def check(self) -> Validated:
            return self

    return Validated


def _serialized() -> type[BaseModel]:
    class Serialized(State):
        @field_serializer("items")
        def write(self, items: list[Item]) -> list[str]:
            return [item.text for item in items]

    return Serialized


def _computed() -> type[BaseModel]:
    class Computed(State):
        @computed_field  # type: ignore[prop-decorator]
        @property
        def count(self) -> int:
            return len(self.items)

    return Computed


def _made_by_itself() -> type[BaseModel]:
    class MadeByItself(State):
        def __init__(self, **values: Any) -> None:
            super().__init__(**values)

    return MadeByItself


def _finished_by_itself() -> type[BaseModel]:
    class FinishedByItself(State):
        def model_post_init(self, context: Any, /) -> None:
            self.items.append(Item(text="one more"))

    return FinishedByItself


def _root() -> type[BaseModel]:
    return RootModel[list[Item]]


def _own_schema() -> type[BaseModel]:
    class OwnSchema(State):
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return handler(source)

    return OwnSchema


def test_a_model_of_fields_has_only_fields() -> None:
    """Inherited ones too."""

    class More(State):
        title: str = ""

    assert has_only_fields(State)
    assert has_only_fields(More)


@pytest.mark.parametrize(
    "make",
    [
        _validated,
        _validated_as_a_whole,
        _serialized,
        _computed,
        _made_by_itself,
        _finished_by_itself,
        _root,
        _own_schema,
    ],
)
def test_whatever_else_decides_is_seen(make: Callable[[], type[BaseModel]]) -> None:
    """Validators, serializers, computed fields, constructors and schemas of its own."""
    assert not has_only_fields(make())


@pytest.mark.parametrize("private", PRIVATES)
@pytest.mark.parametrize("becomes", ["missing", "something else"])
def test_without_a_private_of_pydantic_large_states_are_written_whole(
    monkeypatch: pytest.MonkeyPatch, private: str, becomes: str
) -> None:
    """The public way is slower, and all else is the same."""
    for cls in (BaseModel, Item, State):
        if becomes == "missing":
            monkeypatch.delattr(cls, private)
        else:
            monkeypatch.setattr(cls, private, object())
    codec: StateCodec[State] = StateCodec(
        State, schema_version=1, migrations={}, compression=None, max_bytes=10_000_000
    )
    state = State(items=[Item(text="x" * 1000) for _ in range(1000)])

    body = codec.encode(state)

    assert not has_only_fields(State)
    assert codec.round_trip(body) == state
    assert b"\n" not in body.data
