"""A type that pydantic reads lazily is refused when the checkpointer is made: one save would use up the state."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, RootModel, TypeAdapter, computed_field
from typing_extensions import TypeAliasType, TypedDict

from s3_checkpoint import InvalidArgumentError, MemoryStore, S3Checkpointer, S3Settings, connect
from tests.states import RUN

T = TypeVar("T")


class ToolCalls(TypedDict):
    """As the OpenAI SDK types its messages."""

    role: str
    tool_calls: NotRequired[Iterable[dict[str, Any]]]


class Conversation(BaseModel):
    messages: list[ToolCalls]


class Deep(BaseModel):
    threads: dict[str, tuple[int, list[Conversation] | None]]


class Box(BaseModel, Generic[T]):
    content: T


@dataclasses.dataclass
class Stream:
    lines: Generator[str, None, None]


class Tree(BaseModel):
    children: list[Tree] = []
    leaves: Iterable[int] | None = None


class Lazy(BaseModel):
    kind: Literal["lazy"] = "lazy"
    items: Iterable[int]


class Eager(BaseModel):
    kind: Literal["eager"] = "eager"
    items: Sequence[int] = ()


class Tagged(BaseModel):
    one: Annotated[Lazy | Eager, Field(discriminator="kind")]


class Deferred(BaseModel):
    model_config = ConfigDict(defer_build=True)
    items: Iterable[int]


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    items: dict[str, Iterator[int]]


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Iterable[int]]


class Checked(BaseModel):
    items: Annotated[Iterable[int], AfterValidator(lambda items: items)]


class Pair(NamedTuple):
    left: int
    right: Iterable[int]


Nested = TypeAliasType("Nested", "list[Nested] | dict[str, Iterable[int]]")


@pytest.mark.parametrize(
    ("type_", "path"),
    [
        (ToolCalls, "$.tool_calls"),
        (Conversation, "$.messages[*].tool_calls"),
        (Deep, "$.threads.*[1][*].messages[*].tool_calls"),
        (Box[Iterable[int]], "$.content"),
        (Stream, "$.lines"),
        (Tree, "$.leaves"),
        (Tagged, "$.one.items"),
        (Deferred, "$.items"),
        (Arbitrary, "$.items.*"),
        (Extra, "$.*"),
        (Checked, "$.items"),
        (Pair, "$.right"),
        (Nested, "$.*"),
        (RootModel[Iterable[int]], "$"),
        (Iterable[int], "$"),
        (dict[str, Iterable[int] | str], "$.*"),
        (TypeAdapter(ToolCalls), "$.tool_calls"),
    ],
)
def test_a_lazy_type_is_refused_with_its_path_when_the_checkpointer_is_made(type_: Any, path: str) -> None:
    """Whatever it is nested in; and the error says what to annotate instead."""
    with pytest.raises(InvalidArgumentError) as caught:
        S3Checkpointer(type_, MemoryStore())

    assert caught.value.argument == "state_type"
    assert f"an iterator at {path}," in str(caught.value)
    assert "list[…]" in str(caught.value)


async def test_a_connection_refuses_it_when_it_is_opened() -> None:
    """Before any request."""
    with pytest.raises(InvalidArgumentError, match=r"\$\.messages\[\*\]\.tool_calls"):
        async with connect(Conversation, S3Settings(bucket="never-asked")):
            pass


def test_a_type_that_pydantic_cannot_read_is_refused_with_its_reason() -> None:
    """An `Iterator` is one; and the error says what to annotate instead."""
    with pytest.raises(InvalidArgumentError, match=r"list\[…\].*Iterator") as caught:
        S3Checkpointer(dict[str, Iterator[int]], MemoryStore())

    assert caught.value.argument == "state_type"


class Words(BaseModel):
    """Its defaults and choices are data, though they look like schemas."""

    default: dict[str, str] = {"type": "generator"}
    choice: Literal["generator", "definitions"] = "generator"
    names: Sequence[str] = ()
    table: Mapping[str, collections.deque[int]] = {}
    inner: list[Words] = []

    @computed_field  # type: ignore[prop-decorator]
    @property
    def lengths(self) -> Iterable[int]:
        return [len(name) for name in self.names]


@pytest.mark.parametrize("type_", [Words, dict[str, Any], JsonValue, Any, set[int], Eager])
def test_other_types_are_taken(type_: Any) -> None:
    """What is read at once can be read again; computed fields are never read."""
    assert S3Checkpointer(type_, MemoryStore()).prefix == ""


async def test_the_second_commit_stores_what_the_first_did() -> None:
    """With `list[…]` annotated, a commit leaves the caller's state as it is: the same is committed twice."""

    class Message(TypedDict):
        role: str
        tool_calls: list[dict[str, Any]]

    checkpointer = S3Checkpointer(Message, MemoryStore())
    state: Message = {"role": "assistant", "tool_calls": [{"id": "1"}]}

    for step in (0, 1, 1):
        await checkpointer.commit(RUN, step, state, [])

    assert await checkpointer.load(RUN, 0) == await checkpointer.load(RUN, 1) == state
