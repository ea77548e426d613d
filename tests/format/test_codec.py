"""What is written reads back the same, or is refused with the path of the place that would not."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PrivateAttr, TypeAdapter, computed_field
from typing_extensions import TypedDict

from s3_checkpoint import (
    ActiveSnapshot,
    InvalidArgumentError,
    MemoryStore,
    S3Checkpointer,
    StateDecodingError,
    StateEncodingError,
)
from s3_checkpoint._format.codec import ActiveCodec, StateCodec
from s3_checkpoint._format.json_codec import Body, compact_digest
from s3_checkpoint._format.metadata import ObjectMetadata
from s3_checkpoint.object_store import ObjectHead, StoredObject

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = UUID(int=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(
        st.characters(exclude_categories=["Cs"])
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4
    ),
    max_leaves=20,
)  # fmt: skip
STATES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), JSON, max_size=5)


def codec(type_: Any, **options: Any) -> StateCodec[Any]:
    given: dict[str, Any] = {
        "schema_version": 1,
        "migrations": {},
        "compression": None,
        "max_bytes": 1_000_000,
    } | options
    return StateCodec(type_, **given)


def stored(body: Body, **more: str) -> StoredObject:
    attributes = body.attributes(ObjectMetadata(write_id="w1", digest=body.digest, schema_version="1", **more))
    return StoredObject(body.data, ObjectHead(attributes, '"e"', len(body.data), NOW))


def round_trip(value: Any, type_: Any, **options: Any) -> Any:
    either = codec(type_, **options)
    return either.decode("b", "k", stored(either.encode(value)))


class Base(BaseModel):
    a: int = 1


class Derived(Base):
    b: int = 2


class Holder(BaseModel):
    inner: Base = Base()
    anything: Any = None
    number: float = 0.0
    raw: bytes = b""
    table: dict[str, Any] = {}


@dataclasses.dataclass
class Point:
    x: int
    y: list[float]


class Note(TypedDict):
    text: str


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)
    one: int = Field(alias="uno")
    two: int = Field(2, validation_alias="dos")
    three: int = Field(3, serialization_alias="tres")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return self.one + self.two + self.three


class WithCache(BaseModel):
    n: int
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


@given(state=STATES, compression=st.sampled_from([None, "gzip", "zstd"]))
@settings(max_examples=80)
def test_any_json_state_reads_back_as_it_was(state: dict[str, JsonValue], compression: str | None) -> None:
    """Whatever the nesting, and however compressed."""
    back = round_trip(state, dict[str, JsonValue], compression=compression)

    assert back == state
    assert repr(back) == repr(state)  # 1, 1.0 and True are equal, but not the same


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (Holder(inner=Base(a=3), raw=b"text", number=1.5), Holder),
        (Point(1, [1.0, 2.5]), Point),
        ({"text": "é\u2028"}, Note),
        ({3: "three"}, dict[int, str]),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime),
        ({1, 2}, set[int]),
        (Aliased.model_validate({"uno": 1}), Aliased),
        ([Decimal("1.10")], list[Decimal]),
        ({"big": 10**300, "zero": -0.0}, dict[str, JsonValue]),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_typed_states_read_back_as_they_were(value: Any, type_: Any) -> None:
    """Models, dataclasses, typed dicts, keys with a type, aliases and computed fields."""
    back = round_trip(value, type_)

    assert back == value
    assert type(back) is type(value)


def test_private_attributes_are_not_state() -> None:
    """Pydantic says so; a filled cache does not make a state unfit."""
    state = WithCache(n=1)
    state._cache["x"] = 1

    assert round_trip(state, WithCache).n == 1


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "type_", "path"),
    [
        (Holder(number=float("nan")), Holder, "$.number"),
        (Holder(number=float("inf")), Holder, "$.number"),
        ({"a": [1, {"b": float("nan")}]}, dict[str, Any], "$.a[1].b"),
        (Holder(raw=b"\xff\xfe"), Holder, "$.raw"),
        (Holder(anything=b"text"), Holder, "$.anything"),
        (Holder(anything=b"\xff"), Holder, "$.anything"),
        (Holder(table={"x": "\ud800"}), Holder, "$.table.x"),
        ({"\ud800": 1}, dict[str, Any], "$['\\ud800']"),
        (Holder(anything={1: "a"}), Holder, "$.anything[1]"),
        ({"a": {None: 1}}, dict[str, Any], "$.a[None]"),
        ({"a": {1: "x", "1": "y"}}, dict[str, Any], "$.a"),
        (Holder(inner=Derived()), Holder, "$.inner"),
        ([Base(), Derived()], list[Base], "$[1]"),
        (Holder(anything=(1, 2)), Holder, "$.anything"),
        (Holder(anything={1, 2}), Holder, "$.anything"),
        (Holder(anything=Decimal("1.5")), Holder, "$.anything"),
        (Holder(anything=Colour.RED), Holder, "$.anything"),
        (Holder(anything=object()), Holder, "$.anything"),
        ({"odd key": {"x": float("nan")}}, dict[str, Any], "$['odd key'].x"),
        (Holder.model_construct(inner="not a Base"), Holder, "$.inner"),
        (Point("1", [1.0]), Point, "$.x"),  # type: ignore[arg-type]
        ({"text": "x", "more": 1}, Note, "$.more"),
        ({"a": 1}, Holder, "$"),
        (Base(), Holder, "$"),
        (None, None | Base, "$"),
        ({"a": 10**5000}, dict[str, Any], "$"),
    ],
)
def test_an_unfaithful_value_is_refused_with_its_path(value: Any, type_: Any, path: str) -> None:
    """Before anything is written."""
    with pytest.raises(StateEncodingError) as caught:
        codec(type_).encode(value)

    assert caught.value.path.startswith(path)
    assert path in str(caught.value)


@given(
    state=STATES,
    bad=st.sampled_from([float("nan"), float("inf"), b"\xff", b"x", "\udc00", (1,), {1: 2}, {1, 2}, 1j, object()]),
    data=st.data(),
)
def test_an_unfaithful_value_is_found_wherever_it_hides(state: dict[str, Any], bad: Any, data: st.DataObject) -> None:
    """The path leads to it through lists and dictionaries of any shape."""
    path, place = "$", state
    while True:
        name = data.draw(st.text("abc", min_size=1, max_size=3))
        nest = data.draw(st.sampled_from(["stop", "dict", "list"]))
        if nest == "stop":
            place[name] = bad
            path += f".{name}"
            break
        inner: dict[str, Any] = {}
        place[name] = inner if nest == "dict" else [0, inner]
        path += f".{name}" if nest == "dict" else f".{name}[1]"
        place = inner

    with pytest.raises(StateEncodingError) as caught:
        codec(dict[str, Any]).encode(state)

    assert caught.value.path.startswith(path)


def test_a_state_that_contains_itself_is_refused() -> None:
    """With the place where it begins again."""
    loop: dict[str, Any] = {"a": []}
    loop["a"].append(loop)

    with pytest.raises(StateEncodingError) as caught:
        codec(dict[str, Any]).encode(loop)

    assert caught.value.path == "$.a[0]"


@pytest.mark.parametrize("depth", [150, 200, 255, 300, 2000])
def test_a_state_nested_too_deeply_to_be_read_is_not_written(depth: int) -> None:
    """Either it comes back or it is refused; never written and then unreadable."""
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]

    try:
        back = round_trip({"a": nested}, dict[str, JsonValue])
    except StateEncodingError:
        return
    assert back == {"a": nested}


def test_a_state_over_the_bound_is_refused() -> None:
    """The JSON counts, not what compression makes of it."""
    with pytest.raises(StateEncodingError, match="max_state_bytes"):
        codec(str, max_bytes=100, compression="gzip").encode("x" * 101)


def test_errors_do_not_show_the_state() -> None:
    """States hold secrets; an error names types and places."""
    with pytest.raises(StateEncodingError) as caught:
        codec(Holder).encode(Holder(anything=(b"hunter2",)))

    assert "hunter2" not in str(caught.value)


def test_active_tasks_keep_their_order_and_payloads() -> None:
    """A JSON array, in order."""
    active = ActiveCodec(compression=None, max_bytes=1000)
    tasks = [ActiveSnapshot(node_name="b", payload={"x": [1, None]}), ActiveSnapshot(node_name="a")]
    body = active.encode(tasks)

    assert active.decode("b", "k", stored(body)) == tasks
    assert body.data.startswith(b'[{"node_name":"b"')


def test_an_unfaithful_payload_is_refused_with_its_path() -> None:
    """The path begins with `$active`."""
    tasks = [ActiveSnapshot(node_name="a"), ActiveSnapshot(node_name="b", payload={"x": float("nan")})]

    with pytest.raises(StateEncodingError) as caught:
        ActiveCodec(compression=None, max_bytes=1000).encode(tasks)

    assert caught.value.path == "$active[1].payload.x"


def test_active_tasks_must_be_a_sequence() -> None:
    """A single snapshot is a mistake that is easily made."""
    with pytest.raises(InvalidArgumentError, match="list or tuple"):
        ActiveCodec(compression=None, max_bytes=1000).encode(ActiveSnapshot(node_name="a"))  # type: ignore[arg-type]


def test_older_versions_go_through_every_migration_in_order() -> None:
    """From 1 to 3: first 1→2, then 2→3."""
    old = codec(dict[str, JsonValue]).encode({"name": "a"})
    new = codec(
        dict[str, JsonValue],
        schema_version=3,
        migrations={1: lambda s: {**s, "steps": ["1→2"]}, 2: lambda s: {**s, "steps": [*s["steps"], "2→3"]}},
    )

    assert new.decode("b", "k", stored(old)) == {"name": "a", "steps": ["1→2", "2→3"]}


@pytest.mark.parametrize(
    ("migrations", "reason"),
    [
        ({2: dict}, "no migration is given from schema version 1 to 2"),
        ({1: dict}, "no migration is given from schema version 2 to 3"),
        ({1: lambda _: 1 / 0, 2: dict}, "the migration from schema version 1 fails with ZeroDivisionError"),
        ({1: lambda _: object(), 2: lambda s: s}, "gave what is not JSON"),
        ({1: dict, 2: lambda _: {"n": "x"}}, r"does not fit the type at \$\.n"),
    ],
)
def test_a_state_that_cannot_be_migrated_is_an_error(migrations: Any, reason: str) -> None:
    """Never an empty answer, never a guess."""
    old = codec(dict[str, int]).encode({"n": 1})

    with pytest.raises(StateDecodingError, match=reason):
        codec(dict[str, int], schema_version=3, migrations=migrations).decode("b", "k", stored(old))


def test_a_newer_schema_version_is_refused() -> None:
    """The older code does not guess what the newer one meant."""
    new = codec(dict[str, int], schema_version=2)
    body = new.encode({"n": 1})
    attributes = body.attributes(ObjectMetadata(write_id="w", digest=body.digest, schema_version="2"))
    newer = StoredObject(body.data, ObjectHead(attributes, "", len(body.data), NOW))

    with pytest.raises(StateDecodingError, match="newer than ours"):
        codec(dict[str, int]).decode("b", "k", newer)


@pytest.mark.parametrize(("version", "migrations"), [(0, {}), (True, {}), ("1", {}), (2, {2: dict}), (3, {0: dict})])
def test_schema_options_out_of_bounds_are_refused_at_once(version: Any, migrations: Any) -> None:
    """When the checkpointer is made, not when the first old state is read."""
    with pytest.raises(InvalidArgumentError):
        codec(Base, schema_version=version, migrations=migrations)


class Counted(BaseModel):
    """A small part of a large state; one of its attributes is kept once it has been asked for."""

    text: str

    @cached_property
    def words(self) -> int:
        return len(self.text.split())


class Notes(BaseModel):
    notes: list[Counted]


def notes() -> Notes:
    return Notes(notes=[Counted(text=f"{n} " + "t" * 100) for n in range(8_000)])


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize(
    ("type_", "value"),
    [(dict, {"a": [1, "\n"]}), (dict, {"a": ["x" * 100] * 9_000, "b": 1}), (Notes, notes()), (Base, Base())],
)
def test_the_digest_is_that_of_the_compact_json(type_: Any, value: Any, compression: str | None) -> None:
    """Whatever the size, the layout on lines and the compression."""
    body = codec(type_, compression=compression).encode(value)

    compact = TypeAdapter(type_).dump_json(value, by_alias=False, round_trip=True)
    assert body.digest == hashlib.sha256(compact).hexdigest()
    assert codec(type_).decode("b", "k", stored(body)) == value


async def test_a_large_state_that_a_worker_has_looked_at_is_still_the_same() -> None:
    """A cached property of every item changes what the item holds, and nothing of what is stored."""
    checkpointer = S3Checkpointer(Notes, MemoryStore())
    await checkpointer.commit(RUN, 0, notes(), [])
    looked_at = notes()
    assert sum(note.words for note in looked_at.notes) == 2 * len(looked_at.notes)

    await checkpointer.commit(RUN, 0, looked_at, [])


@given(STATES, st.lists(st.integers(0, 2000), max_size=6))
def test_line_breaks_are_no_part_of_the_digest_and_change_no_value(value: dict[str, Any], places: list[int]) -> None:
    """A body with line breaks put in anywhere is the same value, or refused as no JSON."""
    body = codec(dict).encode(value)
    data = bytearray(body.data)
    for place in places:
        data.insert(place % (len(data) + 1), 10)

    assert compact_digest(data) == body.digest
    with suppress(StateDecodingError):
        assert codec(dict).decode("b", "k", stored(body._replace(data=bytes(data)))) == value
