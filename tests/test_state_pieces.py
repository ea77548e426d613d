"""Large models in pieces: the same JSON and the same instance as in one, and only where nobody could tell otherwise."""

from __future__ import annotations

import json
from typing import Annotated, Any
from uuid import UUID

import pytest
from annotated_types import MinLen
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    RootModel,
    TypeAdapter,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import core_schema

from s3_checkpoint import MemoryStore, S3Checkpointer, StateDecodingError, StateEncodingError
from s3_checkpoint.keys import RunKeys
from s3_checkpoint.off_loop import CHUNK_BYTES
from s3_checkpoint.state_pieces import pieces_for

RUN = UUID(int=5)
ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


class Message(BaseModel):
    role: str
    text: str | int | None
    kind: str = Field(default="k", alias="Kind")
    parts: tuple[float, ...] = ()
    extra: dict[str, JsonValue] = {}

    @computed_field
    def length(self) -> int:
        return len(str(self.text))

    model_config = ConfigDict(populate_by_name=True)


class Chat(BaseModel):
    model_config = ConfigDict(frozen=True)

    title: str
    messages: list[Message]
    marks: set[str] = set()
    notes: list[str] = []
    hidden: str = Field(default="h", exclude=True)


def chat(count: int = 7_000, **more: Any) -> Chat:
    messages = [Message(role="user", text=f"{n} " + "t" * 50, parts=(n / 3,), extra={"n": [n]}) for n in range(count)]
    return Chat(title='a "title"\n[', messages=messages, **more)


def adapter(type_: Any) -> TypeAdapter[Any]:
    return ADAPTERS.setdefault(type_, TypeAdapter(type_))


def pieces(type_: Any = Chat) -> Any:
    found = pieces_for(adapter(type_), type_)
    assert found is not None
    return found


CHAT = chat()
WRITTEN: bytes = pieces().dump(CHAT)


@pytest.mark.parametrize(
    "state", [CHAT, chat(marks={"a", "b"}), chat(notes=["n" * 200] * 4000), chat(notes=["]", "],"])]
)
def test_a_large_model_is_the_same_json_and_the_same_instance(state: Chat) -> None:
    """As in one; set fields included, and with no line much longer than a piece."""
    data = pieces().dump(state)

    assert data.count(b"\n") > 3
    assert max(map(len, data.split(b"\n"))) < 2 * CHUNK_BYTES
    assert json.loads(data) == json.loads(adapter(Chat).dump_json(state, by_alias=False, round_trip=True))
    whole = adapter(Chat).validate_json(data, by_alias=True, by_name=True)
    found = pieces().validate(data)
    assert found == whole == state
    assert found.model_fields_set == whole.model_fields_set
    assert [type(part) for part in found.messages[:1]] == [Message]


@settings(max_examples=120, deadline=None)
@given(
    start=st.integers(0, 60) | st.integers(0, len(WRITTEN)) | st.integers(len(WRITTEN) - 60, len(WRITTEN)),
    length=st.integers(0, 40),
    text=st.lists(
        st.sampled_from(
            [b"\n", b",", b"[", b"]", b"{", b"}", b'"', b"1", b'"messages":[', b'"notes":[', b'"title":"x"']
        )
    ),
)
def test_of_a_damaged_model_nothing_is_made_that_is_not_there(start: int, length: int, text: list[bytes]) -> None:
    """Whatever is read is what the model makes of the whole."""
    data = WRITTEN[:start] + b"".join(text) + WRITTEN[start + length :]

    found = pieces().validate(data)

    if found is not None:
        assert found == adapter(Chat).validate_json(data, by_alias=True, by_name=True)


LINES = ["{", '"title":"t",', '"messages":[', '{"role":"r","text":1}', "]", "}"]


@pytest.mark.parametrize(
    "lines",
    [
        [*LINES[:5]],
        LINES[1:],
        [LINES[0], *LINES[2:]],
        [*LINES[:4], "],", "}"],
        [*LINES[:3], "{},", "]", "}"],
        [*LINES[:3], LINES[3] + ",", "]", "}"],
        [*LINES[:3], LINES[3], LINES[3], "]", "}"],
        [*LINES[:3], "]", "}"],
        [*LINES[:3], "", "]", "}"],
        [*LINES[:4], "],", *LINES[2:]],
        [*LINES[:4], "],", '"messages":[{"role":"s","text":2}]', "}"],
        ["{", '"notes":[],"title":{', *LINES[1:5], "}", "}"],
        ["{", '"title":"t","messages":[]', "}"],
        ["[", *LINES[1:5], "]"],
    ],
)
def test_a_model_laid_out_otherwise_is_left_to_be_read_whole(lines: list[str]) -> None:
    """Whether it fits or not."""
    assert pieces().validate("\n".join(LINES).encode()) == Chat(title="t", messages=[Message(role="r", text=1)])
    assert pieces().validate("\n".join(lines).encode()) is None


def _models() -> dict[str, Any]:
    def nothing(value: Any) -> Any:
        return value

    class Validated(BaseModel):
        items: list[str]
        _v = field_validator("items")(nothing)

    class WholeValidated(BaseModel):
        items: list[str]

        @model_validator(mode="after")
        def _v(self) -> WholeValidated:
            return self

    class Inherited(Validated):
        pass

    class Serialized(BaseModel):
        items: list[str]
        _s = field_serializer("items")(nothing)

    class WholeSerialized(BaseModel):
        items: list[str]

        @model_serializer
        def _s(self) -> dict[str, Any]:
            return {"items": self.items}

    class Computed(BaseModel):
        items: list[str]

        @computed_field
        def count(self) -> int:
            return len(self.items)

    class Configured(BaseModel):
        model_config = ConfigDict(str_strip_whitespace=True)
        items: list[str]

    class Extra(BaseModel):
        model_config = ConfigDict(extra="allow")
        items: list[str]

    class Bounded(BaseModel):
        items: list[str] = Field(max_length=3)

    class Annotations(BaseModel):
        items: Annotated[list[str], MinLen(1)]
        others: Annotated[list[str], AfterValidator(nothing)]

    class Alias(BaseModel):
        items: list[str] = Field(validation_alias="other")

    class Optional(BaseModel):
        items: list[str] | None

    class Other(BaseModel):
        items: tuple[str, ...]

    class Excluded(BaseModel):
        items: list[str] = Field(exclude=True)

    class Initialised(BaseModel):
        items: list[str]

        def __init__(self, **data: Any) -> None:
            super().__init__(**data)

    class PostInit(BaseModel):
        items: list[str]

        def model_post_init(self, context: Any, /) -> None:
            self.items.sort()

    class OwnSchema(BaseModel):
        items: list[str]

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return core_schema.no_info_after_validator_function(nothing, handler(source))

    class Private(BaseModel):
        items: list[str]
        _seen: int = PrivateAttr(0)

    class Root(RootModel[list[str]]):
        pass

    return {name: found for name, found in locals().items() if isinstance(found, type)}


@pytest.mark.parametrize("name", _models())
def test_where_somebody_else_has_a_say_there_are_no_pieces(name: str) -> None:
    """Validators, serializers, settings, bounds, aliases, methods of the application's own."""
    type_ = _models()[name]

    assert pieces_for(TypeAdapter(type_), type_) is None


@pytest.mark.parametrize("type_", [Message, int, list[Message], dict[str, Message], Any, None])
def test_other_types_have_no_pieces(type_: Any) -> None:
    """No model, or one without a list."""
    assert pieces_for(TypeAdapter(type_), type_) is None


async def test_a_large_model_is_stored_in_pieces_and_comes_back() -> None:
    """As plain JSON, too; committed twice, it is the same content."""
    store = MemoryStore()
    checkpointer = S3Checkpointer(Chat, store)

    await checkpointer.commit(RUN, 0, CHAT, [])
    await checkpointer.commit(RUN, 0, chat(), [])

    stored = await store.get(RunKeys("", RUN).state(0), max_bytes=2**30)
    assert stored is not None
    assert stored.body == WRITTEN
    assert await checkpointer.load(RUN) == CHAT
    assert await S3Checkpointer(dict, store).load(RUN) == json.loads(WRITTEN)


async def test_what_a_large_model_would_lose_is_refused_with_its_place() -> None:
    """A part of a class with more fields, and NaN."""

    class More(Message):
        more: int = 1

    checkpointer = S3Checkpointer(Chat, store := MemoryStore())
    for part in (More(role="r", text=None), Message(role="r", text=None, parts=(float("nan"),))):
        with pytest.raises(StateEncodingError, match=r"\$\.messages\[7000\]"):
            await checkpointer.save(RUN, 0, CHAT.model_copy(update={"messages": [*CHAT.messages, part]}))

    assert not (await store.list("")).objects


async def test_a_large_model_that_does_not_fit_is_an_error_with_its_place() -> None:
    """That of the whole, not of a piece."""
    store = MemoryStore()
    state = json.loads(WRITTEN)
    state["messages"][6_000]["text"] = []
    await S3Checkpointer(dict, store).save(RUN, 0, state)

    with pytest.raises(StateDecodingError, match=r"\$\.messages\[6000\]\.text"):
        await S3Checkpointer(Chat, store).load(RUN)
