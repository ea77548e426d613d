"""Generated types and values: each comes back the same, or is refused; equal ones are one, however they were built."""

from __future__ import annotations

import dataclasses
import os
import pickle
import random
import subprocess
import sys
from collections import deque
from copy import deepcopy
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PrivateAttr, computed_field, create_model
from typing_extensions import TypedDict

from s3_checkpoint import StateEncodingError
from s3_checkpoint._format.codec import StateCodec
from s3_checkpoint._format.json_codec import Body
from tests.format.test_round_trip import (
    NEW_YORK,
    Base,
    Colour,
    Derived,
    Hidden,
    Items,
    Mode,
    Number,
    Table,
    Text,
    shape,
)

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
MOMENTS = st.datetimes(datetime(1980, 1, 1), datetime(2080, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ODD = st.sampled_from(
    [
        *(float("nan"), float("inf"), Text("x"), Number(3), Items([1]), Table(a=1), (1, "2"), {1, 2}, {1: 2}, b"x", 1j),
        *(Decimal("1.50"), Colour.RED, Mode.FAST, Derived(), Base(), Hidden(1, (1,)), deque([1], maxlen=2), True),
        *(datetime(2026, 1, 1, tzinfo=NEW_YORK), datetime(2026, 1, 1, fold=1), UUID(int=3), [Text("y")]),  # noqa: DTZ001
        {"deep": [{"er": (1,)}]},
    ]
)
"""Values that few types give back."""
NAMES = ["first", "second", "third"]


class Box(BaseModel, Generic[T]):
    content: T


@dataclasses.dataclass
class Kind:
    """A type, how values of it are drawn, and how they are made without being looked at."""

    type: Any
    values: st.SearchStrategy[Any]


LEAVES = st.sampled_from(
    [
        Kind(int, st.integers(-(10**20), 10**20)),
        Kind(float, FLOATS),
        Kind(str, TEXT),
        Kind(bool, st.booleans()),
        Kind(Decimal, st.decimals(allow_nan=False, allow_infinity=False)),
        Kind(datetime, MOMENTS),
        Kind(UUID, st.uuids()),
        Kind(Colour, st.sampled_from(Colour)),
        Kind(JsonValue, JSON),
        Kind(Any, JSON),
        Kind(set[int], st.sets(st.integers(), max_size=4)),
        Kind(int | str, st.integers() | TEXT),
    ]
)


def _model(fields: list[Kind], *, aliased: bool, extra: bool) -> Kind:
    class Parent(BaseModel):
        model_config = ConfigDict(extra="allow" if extra else "ignore")
        _seen: dict[str, int] = PrivateAttr(default_factory=dict)

        @computed_field  # type: ignore[prop-decorator]
        @property
        def count(self) -> int:
            return len(self.model_fields_set)

    named = dict(zip(NAMES, fields, strict=False))
    more: dict[str, Any] = {
        name: (kind.type, Field(alias=name.upper()) if aliased else ...) for name, kind in named.items()
    }
    model = create_model("Model", __base__=Parent, **more)
    others = st.dictionaries(st.sampled_from(["x", "y"]), JSON, max_size=2) if extra else st.just({})
    given_values = st.fixed_dictionaries({name: kind.values for name, kind in named.items()})
    return Kind(model, st.builds(lambda mine, theirs: model.model_construct(**mine, **theirs), given_values, others))


def _dataclass(fields: list[Kind], *, slots: bool) -> Kind:
    named = dict(zip(NAMES, fields, strict=False))
    made = dataclasses.make_dataclass(
        "Data",
        [(name, kind.type, dataclasses.field(compare=name != "second")) for name, kind in named.items()],
        slots=slots,
    )
    return Kind(made, st.builds(made, **{name: kind.values for name, kind in named.items()}))


def _typed_dict(fields: list[Kind]) -> Kind:
    named = dict(zip(NAMES, fields, strict=False))
    made = TypedDict("Made", {name: kind.type for name, kind in named.items()})  # type: ignore[misc]
    return Kind(made, st.fixed_dictionaries({name: kind.values for name, kind in named.items()}))


def _larger(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.builds(lambda kind: Kind(list[kind.type], st.lists(kind.values, max_size=3)), inner),  # type: ignore[name-defined]
        st.builds(lambda kind: Kind(dict[str, kind.type], st.dictionaries(TEXT, kind.values, max_size=3)), inner),  # type: ignore[name-defined]
        st.builds(lambda one, two: Kind(tuple[one.type, two.type], st.tuples(one.values, two.values)), inner, inner),  # type: ignore[name-defined]
        st.builds(lambda kind: Kind(kind.type | None, kind.values | st.none()), inner),
        st.builds(lambda one, two: Kind(one.type | two.type, one.values | two.values), inner, inner),
        st.builds(
            lambda kind: Kind(
                Box[kind.type],  # type: ignore[name-defined]
                kind.values.map(lambda value: Box[kind.type].model_construct(content=value)),  # type: ignore[name-defined]
            ),
            inner,
        ),
        st.builds(
            lambda fields, aliased, extra: _model(fields, aliased=aliased, extra=extra),
            some,
            st.booleans(),
            st.booleans(),
        ),
        st.builds(_dataclass, some, slots=st.booleans()),
        st.builds(_typed_dict, some),
    )


KINDS = st.recursive(LEAVES, _larger, max_leaves=6)


def codec(type_: Any) -> StateCodec[Any]:
    return StateCodec(type_, schema_version=1, migrations={}, compression=None, max_bytes=10_000_000)


def places(value: Any) -> list[Any]:
    """Containers in `value` that can be changed: as functions that put something into one."""
    found: list[Any] = []
    if isinstance(value, BaseModel) or dataclasses.is_dataclass(value):
        names = (
            list(type(value).model_fields)
            if isinstance(value, BaseModel)
            else [f.name for f in dataclasses.fields(value)]
        )
        for name in names:
            found += [lambda new, name=name: object.__setattr__(value, name, new), *places(getattr(value, name))]
    elif isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            found += [lambda new, key=key: value.__setitem__(key, new), *places(value[key])]
    return found


@given(kind=KINDS, data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_generated_value_comes_back_the_same_or_is_refused(kind: Kind, data: st.DataObject) -> None:
    """Odd values are put into it at random places, past all validation."""
    value = data.draw(kind.values)
    holder = {"state": [value] * data.draw(st.sampled_from([1, 1, 20]))}
    for _ in range(data.draw(st.integers(0, 2))):
        data.draw(st.sampled_from(places(holder)))(deepcopy(data.draw(ODD)))
    before = shape(holder)
    either = codec(dict[str, list[kind.type]])  # type: ignore[name-defined]

    refused: StateEncodingError | None = None
    try:
        body = either.encode(holder)
    except StateEncodingError as error:
        refused = error
    if refused is not None:
        assert refused.path.startswith("$.state")
        assert shape(holder) == before
        return

    assert shape(either.round_trip(body)) == before
    assert either.same(either.round_trip(body), either.round_trip(either.encode(holder)))


@given(kind=KINDS, data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_two_generated_values_are_the_same_only_if_they_are(kind: Kind, data: st.DataObject) -> None:
    """By rules of the test's own."""
    either = codec(dict[str, list[kind.type]])  # type: ignore[name-defined]
    try:
        one, other = (
            either.round_trip(either.encode({"state": data.draw(st.lists(kind.values, min_size=1, max_size=2))}))
            for _ in range(2)
        )
    except StateEncodingError:
        return

    assert either.same(one, other) == (shape(one) == shape(other))


class Agent(BaseModel):
    name: str
    tags: set[str] = set()
    scores: dict[str, float] = {}
    seen: frozenset[int] = frozenset()
    notes: dict[str, Any] = {}


def agents(seed: int, *, order: int) -> list[dict[str, Agent]]:
    """States that `seed` alone decides; `order` only how they are built."""
    chance, turn = random.Random(seed), random.Random(order)

    def shuffled(items: list[Any]) -> list[Any]:
        return turn.sample(items, len(items))

    states = []
    for _ in range(20):
        entries = []
        for number in range(chance.randrange(1, 4)):
            tags = [f"tag-{chance.randrange(1000)}" for _ in range(8)]
            scores = {f"s{n}": chance.choice([n, float(n)]) if order % 2 else float(n) for n in range(5)}
            notes = {f"n{n}": {"a": chance.random(), "b": [n]} for n in range(5)}
            agent = Agent.model_construct(
                name=f"agent {number}",
                tags=set(shuffled(tags)),
                scores=dict(shuffled(list(scores.items()))),
                seen=frozenset(shuffled([chance.randrange(10**6) for _ in range(5)])),
                notes={name: dict(shuffled(list(note.items()))) for name, note in shuffled(list(notes.items()))},
            )
            entries.append((f"k{number}", agent))
        states.append(dict(shuffled(entries)))
    return states


def test_equal_states_of_processes_with_other_hash_seeds_are_the_same() -> None:
    """Sets and dicts built in other orders, under other hash seeds; random unequal states are never the same."""
    program = (
        "import sys, pickle; from tests.format.test_round_trip_properties import agents, codec, Agent;"
        "c = codec(dict[str, Agent]); o = int(sys.argv[1]);"
        "sys.stdout.buffer.write(pickle.dumps([c.encode(state).data for state in agents(7, order=o)]))"
    )
    written = [
        subprocess.run(
            [sys.executable, "-c", program, str(order)],
            env=os.environ | {"PYTHONHASHSEED": str(order), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for order in (2, 4)
    ]
    either = codec(dict[str, Agent])
    one, other = ([either.round_trip(Body(data, "", None)) for data in pickle.loads(bodies)] for bodies in written)

    assert written[0] != written[1]  # else nothing was tried
    for place, state in enumerate(one):
        for rival, another in enumerate(other):
            assert either.same(state, another) == (place == rival)
