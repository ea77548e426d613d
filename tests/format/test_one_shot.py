"""An iterator in a state is refused before anything reads it: the caller's object is as it was."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from types import MappingProxyType, SimpleNamespace
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, PrivateAttr, RootModel

from s3_checkpoint import ActiveSnapshot, MemoryStore, StateEncodingError, connect
from s3_checkpoint._format.codec import StateCodec
from s3_checkpoint._format.one_shot import first_one_shot

RUN = "9b2f4c1a-0000-4000-8000-000000000000"


class Holder(BaseModel):
    names: list[str] = []
    anything: Any = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Tree(RootModel[Any]):
    pass


class Lazy(BaseModel):
    calls: Iterable[int]


@dataclasses.dataclass
class Data:
    x: Any = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(slots=True)
class Slotted:
    x: Any


class Countdown:
    """An application's iterator."""

    def __init__(self) -> None:
        self.left = 3

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.left == 0:
            raise StopIteration
        self.left -= 1
        return self.left


ITERATORS: dict[str, Callable[[], Iterator[Any]]] = {
    "generator": lambda: (number for number in range(3)),
    "iter": lambda: iter([1, 2, 3]),
    "map": lambda: map(str, [1, 2, 3]),
    "zip": lambda: zip([1, 2, 3], "abc", strict=True),
    "chain": lambda: itertools.chain([1], [2, 3]),
    "keys": lambda: iter({1: 1, 2: 2, 3: 3}),
    "file": lambda: io.StringIO("a\nb\nc\n"),
    "pydantic": lambda: iter(Lazy(calls=[1, 2, 3]).calls),
    "application": Countdown,
}

PLACES: dict[str, tuple[Any, Callable[[Any], Any], str]] = {
    "itself": (Any, lambda it: it, "$"),
    "dict": (dict[str, Any], lambda it: {"a": [1, {"b": [it]}]}, "$.a[1].b[0]"),
    "field under Any": (Holder, lambda it: Holder(anything={"x": it}), "$.anything.x"),
    "field not validated": (Holder, lambda it: Holder.model_construct(names=it), "$.names"),
    "extra field": (Open, lambda it: Open(more=it), "$.more"),  # type: ignore[call-arg]
    "root model": (Tree, lambda it: Tree([it]), "$[0]"),
    "tuple": (Holder, lambda it: Holder(anything=(1, it)), "$.anything[1]"),
    "set": (Holder, lambda it: Holder(anything={it}), "$.anything[*]"),
    "deque": (Holder, lambda it: Holder(anything=deque([it])), "$.anything[0]"),
    "OrderedDict": (Holder, lambda it: Holder(anything=OrderedDict(a=it)), "$.anything.a"),
    "proxy": (Holder, lambda it: Holder(anything=MappingProxyType({"a": it})), "$.anything.a"),
    "object": (Holder, lambda it: Holder(anything=SimpleNamespace(a=it)), "$.anything.a"),
    "lazy model under Any": (Holder, lambda it: Holder(anything=Lazy.model_construct(calls=it)), "$.anything.calls"),
    "dataclass": (Data, lambda it: Data([it]), "$.x[0]"),
    "slots": (Slotted, lambda it: Slotted({"a": it}), "$.x.a"),
    "among many": (list[Holder], lambda it: [Holder(anything="x" * 1000)] * 900 + [Holder(anything=it)], "$[900].any"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", ITERATORS.values(), ids=ITERATORS)
async def test_an_iterator_is_refused_unread_with_its_path(make: Callable[[], Iterator[Any]], place: str) -> None:
    """Story: the save that refused it had used it up, and with it the caller's state."""
    state_type, hold, path = PLACES[place]
    iterator = make()
    state = hold(iterator)

    async with connect(state_type, store=MemoryStore()) as checkpointer:
        with pytest.raises(StateEncodingError, match="can be read only once") as saved:
            await checkpointer.save(RUN, 0, state)
        with pytest.raises(StateEncodingError, match="store a list"):
            await checkpointer.commit(RUN, 0, state, [])

    assert saved.value.path.startswith(path)
    assert len(list(iterator)) == 3


async def test_an_iterator_in_a_payload_is_refused_unread() -> None:
    iterator = iter([1, 2, 3])
    task = ActiveSnapshot.model_construct(node_name="a", payload={"x": [iterator]})

    async with connect(dict[str, Any], store=MemoryStore()) as checkpointer:
        with pytest.raises(StateEncodingError) as caught:
            await checkpointer.commit(RUN, 0, {}, [task])

    assert caught.value.path == "$active[0].payload.x[0]"
    assert list(iterator) == [1, 2, 3]


def test_an_attribute_that_is_no_part_of_a_state_may_be_an_iterator() -> None:
    """Private attributes, which are not written; and a class that says itself how its instances are equal."""

    class Model(BaseModel):
        n: int
        _ids: Any = PrivateAttr(default_factory=itertools.count)

    class Cursor(Countdown):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Cursor) and other.left == self.left

        __hash__ = None  # type: ignore[assignment]

    def read(value: Any) -> Cursor:
        cursor = Cursor()
        cursor.left = value
        return cursor

    kind = Annotated[Cursor, PlainValidator(read), PlainSerializer(lambda cursor: cursor.left)]

    for state_type, state, body in [(Model, Model(n=1), b'{"n":1}'), (list[kind], [read(2)], b"[2]")]:
        codec: StateCodec[Any] = StateCodec(
            state_type, schema_version=1, migrations={}, compression=None, max_bytes=1000
        )
        assert codec.encode(state).data == body


def test_a_value_that_contains_itself_is_looked_through_once() -> None:
    """However often it does, and wherever the iterator is."""
    around: list[Any] = []
    around += [around] * 1000 + [{"a": around, "b": [around]}]
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert first_one_shot(around, "$") is None
    assert first_one_shot(deep, "$") is None
    around[-1]["c"] = iter([])
    assert first_one_shot(around, "$") is not None
