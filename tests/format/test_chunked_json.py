"""Large values in chunks: the compact JSON with line breaks put in, read as the whole is, and nothing else passes."""

from __future__ import annotations

import json
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import cache
from random import Random
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pydantic
import pytest
from annotated_types import MinLen
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version
from pydantic import (
    AfterValidator,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PrivateAttr,
    RootModel,
    TypeAdapter,
    ValidationInfo,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import core_schema, from_json, to_json
from typing_extensions import TypedDict

from s3_checkpoint import MemoryStore, S3Checkpointer, StateDecodingError, StateEncodingError
from s3_checkpoint._format.chunked_json import LONGEST, ChunkedType
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._format.round_trip import first_difference
from s3_checkpoint._format.size_estimate import CHUNK_BYTES

RUN = UUID(int=4)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ODD = st.sampled_from(["[", "{\n", "\n]", ",", '"', "\\", "}\n,", "}", "]"])
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    SCALARS | TEXT | ODD,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(TEXT | ODD, inner, max_size=6),
    max_leaves=40,
)
OBJECTS = st.dictionaries(TEXT | ODD, JSON, min_size=1, max_size=6)
DAMAGE = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 12),
        st.sampled_from(
            [
                *(
                    b"\n",
                    b",",
                    b"[",
                    b"]",
                    b"{",
                    b"}",
                    b":",
                    b'"',
                    b" ",
                    b"1",
                    b'"a":',
                    b"",
                    b"null",
                    b"[]",
                    b"],[",
                    b"]]",
                ),
                *(
                    b'"name":"x"',
                    b'"leaves":[]',
                    b'"leaves":[\n{}\n]',
                    b'"inner":null',
                    b'"by_name":{}',
                    b"},{",
                    b"\n],\n",
                ),
            ]
        ),
    ),
    min_size=1,
    max_size=4,
)
T = TypeVar("T")


class Leaf(BaseModel):
    """Has a validator, an alias and a computed field of its own: the parts of a list are anything."""

    model_config = ConfigDict(extra="allow")

    n: int | str = 0
    kind: str = Field(default="k", alias="Kind")

    @field_validator("kind")
    @classmethod
    def _short(cls, kind: str) -> str:
        return kind[:5]

    @computed_field
    def double(self) -> str:
        return str(self.n) * 2


class Point(TypedDict, total=False):
    x: float
    tags: list[str]


@dataclass
class Pair:
    left: list[int]
    right: tuple[str, ...] = ()
    points: list[Point] = field(default_factory=list)


class Named(BaseModel, Generic[T]):
    model_config = ConfigDict(strict=True, frozen=True, title="named", use_attribute_docstrings=True)

    name: Annotated[str, Field(description="what it is called")]
    of: list[T]
    """What it is about."""


class Tree(BaseModel):
    """One of everything that is taken apart."""

    model_config = ConfigDict(extra="forbid", str_max_length=10_000, populate_by_name=True)

    name: str
    leaves: list[Leaf] = []
    by_name: dict[str, Leaf] = {}
    by_number: dict[int, list[int]] = {}
    inner: Tree | None = None
    children: list[Tree] = Field(default_factory=list, description="smaller ones")
    pairs: list[Pair] | None = None
    pair: Pair = Pair([])
    marks: set[int] = set()
    named: Named[int] | None = None
    either: list[Leaf | Pair | int] = []
    rest: dict[str, Any] = {}
    json_: JsonValue = Field(default=None, alias="json")
    kept: dict[str, JsonValue] = {}
    hidden: list[int] = Field(default=[], exclude=True)
    _seen: int = PrivateAttr(0)


class Making:
    """Makes values at random. Strategies of hypothesis for types as wide as these take seconds for each."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def text(self) -> str:
        odd = ["", "[", "{\n", "\n]", ",", '"', "\\", "}\n,", "}", "]", "name", "leaves", "é\u2028", "x" * 30]
        return self.random.choice(odd) + self.random.choice(odd)

    def number(self) -> int:
        return self.random.choice([0, 1, -5, 10**20, self.random.randrange(10**6)])

    def some(self, make: Callable[[], T], most: int = 9) -> list[T]:
        return [make() for _ in range(self.random.choice([0, 1, 2, most]))]

    def json(self, depth: int = 3) -> Any:
        kind = self.random.randrange(8 if depth else 5)
        if kind > 5:
            return {self.text(): self.json(depth - 1) for _ in range(self.random.randrange(7))}
        if kind == 5:
            return [self.json(depth - 1) for _ in range(self.random.randrange(7))]
        return [None, True, self.number(), self.random.random(), self.text()][kind]

    def leaf(self) -> Leaf:
        extra = {"e": self.json(1)} if self.random.random() < 0.2 else {}
        return Leaf.model_validate(
            {"n": self.random.choice([self.number(), self.text()]), "Kind": self.text(), **extra}
        )

    def point(self) -> Point:
        made: Point = {"x": self.random.random()} if self.random.random() < 0.5 else {}
        if self.random.random() < 0.7:
            made["tags"] = self.some(self.text)
        return made

    def pair(self) -> Pair:
        return Pair(self.some(self.number, 20), tuple(self.some(self.text)), self.some(self.point, 4))

    def tree(self, depth: int = 2) -> Tree:
        fields: dict[str, Callable[[], Any]] = {
            "leaves": lambda: self.some(self.leaf),
            "by_name": lambda: {self.text(): self.leaf() for _ in range(self.random.randrange(9))},
            "by_number": lambda: {self.number(): self.some(self.number, 20) for _ in range(4)},
            "pairs": lambda: self.some(self.pair, 4),
            "pair": self.pair,
            "marks": lambda: set(self.some(self.number, 20)),
            "named": lambda: Named[int](name="n", of=self.some(self.number)),
            "either": lambda: self.some(self.random.choice([self.leaf, self.pair, self.number])),
            "rest": lambda: {self.text(): self.json() for _ in range(self.random.randrange(6))},
            "json_": self.json,
            "kept": lambda: {self.text(): self.json() for _ in range(self.random.randrange(4))},
            "inner": lambda: self.tree(depth - 1) if depth else None,
            "children": lambda: self.some(lambda: self.tree(depth - 1), 3) if depth else [],
        }
        names = [name for name in fields if self.random.random() < 0.4]
        return Tree(name=self.text(), **{name: fields[name]() for name in names})


SEEDS = st.integers(0, 2**40).map(lambda seed: Making(Random(seed)))
PLAIN: list[Any] = [dict, dict[str, Any], dict[str, JsonValue]]


@cache
def adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


@cache
def chunked(type_: Any, chunk_bytes: int = CHUNK_BYTES) -> ChunkedType:
    found = ChunkedType.of(adapter(type_), chunk_bytes)
    assert found is not None
    return found


def same(before: object, after: object) -> bool:
    return first_difference(before, after) is None


def dump(value: Any, type_: Any, chunk_bytes: int = CHUNK_BYTES) -> bytes | None:
    return chunked(type_, chunk_bytes).dump(value, same)


def compact(value: Any, type_: Any) -> bytes:
    return adapter(type_).dump_json(value, by_alias=False, round_trip=True, warnings="none")


def read_whole(data: bytes | bytearray, type_: Any) -> Any:
    return adapter(type_).validate_json(data, by_alias=True, by_name=True)


def assert_is_as_whole(value: Any, type_: Any, chunk_bytes: int) -> bytes | None:
    """The property: compact JSON with line breaks, read as the whole is, to the last detail."""
    data = dump(value, type_, chunk_bytes)
    if data is None:
        return None
    assert data.replace(b"\n", b"") == compact(value, type_)
    found, whole = chunked(type_, chunk_bytes).validate(data), read_whole(data, type_)
    assert found is not None
    assert found == whole
    assert repr(found) == repr(whole)
    assert fields_set(found) == fields_set(whole)
    return data


def fields_set(value: Any) -> Any:
    """Which fields were given, of all models inside."""
    if isinstance(value, BaseModel):
        inside = {name: fields_set(getattr(value, name)) for name in type(value).model_fields}
        return value.model_fields_set, list(value.__dict__), value.__pydantic_private__, inside
    if isinstance(value, dict):
        return [(key, fields_set(part)) for key, part in value.items()]
    return [fields_set(part) for part in value] if isinstance(value, list | tuple) else None


def damaged(data: bytes, damage: list[tuple[float, int, bytes]]) -> bytes:
    broken = bytearray(data)
    for place, length, text in damage:
        start = int(place * len(broken))
        broken[start : start + length] = text
    return bytes(broken)


@settings(max_examples=60, deadline=None)
@given(value=OBJECTS, chunk=st.sampled_from([9, 30, 100, 200]), type_=st.sampled_from(PLAIN))
def test_plain_json_in_chunks_is_the_compact_json_and_read_as_the_whole_is(value: Any, chunk: int, type_: Any) -> None:
    """Types and the order of names included; also in lists of thousands."""
    assert_is_as_whole(value, type_, chunk)


@settings(max_examples=300, deadline=None)
@given(making=SEEDS, chunk=st.sampled_from([16, 40, 100, 400]))
def test_records_in_chunks_are_the_compact_json_and_read_as_the_whole_is(making: Making, chunk: int) -> None:
    """Models, dataclasses, TypedDicts, generics, unions, sets, tuples, keys that are numbers, at any depth."""
    tree = making.tree()
    data = assert_is_as_whole(tree, Tree, chunk)

    if len(compact(tree.leaves, list[Leaf])) > chunk >= 400:  # with smaller chunks there are longer lines than allowed
        assert data is not None
        assert b'"leaves":[\n' in data


@settings(max_examples=25, deadline=None)
@given(making=SEEDS, chunk=st.sampled_from([16, 100, 400]))
def test_lists_and_dicts_of_records_are_taken_apart_as_well(making: Making, chunk: int) -> None:
    """A state need not be a record."""
    several = [making.tree() for _ in range(3)]
    for value, type_ in (
        (several, list[Tree]),
        (tuple(several), tuple[Tree, ...]),
        ({str(n): tree for n, tree in enumerate(several)}, dict[str, Tree]),
    ):
        data = assert_is_as_whole(value, type_, chunk)
        assert data is not None or chunk < 400


@settings(max_examples=200, deadline=None)
@given(making=SEEDS, chunk=st.sampled_from([9, 30, 60]), damage=DAMAGE, type_=st.sampled_from(PLAIN))
def test_nothing_is_made_of_damaged_chunks_that_is_not_there(
    making: Making, chunk: int, damage: Any, type_: Any
) -> None:
    """Whatever is read is what the JSON says as a whole; what is no JSON is never read."""
    value = {making.text(): making.json(4) for _ in range(making.random.randrange(1, 7))}
    data = damaged(dump(value, type_, chunk) or b"{\n" + to_json(value)[1:], damage)

    found = chunked(type_, chunk).validate(data)

    if found is not None:
        assert to_json(found) == to_json(from_json(data))


@pytest.mark.parametrize(
    ("type_", "data"),
    [(dict, b'{,\n"a":1\n}'), (list, b"[,\n1\n]"), (dict, b'{\n"a":{,\n"b":1\n}\n}'), (dict, b'{\n"a":1\n},')],
)
def test_a_comma_before_the_first_part_or_after_the_end_is_no_json(type_: Any, data: bytes) -> None:
    """Story: the first of these was read as if the comma were not there."""
    assert chunked(type_, 9).validate(data) is None


@settings(max_examples=300, deadline=None)
@given(making=SEEDS, chunk=st.sampled_from([16, 40]), damage=DAMAGE)
def test_nothing_is_made_of_damaged_records_that_is_not_there(making: Making, chunk: int, damage: Any) -> None:
    """Bytes replaced; lines left out, doubled, swapped: what is read is what the whole gives, if it gives anything."""
    tree, order = making.tree(), making.random
    data = dump(tree, Tree, chunk) or compact(tree, Tree)
    lines = data.split(b"\n")
    at, other = order.randrange(len(lines)), order.randrange(len(lines))
    changed = [damaged(data, damage), b"\n".join([*lines[:at], *lines[at + 1 :]])]
    changed += [b"\n".join([*lines[:at], lines[other], *lines[at:]])]
    lines[at], lines[other] = lines[other], lines[at]
    changed += [b"\n".join(lines)]

    for text in changed:
        found = chunked(Tree, chunk).validate(text)
        if found is not None:
            whole = read_whole(text, Tree)
            assert (repr(found), fields_set(found)) == (repr(whole), fields_set(whole))


LINES = ["{", '"name":"t",', '"leaves":[', '{"n":1}', "]", "}"]


@pytest.mark.parametrize(
    "lines",
    [
        [*LINES[:5]],
        LINES[1:],
        [*LINES[:4], "],", "}"],
        [*LINES[:3], "{},", "]", "}"],
        [*LINES[:3], LINES[3] + ",", "]", "}"],
        [*LINES[:3], LINES[3], LINES[3], "]", "}"],
        [*LINES[:3], "]", "}"],
        [*LINES[:3], "", "]", "}"],
        [*LINES[:4], "],", *LINES[2:]],
        [*LINES[:4], "],", '"leaves":[{"n":2}]', "}"],
        [*LINES[:4], "],", '"leaves":[]', "}"],
        ["{", '"name":"t","leaves":[{}],', *LINES[2:]],
        ["{", '"leaves":[],"name":{', *LINES[1:5], "}", "}"],
        ["[", *LINES[1:5], "]"],
        [*LINES[:3], "{},", '"n":1', "]", "}"],
        [*LINES[:3], "{}],[{}", "]", "}"],
        [*LINES, ""],
        [*LINES, "{"],
        [*LINES[:5], "},"],
        ["{", "1:[", "1", "]", "}"],
        ["{", '"name":"t",', '"leaves"[', "{}", "]", "}"],
        ["{", '"name":"t",', '"leaves":{', '"a":1', "}", "}"],
        ["{", '"name":"t",', '"hidden":[', "1", "]", "}"],
        ["{", '"name":"t",', '"inner":{', '"name":"u"', "},", '"inner":null', "}"],
        ["{", '"name":"t",', '"json":{', '"name":"u"', "}", "}"],
        ["{", '"name":"t",', '"json_":[', "1", "],", '"json":null', "}"],
    ],
)
def test_a_record_laid_out_otherwise_is_left_to_be_read_whole(lines: list[str]) -> None:
    """Whether it fits or not."""
    assert chunked(Tree).validate("\n".join(LINES).encode()) == Tree(name="t", leaves=[Leaf(n=1)])
    assert chunked(Tree).validate("\n".join(lines).encode()) is None


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
        ["{", '"a":[', "[", "1],[2", "]", "]", "}"],
        ["{", '"a":[', "[", "1]],[[2", "]", "]", "}"],
        ["{", '"a":{', '"b":1},{"c":2', "}", "}"],
        ["{", '"a":', "1", "}"],
        ["[", "1", "]"],
    ],
)
def test_plain_json_laid_out_otherwise_is_left_to_be_read_whole(lines: list[str]) -> None:
    """JSON or not."""
    assert chunked(dict).validate("\n".join(lines).encode()) is None


@pytest.mark.parametrize("depth", [150, 190, 196, 199, 200, 201, 205])
def test_nesting_too_deep_for_the_whole_is_too_deep_in_chunks(depth: int) -> None:
    """A state must not become unreadable because it got smaller."""
    value: Any = 1
    for _ in range(depth - 1):
        value = [value]
    state = {"deep": value, "wide": ["x" * 50] * 10}
    try:
        read_whole(compact(state, dict), dict)
    except ValueError:
        assert dump(state, dict, 60) is None
    else:
        assert dump(state, dict, 60) is not None


def bounded() -> dict[str, Any]:
    """Types of which something other than each field by itself has a say: they are written and read whole."""

    def nothing(value: Any) -> Any:
        return value

    class WholeValidated(BaseModel):
        items: list[str]

        @model_validator(mode="after")
        def _v(self) -> WholeValidated:
            return self

    class Inherited(WholeValidated):
        pass

    class WholeSerialized(BaseModel):
        items: list[str]

        @model_serializer
        def _s(self) -> dict[str, Any]:
            return {"items": self.items}

    class SeesOthers(BaseModel):
        items: list[str]
        count: int = 0

        @field_validator("count")
        @classmethod
        def _counted(cls, count: int, info: ValidationInfo) -> int:
            return count + len(info.data["items"])

    class FromOthers(BaseModel):
        items: list[str]
        count: int = Field(default_factory=lambda data: len(data["items"]))

    class Path(BaseModel):
        items: list[str]
        first: str = Field(default="", validation_alias=AliasPath("items", 0))

    class TwoNames(BaseModel):
        items: list[str] = []
        other: list[str] = Field(default=[], alias="items")

    class Settings(BaseModel):
        model_config = ConfigDict(ser_json_bytes="base64")
        items: list[str]

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

    class Root(RootModel[list[str]]):
        pass

    @dataclass
    class PostInitPair:
        items: list[str]

        def __post_init__(self) -> None:
            self.items.sort()

    class Validated(BaseModel):
        items: list[str]
        _v = field_validator("items")(nothing)

    class Serialized(BaseModel):
        items: list[str]
        _s = field_serializer("items")(nothing)

    class Bounded(BaseModel):
        items: list[str] = Field(max_length=10**6)

    class Annotations(BaseModel):
        items: Annotated[list[str], MinLen(1)]
        others: Annotated[list[str], AfterValidator(nothing)]

    class Union(BaseModel):
        items: list[str] | list[int]

    class Excluded(BaseModel):
        items: list[str] = Field(exclude=True)

    return {name: found for name, found in locals().items() if isinstance(found, type)}


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: list[int] = []


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


@dataclass(slots=True)
class Slotted:
    leaves: list[Leaf]
    n: int = 0


@dataclass(frozen=True)
class Frozen:
    leaves: tuple[Leaf, ...]
    numbers: list[int] = field(default_factory=list, compare=False)


@pydantic_dataclass(config=ConfigDict(extra="forbid", frozen=True))
class Checked:
    leaves: list[Leaf]
    by_name: dict[str, list[int]] = field(default_factory=dict)


class Open(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    numbers: list[int]


class Aliased(BaseModel):
    model_config = ConfigDict(extra="allow", alias_generator=str.upper, populate_by_name=True, serialize_by_alias=True)

    leaves: list[Leaf]
    by_name: dict[str, Leaf] = {}


class Typed(BaseModel):
    by_color: dict[Color, list[int]] = {}
    by_day: dict[date, list[Decimal]] = {}
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    leaves: Sequence[Leaf] = []
    queue: deque[int] = deque()
    deep: list[list[list[int]]] = []
    several: dict[str, dict[str, Leaf]] = {}
    ids: list[UUID] = []
    word: Annotated[str, AfterValidator(str.strip)] = ""

    @computed_field
    def count(self) -> int:
        return len(self.ids)


NUMBERS = list(range(60))
SOME_LEAVES = [Leaf(n=n) for n in range(30)]
NEIGHBOURS: list[tuple[Any, Any]] = [
    (Slotted, Slotted(SOME_LEAVES)),
    (Frozen, Frozen(tuple(SOME_LEAVES), NUMBERS)),
    (Checked, Checked(SOME_LEAVES, {"a": NUMBERS, "b\n": []})),
    (Open, {"numbers": NUMBERS, "more": NUMBERS, "n": 1}),
    (Aliased, Aliased.model_validate({"leaves": SOME_LEAVES, "by_name": {"q": Leaf()}, "extra": NUMBERS, "A 1": "x"})),
    (Typed, Typed(by_color={Color.RED: NUMBERS, Color.BLUE: []}, word="w")),
    (Typed, Typed(by_day={date(2020, 1, n): [Decimal("1.50")] * 9 for n in range(1, 9)})),
    (Typed, Typed(pets=[Cat(lives=NUMBERS), Dog(tricks=["sit"])] * 9, ids=[UUID(int=n) for n in NUMBERS])),
    (Typed, Typed(leaves=SOME_LEAVES, queue=deque(NUMBERS), deep=[[NUMBERS, []], [[]], []])),
    (Typed, Typed(several={"a": {"b": Leaf(), "c": Leaf()}, "d": {}})),
    (list[Annotated[Cat | Dog, Field(discriminator="kind")]], [Cat(lives=NUMBERS), Dog()] * 9),
    (list[Leaf | None], [None, *SOME_LEAVES]),
    (list[Leaf] | None, SOME_LEAVES),
    (dict[float, int], {n / 2: n for n in NUMBERS}),
    (dict[bool, list[int]], {True: NUMBERS, False: NUMBERS}),
    (list[set[int]], [set(NUMBERS)] * 5),
    (list[float], [1.0, 1e300, -0.0, 5e-324] * 9),
]


@pytest.mark.parametrize("number", range(len(NEIGHBOURS)))
@pytest.mark.parametrize("chunk", [16, 60, 300])
def test_types_of_all_sorts_are_as_the_whole_is(number: int, chunk: int) -> None:
    """Keys of other types, slots, frozen ones, aliases, extra fields, discriminated unions: the same JSON and value."""
    type_, value = NEIGHBOURS[number]
    if type_ is Open and Version(pydantic.VERSION) < Version("2.12"):
        pytest.skip(
            "before 2.12 pydantic leaves the extra fields of a TypedDict out of its JSON: it does not round-trip"
        )

    data = assert_is_as_whole(value, type_, chunk)

    assert data is not None or chunk < 300  # lines longer than eight of the smaller chunks


@pytest.mark.parametrize("name", bounded())
def test_records_in_which_something_else_has_a_say_are_written_and_read_whole(name: str) -> None:
    """Validators, serializers, bounds, methods of the application's own; and it is stored and read all the same."""
    type_ = bounded()[name]
    found = ChunkedType.of(TypeAdapter(type_), 30)
    items = ["x" * 40] * 9
    given = {"others": items} if name == "Annotations" else {}
    value = type_(items) if name == "Root" else type_(items=items, **given)

    assert found is None or found.dump(value, same) is None
    assert found is None or found.validate(b'{\n"items":[\n"x"\n]\n}') is None


class Stripped(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True, strict=True)

    items: list[str]
    numbers: list[float] = []
    by_name: dict[str, str] = {}


def test_settings_of_a_record_hold_for_its_chunks() -> None:
    """Text is stripped, and a number as text is refused, as in the whole."""
    lines = ["{", '"items":[', '" a ","b"', "],", '"by_name":{', '" c ":" d "', "}", "}"]

    found = chunked(Stripped).validate("\n".join(lines).encode())

    assert found == read_whole("".join(lines).encode(), Stripped)
    assert found.items == ["a", "b"]
    strict = ["{", '"items":[', '"a"', "],", '"numbers":[', '"1"', "]", "}"]
    assert chunked(Stripped).validate("\n".join(strict).encode()) is None


def test_settings_given_to_an_adapter_are_not_overlooked() -> None:
    """They are in no schema."""
    strict = TypeAdapter(list[float], config=ConfigDict(strict=True))

    assert ChunkedType.of(strict) is None
    assert ChunkedType.of(TypeAdapter(list[float])) is not None


def items(count: int = 22_000) -> list[dict[str, Any]]:
    return [{"id": n, "text": "t" * 40, "tags": ["a"]} for n in range(count)]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid")

    role: Literal["user"]
    text: str


class Chat(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, title="a chat")

    messages: list[Message]


class Chats(BaseModel):
    chats: list[Chat] = []
    by_name: dict[str, Chat] = {}
    one: Chat | None = None


def chat(count: int = 7_200) -> Chat:
    return Chat(messages=[Message(role="user", text="t" * 200) for _ in range(count)])


SHAPES: dict[str, tuple[Any, Callable[[], Any]]] = {
    "items": (dict, lambda: {"items": items(), "n": 1}),
    "nested": (dict, lambda: {"rows": [items(50) for _ in range(450)]}),
    "rows of rows": (dict[str, JsonValue], lambda: {"rows": [items(3200) for _ in range(7)]}),
    "names": (dict, lambda: {f"{n:08d}" + "k" * 50: n for n in range(25_000)}),
    "a large part among many": (dict, lambda: {"rows": [*items(9_000), {"inner": items(9_000)}, *items(9_000)]}),
    "models": (Chat, chat),
    "one level deeper": (Chats, lambda: Chats(chats=[chat(2400) for _ in range(3)])),
    "small ones, one level deeper": (Chats, lambda: Chats(chats=[chat(20) for _ in range(360)])),
    "in a dict": (Chats, lambda: Chats(by_name={"a": chat(), "b": chat(10)})),
    "in a record": (Chats, lambda: Chats(one=chat())),
    "a list": (list[Message], lambda: chat().messages),
    "a dict of records": (dict[str, Chat], lambda: {str(n): chat(100) for n in range(72)}),
}


@pytest.mark.parametrize("name", SHAPES)
async def test_a_large_state_is_stored_in_chunks_and_comes_back(name: str) -> None:
    """No line is much longer than a chunk, whatever the shape; the object is plain JSON."""
    type_, make = SHAPES[name]
    state = make()
    store = MemoryStore()
    checkpointer: S3Checkpointer[Any] = S3Checkpointer(type_, store)

    await checkpointer.commit(RUN, 0, state, [])
    await checkpointer.commit(RUN, 0, make(), [])  # the same content again

    stored = await store.get(RunKeys("", RUN).state(0), max_bytes=2**30)
    assert stored is not None
    assert len(stored.body) > 3 * CHUNK_BYTES
    assert max(map(len, stored.body.split(b"\n"))) < 2 * CHUNK_BYTES
    assert stored.body.replace(b"\n", b"") == compact(state, type_)
    assert chunked(type_).validate(stored.body) == state
    assert await checkpointer.load(RUN, 0) == state
    other: S3Checkpointer[Any] = S3Checkpointer(Any, store)
    assert await other.load(RUN) == json.loads(stored.body)


@pytest.mark.parametrize(
    "bad",
    [float("nan"), float("inf"), {1: "x"}, b"\xff", "\ud800", object(), (1, 2), UUID(int=1)],
    ids=["nan", "inf", "int-key", "bytes", "surrogate", "object", "tuple", "uuid"],
)
async def test_values_that_would_not_come_back_are_refused_with_their_place(bad: object) -> None:
    """As in a small state; this one is more than a chunk."""
    assert len(to_json(items(11_999))) > CHUNK_BYTES
    checkpointer = S3Checkpointer(dict, store := MemoryStore())

    with pytest.raises(StateEncodingError, match=r"\$\.items\[11999\]\.bad"):
        await checkpointer.save(RUN, 0, {"items": [*items(12_000)[:-1], {"bad": bad}]})

    assert not (await store.list("")).objects


async def test_values_that_a_large_model_would_lose_are_refused_with_their_place() -> None:
    """A part of a class with more fields."""

    class More(Message):
        more: int = 1

    checkpointer = S3Checkpointer(Chat, store := MemoryStore())

    with pytest.raises(StateEncodingError, match=r"\$\.messages\[7200\]"):
        await checkpointer.save(RUN, 0, Chat(messages=[*chat().messages, More(role="user", text="")]))

    assert not (await store.list("")).objects


async def test_values_that_contain_themselves_are_refused() -> None:
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
        await S3Checkpointer(dict, MemoryStore()).save(RUN, 0, {1: items()})


async def test_a_large_model_that_does_not_fit_is_an_error_with_its_place() -> None:
    """That of the whole, not of a chunk."""
    store = MemoryStore()
    state = chat().model_dump()
    state["messages"][3_600]["text"] = []
    await S3Checkpointer(dict, store).save(RUN, 0, state)

    with pytest.raises(StateDecodingError, match=r"\$\.messages\[3600\]\.text"):
        await S3Checkpointer(Chat, store).load(RUN)


def test_a_line_too_long_to_be_copied_is_left_to_be_read_whole() -> None:
    """It would be held several times."""
    data = b'{\n"text":"' + b"x" * (LONGEST + 1) * CHUNK_BYTES + b'"\n}'

    assert chunked(dict).validate(data) is None
    assert chunked(dict).validate(data.replace(b"x" * 2 * CHUNK_BYTES, b"")) is not None
    assert dump({"text": "x" * 20 * CHUNK_BYTES}, dict) is None


def test_a_fault_of_the_chunk_writer_is_not_blamed_on_the_value() -> None:
    """A schema that says what is not known here, or fails when it is looked at, is left alone: the value goes whole."""
    unknown = dict(adapter(Chat).core_schema) | {"says": "something new"}
    broken = {"type": "list"}

    assert ChunkedType(unknown).dump(chat(), same) is None
    assert ChunkedType(broken).dump(["x"] * 10**5, lambda *_: 1 / 0 > 1) is None


def test_a_body_of_short_lines_is_left_to_be_read_whole() -> None:
    """Line by line it would take twenty times as long; no value is written like that."""
    lines = [b"{", *(b'"%d":1,' % n for n in range(100_000)), b'"n":1', b"}"]

    assert chunked(dict).validate(b"\n".join(lines)) is None
    assert chunked(dict).validate(b"\n".join([*lines[:500], *lines[-2:]])) is not None
