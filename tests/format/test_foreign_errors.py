"""Who is at fault is told rightly, and no value of a state is: not in messages, causes, contexts or tracebacks."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    TypeAdapter,
    field_validator,
)
from pydantic_core import PydanticCustomError, to_json

from s3_checkpoint import CheckpointError, StateDecodingError, StateEncodingError, StoreError
from s3_checkpoint._format import json_codec as codec_module
from s3_checkpoint._format.codec import StateCodec
from s3_checkpoint._format.json_codec import Body, compact_digest
from s3_checkpoint._format.metadata import ObjectMetadata
from s3_checkpoint.object_store import ObjectHead, StoredObject
from tests.format.test_codec import NOW

SECRET = "hunter2-S3cret"


def codec(type_: Any, **more: Any) -> StateCodec[Any]:
    options: dict[str, Any] = {"schema_version": 1, "migrations": {}, "compression": None, "max_bytes": 10_000_000}
    return StateCodec(type_, **(options | more))


def stored(data: bytes, version: str = "1") -> StoredObject:
    body = Body(data, compact_digest(data), None)
    attributes = body.attributes(ObjectMetadata(write_id="w1", digest=body.digest, schema_version=version))
    return StoredObject(data, ObjectHead(attributes, '"e"', len(data), NOW))


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause and context, and theirs."""
    waiting: list[BaseException | None] = [error]
    while waiting:
        if (one := waiting.pop()) is not None:
            yield one
            waiting += [one.__cause__, one.__context__]


def told(error: BaseException) -> str:
    """All that a log would have of it."""
    texts = [f"{one} {one!r} {one.args!r}" for one in chain(error)]
    texts += [str(one.errors()) for one in chain(error) if hasattr(one, "errors")]
    return "\n".join([*texts, *traceback.format_exception(error)])


def fails(value: Any) -> Any:
    raise RuntimeError(f"cannot take {value!r}")


def refuses(value: Any) -> Any:
    raise ValueError(f"cannot take {value!r}")


def asserts(value: Any) -> Any:
    raise AssertionError(f"cannot take {value!r}")


def refuses_in_its_own_way(value: Any) -> Any:
    raise PydanticCustomError("my_kind", "cannot take {value}", {"value": str(value)})


class Dog(BaseModel):
    kind: Literal["dog"]


class Cat(BaseModel):
    kind: Literal["cat"]


class Inner(BaseModel):
    value: Any


READ: list[Any] = [
    int,
    float,
    bool,
    UUID,
    AnyUrl,
    Literal["a", "b"],
    dict[str, int],
    list[int],
    Dog,
    Annotated[Dog | Cat, Field(discriminator="kind")],
    Annotated[str, Field(max_length=1)],
    Annotated[str, Field(pattern="^a$")],
    Annotated[str, AfterValidator(fails)],
    Annotated[str, AfterValidator(refuses)],
    Annotated[str, AfterValidator(asserts)],
    Annotated[str, AfterValidator(refuses_in_its_own_way)],
    Annotated[Any, BeforeValidator(refuses)],
    int | UUID | Dog,
]


@pytest.mark.parametrize("type_", READ, ids=lambda type_: re.sub(" at 0x[0-9a-f]+", "", str(type_)))
@pytest.mark.parametrize("value", [f'"{SECRET}"', f'{{"kind": "{SECRET}"}}'])
def test_a_body_that_does_not_fit_shows_no_value(type_: Any, value: str) -> None:
    """The error has the path and the kind of the fault; its causes do not have the value either."""
    data = f'{{"deep": [0, {{"state": {value}}}]}}'.encode()
    either = codec(dict[str, list[int | dict[str, type_]]] if type_ is not int else dict[str, list[dict[str, int]]])

    with pytest.raises(StateDecodingError) as caught:
        either.decode("b", "k", stored(data))

    assert SECRET not in told(caught.value)
    assert "S3cret" not in told(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("serializer", [fails, refuses, asserts])
def test_a_serializer_that_fails_shows_no_value_and_has_its_path(serializer: Callable[[Any], Any]) -> None:
    """The path is that of the value, not of others that JSON does not know either, but its serializers do."""

    class Known:
        pass

    known = Annotated[Any, PlainSerializer(lambda _: "known")]
    failing = Annotated[str, PlainSerializer(serializer)]

    class State(BaseModel):
        first: known = None
        items: list[dict[str, failing]] = []

    state = State(first=Known(), items=[{}, {"a": SECRET}])

    with pytest.raises(StateEncodingError, match="its serializer fails") as caught:
        codec(State).encode(state)

    assert caught.value.path == "$.items[1].a"
    assert SECRET not in told(caught.value)


@pytest.mark.parametrize("validator", [fails, refuses, asserts, refuses_in_its_own_way])
def test_a_validator_that_fails_on_reading_back_shows_no_value_and_has_its_path(
    validator: Callable[[Any], Any],
) -> None:
    """Whatever it raises; pydantic passes on what is neither `ValueError` nor `AssertionError`."""

    class State(BaseModel):
        items: list[dict[str, Annotated[str, AfterValidator(validator)]]] = []

    state = State.model_construct(items=[{}, {"a": SECRET}])

    with pytest.raises(StateEncodingError) as caught:
        codec(State).encode(state)

    assert caught.value.path == "$.items[1].a"
    assert SECRET not in told(caught.value)


def test_a_fault_of_the_applications_code_says_where_it_is() -> None:
    """The type of the error, the function and its line: what is needed to find it, without its text."""

    class State(BaseModel):
        a: Annotated[str, AfterValidator(fails)]

    with pytest.raises(StateEncodingError, match=r"RuntimeError in fails \(test_foreign_errors\.py:\d+\)"):
        codec(State).encode(State.model_construct(a=SECRET))


def test_a_migration_that_fails_shows_no_value() -> None:
    """Its errors quote what they found."""
    either = codec(dict[str, Any], schema_version=2, migrations={1: lambda state: fails(state["password"])})

    with pytest.raises(StateDecodingError, match="fails with RuntimeError in fails") as caught:
        either.decode("b", "k", stored(f'{{"password": "{SECRET}"}}'.encode()))

    assert SECRET not in told(caught.value)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=20), which=st.integers(0, 200))
@settings(max_examples=100, deadline=None)
def test_no_text_of_a_field_reaches_what_an_error_tells(text: str, which: int) -> None:
    """Whatever the text and the type that refuses it."""
    text = f"{text}{SECRET}"
    refusing: Any = dict[str, READ[which % len(READ)]]  # type: ignore[misc]
    data = to_json({"value": {"kind": text} if which > 100 else text})

    with pytest.raises(StateDecodingError) as caught:
        codec(refusing).decode("b", "k", stored(data))

    assert "S3cret" not in told(caught.value)


def test_a_fault_of_ours_says_internal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not blamed on the state; nothing was written, and the error shows no value."""

    # As if the line that raises were in this library.
    code = compile("def first_difference(*_, **__):\n    raise AttributeError('hunter2-S3cret')", _of_ours(), "exec")
    space: dict[str, Any] = {}
    exec(code, space)
    monkeypatch.setattr(codec_module, "first_difference", space["first_difference"])

    with pytest.raises(StoreError, match="internal: a fault of this library, AttributeError") as caught:
        codec(dict[str, Any]).encode({"a": 1})

    assert not caught.value.outcome_unknown
    assert not isinstance(caught.value, StateEncodingError)
    assert SECRET not in told(caught.value)


def _of_ours() -> str:
    return str(codec_module.__file__).replace("json_codec.py", "round_trip.py")


@pytest.mark.parametrize("place", ["dump_json", "validate_json"])
def test_memory_that_runs_out_is_not_blamed_on_the_state(place: str) -> None:
    """It passes as it is."""

    def full(*_: Any, **__: Any) -> Any:
        raise MemoryError

    adapter = TypeAdapter(dict[str, Any])
    setattr(adapter, place, full)

    with pytest.raises(MemoryError):
        codec(adapter).encode({"a": 1})


class Grumpy:
    """Its `==` fails; so does its hash."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        raise RuntimeError(SECRET)

    def __hash__(self) -> int:
        raise RuntimeError(SECRET)


def test_a_comparison_of_the_applications_that_fails_is_not_ours() -> None:
    """An `==` that fails has not said "equal"; the attributes decide."""
    grumpy = Annotated[
        Any, BeforeValidator(lambda v: v if isinstance(v, Grumpy) else Grumpy(v)), PlainSerializer(lambda v: v.n)
    ]
    wrong = Annotated[
        Any, BeforeValidator(lambda v: v if isinstance(v, Grumpy) else Grumpy(v + 1)), PlainSerializer(lambda v: v.n)
    ]

    assert codec(list[grumpy]).encode([Grumpy(1)]).data == b"[1]"
    with pytest.raises(CheckpointError) as caught:
        codec(list[wrong]).encode([Grumpy(1)])

    assert isinstance(caught.value, StateEncodingError)
    assert SECRET not in told(caught.value)


def test_the_place_of_a_union_is_a_place_in_the_data() -> None:
    """Pydantic names the branch that it tried; a path does not."""
    either = codec(dict[str, list[Dog | Cat]])

    with pytest.raises(StateDecodingError, match=r"at \$\.pets\[1\]\.kind \(Input should be 'dog'\)"):
        either.decode("b", "k", stored(b'{"pets": [{"kind": "cat"}, {"kind": "cow"}]}'))


def test_a_path_has_the_names_that_the_data_has() -> None:
    """Also where a field has an alias, and where a name is missing."""

    class State(BaseModel):
        user: int = Field(alias="userName")

    with pytest.raises(StateDecodingError, match=r"at \$\.user"):
        codec(State).decode("b", "k", stored(b'{"user": "x"}'))
    with pytest.raises(StateDecodingError, match=r"at \$\.userName"):
        codec(State).decode("b", "k", stored(b'{"userName": "x"}'))
    with pytest.raises(StateDecodingError, match=r"at \$\.user"):
        codec(State).decode("b", "k", stored(b"{}"))


def test_validators_of_fields_are_named_by_their_error_only() -> None:
    """A field validator's `ValueError` is told as such."""

    class State(BaseModel):
        a: str

        @field_validator("a")
        @classmethod
        def check(cls, value: str) -> str:
            raise ValueError(f"no {value}")

    with pytest.raises(StateDecodingError, match=r"at \$\.a \(its validator raises ValueError\)"):
        codec(State).decode("b", "k", stored(b'{"a": "x"}'))
