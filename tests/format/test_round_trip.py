"""What is committed comes back the same, type and value at every node; or it is refused with the path of the node."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import functools
import ipaddress
import re
import types
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

import pytest
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from s3_checkpoint import StateEncodingError
from s3_checkpoint._format.codec import StateCodec

T = TypeVar("T")
NEW_YORK = ZoneInfo("America/New_York")
NAN = float("nan")


def codec(type_: Any) -> StateCodec[Any]:
    return StateCodec(type_, schema_version=1, migrations={}, compression=None, max_bytes=10_000_000)


def shape(value: Any) -> Any:
    """A value as nested tuples of types and texts, by rules of the test's own: equal only if all is the same."""
    kind = type(value)
    if isinstance(value, BaseModel):
        return kind, {name: shape(value.__dict__[name]) for name in kind.model_fields}, shape(value.model_extra)
    if dataclasses.is_dataclass(value):
        return kind, {field.name: shape(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        extra = getattr(value, "default_factory", None)
        return kind, sorted(((shape(key), shape(item)) for key, item in value.items()), key=repr), extra
    if isinstance(value, set | frozenset):
        return kind, sorted(map(shape, value), key=repr)
    if isinstance(value, list | tuple | collections.deque):
        return kind, [shape(item) for item in value], getattr(value, "maxlen", None)
    if isinstance(value, datetime | time):
        return kind, value.replace(tzinfo=None).isoformat(), value.fold, value.utcoffset()
    if kind in (Slotted, Plain):
        return kind, value.a, shape(value.b)
    return kind, repr(value)


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Items(list):  # type: ignore[type-arg]
    pass


class Table(dict):  # type: ignore[type-arg]
    pass


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Pair(NamedTuple):
    left: int
    right: Any


class Base(BaseModel):
    a: int = 1


class Derived(Base):
    b: int = 2


class Holder(BaseModel):
    inner: Base = Base()
    anything: Any = None
    number: float = 0.0
    count: int = 0
    text: str = ""
    names: list[str] = []
    table: dict[str, Any] = {}


class ById(BaseModel):
    """Compared by identity, as models of an ORM are."""

    inner: Base = Base()
    anything: Any = None

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]


class Agreeing(BaseModel):
    """Says that it equals everything."""

    anything: Any = None
    inner: Base = Base()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class Hidden:
    shown: int
    hidden: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(slots=True)
class SlottedHidden:
    shown: int
    hidden: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(eq=False)
class DataById:
    x: Any


@dataclasses.dataclass
class Late:
    x: int
    y: int = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class DerivedHidden(Hidden):
    more: int = 5


@pydantic_dataclass
class Checked:
    x: int
    y: list[float]


class Note(TypedDict):
    text: str
    score: float


class Extra(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 1


class Box(BaseModel, Generic[T]):
    content: T


class Tree(RootModel[dict[str, Any]]):
    pass


class Left(BaseModel):
    kind: Literal["left"] = "left"
    value: int = 0


class Right(BaseModel):
    kind: Literal["right"] = "right"
    value: float = 0


class Choice(BaseModel):
    one: Annotated[Left | Right, Field(discriminator="kind")]


class Excluded(BaseModel):
    kept: int
    dropped: int = Field(default=0, exclude=True)


class Cached(BaseModel):
    n: int

    @functools.cached_property
    def double(self) -> list[int]:
        return [self.n, self.n]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def triple(self) -> int:
        return 3 * self.n


class Secret(BaseModel):
    password: SecretStr


class Strings(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    number: float


class Slotted:
    """No model: slots, compared by identity, with a serializer that may lose one."""

    __slots__ = ("a", "b")

    def __init__(self, a: int, b: Any) -> None:
        self.a, self.b = a, b


class Plain:
    def __init__(self, a: int, b: Any) -> None:
        self.a, self.b = a, b


def both(value: Any) -> dict[str, Any]:
    return {"a": value.a, "b": value.b}


def made(kind: Callable[..., Any]) -> Any:
    return lambda value: value if isinstance(value, kind) else kind(**value)  # type: ignore[arg-type]


def written(kind: Any, write: Callable[[Any], Any], read: Callable[[Any], Any]) -> Any:
    return Annotated[kind, PlainValidator(read), PlainSerializer(write)]


KeptSlots = written(Slotted, both, made(Slotted))
LostSlots = written(Slotted, lambda value: {"a": value.a, "b": None}, made(Slotted))
KeptPlain = written(Plain, both, made(Plain))
LostPlain = written(Plain, lambda value: {"a": value.a, "b": None}, made(Plain))
Zoned = written(
    datetime,
    lambda value: [value.replace(tzinfo=None).isoformat(), value.tzinfo.key, value.fold],
    lambda v: v if isinstance(v, datetime) else datetime.fromisoformat(v[0]).replace(tzinfo=ZoneInfo(v[1]), fold=v[2]),
)


class Shifting(tzinfo):
    """Says that it is fixed, and is not."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=1 if moment and moment.month > 6 else 0)

    def tzname(self, _: datetime | None) -> str:
        return "shifting"

    def dst(self, _: datetime | None) -> timedelta:
        return timedelta(0)


def name_of(value: Any) -> str:
    return str(getattr(value, "__name__", type(value).__name__)) if not isinstance(value, str) else value[:20]


THE_SAME: list[tuple[Any, Any]] = [
    (dict[str, Any], {"a": [1, 1.0, True, None, "x", -0.0, {"b": []}]}),
    (dict[str, JsonValue], {"big": 10**300, "small": 5e-324, "é\u2028": "\U0001f600", "": {}}),
    (dict[int, str], {3: "three"}),
    (dict[float, str], {1.5: "x"}),
    (dict[bool, str], {True: "x"}),
    (dict[Colour, int], {Colour.RED: 1}),
    (dict[date, int], {date(2026, 1, 1): 1}),
    (dict[uuid.UUID, int], {uuid.uuid1(): 1}),
    (dict[str, float], {"a": 1.0, "b": -0.0}),
    (collections.OrderedDict[str, int], collections.OrderedDict(b=1, a=2)),
    (collections.defaultdict[str, list[int]], collections.defaultdict(list, a=[1])),
    (collections.Counter[str], collections.Counter("aab")),
    (collections.deque[int], collections.deque([1, 2])),
    (list[tuple[int, str]], [(1, "a")]),
    (tuple[int, ...], (1, 2, 3)),
    (set[int], {3, 1, 2}),
    (frozenset[str], frozenset("abc")),
    (set[tuple[int, str]], {(1, "a"), (2, "b")}),
    (Pair, Pair(1, [2])),
    (list[Pair], [Pair(1, None)]),
    (bytes, b"text"),
    (list[Decimal], [Decimal("1.10"), Decimal("-0"), Decimal("1E+5"), Decimal("0." + "1" * 40)]),
    (Fraction, Fraction(1, 3)),
    (complex, complex(1.5, -2.0)),
    (datetime, datetime(2026, 1, 1, 12, 30, 15, 123456)),  # noqa: DTZ001
    (datetime, datetime(2026, 1, 1, tzinfo=UTC)),
    (datetime, datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30), "IST"))),
    (datetime, datetime(2026, 1, 1, tzinfo=ZoneInfo("UTC"))),
    (datetime, datetime(2026, 1, 1, tzinfo=ZoneInfo("Etc/GMT+5"))),
    (Zoned, datetime(2026, 11, 1, 1, 30, tzinfo=NEW_YORK, fold=1)),
    (ZoneInfo, NEW_YORK),
    (date, date(2026, 1, 1)),
    (time, time(12, 30, tzinfo=UTC)),
    (timedelta, timedelta(days=-1, microseconds=1)),
    (uuid.UUID, uuid.uuid4()),
    (PurePosixPath, PurePosixPath("a/b")),
    (ipaddress.IPv4Address, ipaddress.ip_address("127.0.0.1")),
    (ipaddress.IPv4Network, ipaddress.ip_network("10.0.0.0/8")),
    (re.Pattern[str], re.compile("a+")),
    (AnyUrl, AnyUrl("https://example.org/a?b=c")),
    (Colour, Colour.RED),
    (Level, Level.LOW),
    (Mode, Mode.FAST),
    (Rights, Rights.READ | Rights.WRITE),
    (Literal["a", 1], 1),
    (int | float, 1.0),
    (int | str | None, "1"),
    (Base | Derived, Derived(b=3)),
    (list[Left | Right], [Right(value=1), Left(value=1)]),
    (Choice, Choice(one=Right(value=2.0))),
    (Holder, Holder(anything={"x": [1, 2.5]}, number=-0.0, names=["a"])),
    (Holder, Holder.model_construct(inner=Base(), count=1)),
    (ById, ById(inner=Base(a=3), anything=[1])),
    (Agreeing, Agreeing(anything=[1])),
    (Hidden, Hidden(1, {"p": 1.5})),
    (SlottedHidden, SlottedHidden(1, [None])),
    (DataById, DataById({"x": 1})),
    (Checked, Checked(1, [1.0])),
    (Late, Late(1)),
    (Note, {"text": "x", "score": 0.5}),
    (Extra, Extra(a=2, more=[1], other={"x": None})),  # type: ignore[call-arg]
    (Box[int], Box[int](content=1)),
    (Box[list[Base]], Box[list[Base]](content=[Base()])),
    (Tree, Tree({"a": [1]})),
    (Excluded, Excluded(kept=1)),
    (KeptSlots, Slotted(1, [2])),
    (KeptPlain, Plain(1, [2])),
    (dict[str, Strings], {"x": Strings(number=float("-inf"))}),
    (Strings, Strings(number=NAN)),
]


@pytest.mark.parametrize(("type_", "value"), THE_SAME, ids=name_of)
def test_accepted_values_come_back_the_same(type_: Any, value: Any) -> None:
    """The same type and value at every node, by rules of the test's own."""
    before = shape(value)

    back = codec(type_).round_trip(codec(type_).encode(value))

    assert shape(back) == before == shape(value)


MINUTE = datetime(2026, 11, 1, 1, 30)  # noqa: DTZ001 - on this day clocks are set back in New York

REFUSED: list[tuple[Any, Any, str, str]] = [
    # numbers and texts
    (Holder, Holder(number=NAN), "$.number", "ser_json_inf_nan"),
    (dict[str, Any], {"a": [float("-inf")]}, "$.a[0]", "not a JSON number"),
    (Holder, Holder(anything=Text("x")), "$.anything", "a Text comes back as a str"),
    (Holder, Holder.model_construct(text=Text("x")), "$.text", "a Text comes back as a str"),
    (Holder, Holder.model_construct(count=Number(1)), "$.count", "a Number comes back as a int"),
    (Holder, Holder.model_construct(number=Real(1)), "$.number", "a Real comes back as a float"),
    (Holder, Holder.model_construct(number=True), "$.number", "a bool comes back as a float"),
    (Holder, Holder.model_construct(count=1.0), "$.count", "a float comes back as a int"),
    (Holder, Holder.model_construct(count=True), "$.count", "a bool comes back as a int"),
    (Note, {"text": "x", "score": 2**53 + 1}, "$.score", ""),
    (Holder, Holder.model_construct(names=["a", Text("b")]), "$.names[1]", "a Text"),
    (dict[str, Any], {Text("a"): 1}, "$.a", "its key"),
    (dict[str, str], {Text("a"): "x"}, "$.a", "its key"),
    (dict[str, Any], {"a": {1: 2}}, "$.a[1]", "not a string; annotate dict[int, …]"),
    (dict[str, Any], {"a": {1: "x", "1": "y"}}, "$.a[1]", "not a string"),
    (dict[int, Any], {True: 1}, "$.True", ""),
    (dict[str, Any], {"a": Decimal("1.5")}, "$.a", "annotate Decimal"),
    (dict[str, Any], {"a": {"b": 10**5000}}, "$.a.b", "thousands of digits"),
    (dict[str, Any], {"a": ["\ud800"]}, "$.a[0]", "lone surrogate"),
    (dict[str, Any], {"a": {"\ud800": 1}}, "$.a['\\ud800']", "lone surrogate"),
    (dict[str, Any], {"a": [b"\xff"]}, "$.a[0]", "not UTF-8"),
    (dict[str, Any], {"a": b"x"}, "$.a", "annotate bytes"),
    (dict[str, Any], {"a": bytearray(b"x")}, "$.a", "a bytearray comes back as a str"),
    (dict[str, bytes], {"a": bytearray(b"x")}, "$.a", "a bytearray comes back as a bytes"),
    (dict[str, Any], {"a": 1j}, "$.a", "a complex comes back as a str"),
    (dict[str, Any], {"a": object()}, "$.a", "no form in JSON"),
    # times
    (datetime, datetime(2026, 1, 1, tzinfo=NEW_YORK), "$", "store UTC and the zone's name"),
    (dict[str, list[datetime]], {"a": [MINUTE, MINUTE.replace(tzinfo=NEW_YORK)]}, "$.a[1]", "the zone's name"),
    (datetime, datetime(2026, 1, 1, tzinfo=Shifting()), "$", "store UTC and the zone's name"),
    (dict[str, datetime], {"a": MINUTE.replace(fold=1)}, "$.a", "fold=1"),
    (dict[str, time], {"a": time(1, 30, fold=1)}, "$.a", "fold=1"),
    (dict[str, Any], {"a": MINUTE}, "$.a", "annotate datetime"),
    # containers
    (dict[str, Any], {"a": (1, 2)}, "$.a", "annotate tuple[…], or store a list"),
    (dict[str, Any], {"a": {1}}, "$.a", "annotate set[…], or store a list"),
    (dict[str, Any], {"a": collections.deque([1])}, "$.a", "annotate deque"),
    (dict[str, Any], {"a": collections.defaultdict(list)}, "$.a", "annotate defaultdict[…], or store a dict"),
    (dict[str, Any], {"a": collections.Counter("a")}, "$.a", "a Counter comes back as a dict"),
    (dict[str, Any], collections.OrderedDict(a=1), "$", "a OrderedDict comes back as a dict"),
    (dict[str, dict[str, int]], {"a": Table(b=1)}, "$.a", "a Table comes back as a dict"),
    (Holder, Holder.model_construct(table=Table(b=1)), "$.table", "a Table comes back as a dict"),
    (Note, Table(text="x", score=1.0), "$", "a Table comes back as a dict"),
    (dict[str, list[int]], {"a": Items([1])}, "$.a", "a Items comes back as a list"),
    (dict[str, Any], {"a": Pair(1, 2)}, "$.a", "a Pair comes back as a list"),
    (Pair, Pair(1, (2,)), "$.right", "a tuple comes back as a list"),
    (dict[str, collections.deque[int]], {"a": collections.deque([1], maxlen=3)}, "$.a", "maxlen"),
    (collections.defaultdict[str, list[int]], collections.defaultdict(lambda: [0]), "$", "default_factory"),
    (dict[str, frozenset[Any]], {"a": frozenset([(1, 2)])}, "$.a[0]", ""),
    (dict[str, set[float]], {"a": {True}}, "$.a[*]", "a bool comes back as a float"),
    (dict[str, Any], {"a": iter([1])}, "$.a", "can be read only once"),
    (dict[str, Any], {"a": (n for n in [1])}, "$.a", "can be read only once"),
    (Holder, Holder.model_construct(names=map(str, [1])), "$.names", "can be read only once"),
    (set[float], {float("inf")}, "$[0]", "ser_json_inf_nan"),
    (collections.deque[float], collections.deque([1.0, NAN]), "$[1]", "ser_json_inf_nan"),
    (dict[tuple[int, int], str], {(1, 2): "x"}, "$['1,2']", "under a key that is not a string"),
    (dict[str, Any], {"a": types.MappingProxyType({"b": 1})}, "$.a", "no form in JSON"),
    (dict[str, Any], {"a": collections.ChainMap({"b": 1})}, "$.a", "no form in JSON"),
    (dict[str, Any], {"a": [int]}, "$.a[0]", "no form in JSON"),
    # enums
    (dict[str, Any], {"a": Colour.RED}, "$.a", "annotate Colour"),
    (dict[str, str], {"a": Mode.FAST}, "$.a", "annotate Mode"),
    (dict[str, int], {"a": Level.LOW}, "$.a", "annotate Level"),
    # models, dataclasses and other classes
    (Holder, Holder(inner=Derived()), "$.inner", "without b; annotate Derived"),
    (list[Base], [Base(), Derived()], "$[1]", "without b; annotate Derived"),
    (Holder, Holder(anything=Base()), "$.anything", "a Base comes back as a dict; annotate Base"),
    (Holder, Holder(anything=Hidden(1)), "$.anything", "a Hidden comes back as a dict; annotate Hidden"),
    (ById, ById(inner=Derived()), "$.inner", "without b"),
    (ById, ById(anything={1: "x"}), "$.anything[1]", "not a string"),
    (Agreeing, Agreeing(anything=(1,)), "$.anything", "a tuple"),
    (Agreeing, Agreeing(inner=Derived()), "$.inner", "without b"),
    (Hidden, Hidden(1, {"p": float("inf")}), "$.hidden.p", "not a JSON number"),
    (Hidden, Hidden(1, {"t": (1, 2)}), "$.hidden.t", "a tuple"),
    (SlottedHidden, SlottedHidden(1, (1,)), "$.hidden", "a tuple"),
    (list[Hidden], [Hidden(1), DerivedHidden(1)], "$[1]", "without more"),
    (DataById, DataById((1,)), "$.x", "a tuple"),
    (Checked, Checked.__new__(Checked), "$", ""),
    (Late, None, "$.y", "another value"),
    (Extra, Extra(more=(1,)), "$.more", "a tuple"),  # type: ignore[call-arg]
    (Box[int], Box(content=1), "$", "comes back as a Box[int]"),
    (Tree, Tree({"a": [(1,)]}), "$.a[0]", "a tuple"),
    (Excluded, Excluded(kept=1, dropped=2), "$.dropped", "another value"),
    (Base, Base().model_copy(update={"typo": 1}), "$.typo", "not there"),
    (Secret, Secret(password=SecretStr("hunter2")), "$.password", "comes back as one that it does not equal"),
    (LostSlots, Slotted(1, 2), "$.b", "a int comes back as a NoneType"),
    (LostPlain, Plain(1, [2]), "$.b", "a list comes back as a NoneType"),
    (list[LostSlots], [Slotted(1, None), Slotted(1, "x")], "$[1].b", "a str"),  # type: ignore[valid-type]
]
REFUSED = [entry if entry[0] is not Late else (Late, Late(1), *entry[2:]) for entry in REFUSED]
next(entry[1] for entry in REFUSED if entry[0] is Late).y = 7


@pytest.mark.parametrize(("type_", "value", "path", "reason"), REFUSED, ids=name_of)
def test_values_that_would_come_back_otherwise_are_refused_with_their_path(
    type_: Any, value: Any, path: str, reason: str
) -> None:
    """And with what happens to it there, and what to do about it."""
    with pytest.raises(StateEncodingError) as caught:
        codec(type_).encode(value)

    assert caught.value.path == path
    assert reason in caught.value.reason
    assert "value does not round-trip through JSON" in str(caught.value)
    assert "hunter2" not in str(caught.value)


LARGE = 600
"""Items, so that they are compared in columns."""


SOUND = {repr(type_): value for type_, value in THE_SAME}
AMONG_SOUND = [(*entry, SOUND[repr(entry[0])]) for entry in REFUSED if repr(entry[0]) in SOUND]


@pytest.mark.parametrize(("type_", "value", "path", "reason", "sound"), AMONG_SOUND, ids=name_of)
@pytest.mark.parametrize("count", [20, LARGE])
def test_a_fault_is_found_among_many_that_have_none(
    type_: Any, value: Any, path: str, reason: str, sound: Any, count: int
) -> None:
    """Many values are compared in columns; one that differs is found there, whatever surrounds it."""
    place = count * 2 // 3
    state = {"deep": [[sound] * place + [value] + [sound] * (count - place)]}

    with pytest.raises(StateEncodingError) as caught:
        codec(dict[str, list[list[type_]]]).encode(state)

    assert caught.value.path == f"$.deep[0][{place}]{path[1:]}"
    assert reason in caught.value.reason


@pytest.mark.parametrize(("type_", "value"), THE_SAME, ids=name_of)
def test_many_that_have_no_fault_come_back_the_same(type_: Any, value: Any) -> None:
    """Many values are compared in columns; none that comes back as it is is refused there."""
    state = {"deep": [[value] * 20, [value] * 7]}
    either = codec(dict[str, list[list[type_]]])

    back = either.round_trip(either.encode(state))

    assert shape(back) == shape(state)


def test_a_class_that_was_made_again_says_so() -> None:
    """In a notebook, a cell that runs again makes another class of the same name; states of the older are refused."""

    def run_the_cell() -> Any:
        class State(BaseModel):
            n: int
            colour: Any = None

        return State

    first, second = run_the_cell(), run_the_cell()

    with pytest.raises(StateEncodingError, match=r"another class of the same name \(a cell or module run again\?\)"):
        codec(second).encode(first(n=1))
    with pytest.raises(StateEncodingError, match=r"another class of the same name.*path=`\$\[0\]`"):
        codec(list[second]).encode([first(n=1)])  # type: ignore[valid-type]


def test_a_langchain_message_behind_its_base_class_names_the_union_to_annotate() -> None:
    """`BaseMessage` would lose what only the message's own class has; `AnyMessage` keeps it."""
    messages: list[BaseMessage] = [HumanMessage("hello"), AIMessage("hello", tool_calls=[])]

    with pytest.raises(StateEncodingError, match=r"annotate AnyMessage of langchain_core\.messages") as caught:
        codec(list[BaseMessage]).encode(messages)

    assert caught.value.path == "$[0]"
    assert codec(list[AnyMessage]).round_trip(codec(list[AnyMessage]).encode(messages)) == messages


def test_a_kept_result_is_no_part_of_a_state() -> None:
    """One worker has read a `cached_property`, another has not: both commit the same."""
    read, unread = Cached(n=1), Cached(n=1)
    assert read.double == [1, 1]
    either = codec(list[Cached])

    bodies = [either.encode([read] * 50), either.encode([unread] * 50), either.encode([read, *[unread] * 49])]

    assert len({body.digest for body in bodies}) == 1
    assert either.same(either.round_trip(bodies[0]), either.round_trip(bodies[1]))


def test_private_attributes_are_forgiven() -> None:
    """Pydantic says that they are no part of a model; a dataclass may keep what it works out behind an underscore."""

    class Model(BaseModel):
        n: int
        _seen: list[Any] = PrivateAttr(default_factory=list)

    @dataclasses.dataclass
    class Data:
        n: int

    model, data = Model(n=1), Data(1)
    model._seen.append((1, 2))
    data._seen = (1, 2)  # type: ignore[attr-defined]

    assert codec(Model).encode(model).data == b'{"n":1}'
    assert codec(Data).encode(data).data == b'{"n":1}'


def test_an_attribute_that_is_no_field_is_not_lost_without_a_word() -> None:
    """A dataclass takes any attribute; what is not private and does not come back is refused."""

    @dataclasses.dataclass
    class Data:
        n: int

    data = Data(1)
    data.more = 2  # type: ignore[attr-defined]

    with pytest.raises(StateEncodingError) as caught:
        codec(list[Data]).encode([Data(0), data])

    assert caught.value.path == "$[1].more"


def test_arrays_are_compared_by_type_and_content() -> None:
    """NumPy's `==` answers with an array; the standard library's takes 1.0 for 1."""
    kept = written(array.array, lambda value: [value.typecode, value.tolist()], lambda v: _array(v[0], v[1]))
    lost = written(array.array, lambda value: value.tolist(), lambda v: _array("d", v))

    assert codec(kept).encode(array.array("f", [1.0]))
    assert codec(lost).encode(array.array("d", [1.0]))
    with pytest.raises(StateEncodingError):
        codec(lost).encode(array.array("f", [1.0]))


def _array(code: str, values: Any) -> Any:
    return array.array(code, values)


def test_objects_that_refer_to_themselves_are_compared() -> None:
    """A serializer may leave out what a validator puts in again."""

    class Node:
        def __init__(self, name: str) -> None:
            self.name, self.me = name, self

    kind = written(Node, lambda value: value.name, Node)

    assert codec(list[kind]).encode([Node("a")] * 3).data == b'["a","a","a"]'  # type: ignore[valid-type]


def test_an_int_is_a_float_where_the_type_says_float() -> None:
    """As type checkers see it; it is written and comes back as the equal float, and only if there is one."""
    either = codec(Note)

    assert either.encode({"text": "", "score": 1}).digest == either.encode({"text": "", "score": 1.0}).digest
    with pytest.raises(StateEncodingError):
        either.encode({"text": "", "score": 2**53 + 1})
