"""The same is the same: two states that their type calls equal are one, however they were built; others never are."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections import OrderedDict
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import AnyUrl, BaseModel, JsonValue
from typing_extensions import TypedDict

from s3_checkpoint import ActiveSnapshot, MemoryStore, S3Checkpointer, S3Settings, StepConflictError
from s3_checkpoint._format.codec import StateCodec
from s3_checkpoint._format.keys import RunKeys
from tests.states import RUN


def codec(type_: Any) -> StateCodec[Any]:
    return StateCodec(type_, schema_version=1, migrations={}, compression=None, max_bytes=1_000_000)


def same(type_: Any, one: Any, other: Any) -> bool:
    either = codec(type_)
    return either.same(either.round_trip(either.encode(one)), either.round_trip(either.encode(other)))


class Scored(TypedDict):
    score: float


@dataclasses.dataclass
class Hidden:
    shown: int
    hidden: Any = dataclasses.field(default=None, compare=False)


class Color(Enum):
    RED = 1
    BLUE = 2


class ById(BaseModel):
    n: int
    tags: set[str] = set()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]


EQUAL: list[tuple[Any, Any, Any]] = [
    (dict[str, JsonValue], {"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}),
    (Scored, {"score": 1.0}, {"score": 1}),
    (dict[str, float], {"a": 1.0}, {"a": 1}),
    (set[str], set("abcdefgh"), set("hgfedcba")),
    (Hidden, Hidden(1, {"a": 1, "b": 2}), Hidden(1, {"b": 2, "a": 1})),
    (ById, ById(n=1, tags={"x", "y"}), ById(n=1, tags={"y", "x"})),
]


@pytest.mark.parametrize(("type_", "one", "other"), EQUAL)
def test_equal_states_are_the_same_however_they_were_built(type_: Any, one: Any, other: Any) -> None:
    """The order of keys and of sets, and `1` for `1.0` where the type says `float`, make no other state."""
    assert same(type_, one, other)
    assert same(type_, other, one)


OTHER: list[tuple[Any, Any, Any]] = [
    (dict[str, UUID], {"a": UUID(int=1)}, {"a": UUID(int=2)}),
    (dict[str, list[UUID]], {"a": [UUID(int=1)]}, {"a": [UUID(int=2)]}),
    (dict[str, PurePosixPath], {"a": PurePosixPath("/x")}, {"a": PurePosixPath("/y")}),
    (dict[str, IPv4Address], {"a": IPv4Address("10.0.0.1")}, {"a": IPv4Address("10.0.0.2")}),
    (dict[str, IPv6Network], {"a": IPv6Network("fd00::/64")}, {"a": IPv6Network("fd00::/65")}),
    (dict[str, Fraction], {"a": Fraction(1, 3)}, {"a": Fraction(1, 4)}),
    (dict[str, re.Pattern[str]], {"a": re.compile("x")}, {"a": re.compile("y")}),
    (dict[str, AnyUrl], {"a": AnyUrl("https://a.example")}, {"a": AnyUrl("https://b.example")}),
    (dict[str, Decimal], {"a": Decimal("1.0")}, {"a": Decimal("1.00")}),
    (dict[str, timedelta], {"a": timedelta(1)}, {"a": timedelta(2)}),
    (dict[str, Color], {"a": Color.RED}, {"a": Color.BLUE}),
    (set[UUID], {UUID(int=1)}, {UUID(int=2)}),
    (dict[str, JsonValue], {"a": 1}, {"a": 1.0}),
    (dict[str, JsonValue], {"a": 1}, {"a": True}),
    (dict[str, JsonValue], {"a": 0.0}, {"a": -0.0}),
    (dict[str, JsonValue], {"a": [1, 2]}, {"a": [2, 1]}),
    (dict[str, JsonValue], {"a": [1, 2]}, {"a": [1]}),
    (dict[str, JsonValue], {"a": None}, {}),
    (OrderedDict[str, int], OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
    (Hidden, Hidden(1, "x"), Hidden(1, "y")),
    (ById, ById(n=1), ById(n=2)),
    (int | float, 1, 1.0),
]


@pytest.mark.parametrize(("type_", "one", "other"), OTHER)
def test_other_states_are_never_the_same(type_: Any, one: Any, other: Any) -> None:
    """Nothing less than the same type and value at every node will do, whether or not `==` looks there."""
    assert not same(type_, one, other)
    assert not same(type_, other, one)


@pytest.mark.parametrize(("type_", "one", "other"), EQUAL)
async def test_a_commit_of_an_equal_state_is_a_success(type_: Any, one: Any, other: Any) -> None:
    """Whichever of the two was first; what is stored stays as it is, and tasks count as well."""
    for first, second in ((one, other), (other, one)):
        store = MemoryStore()
        checkpointer = S3Checkpointer(type_, store)
        tasks = [ActiveSnapshot(node_name="a", payload={"x": 1, "y": [2]})]
        reordered = [ActiveSnapshot(node_name="a", payload={"y": [2], "x": 1})]
        await checkpointer.commit(RUN, 0, first, tasks)
        stored = await store.get(RunKeys("", RUN).state(0), max_bytes=10_000)

        await checkpointer.commit(RUN, 0, second, reordered)

        assert await store.get(RunKeys("", RUN).state(0), max_bytes=10_000) == stored
        with pytest.raises(StepConflictError):
            await checkpointer.commit(RUN, 0, second, [ActiveSnapshot(node_name="b")])


@pytest.mark.parametrize(("type_", "one", "other"), OTHER)
async def test_a_commit_of_another_state_is_a_conflict(type_: Any, one: Any, other: Any) -> None:
    """Though `==` may call the two equal."""
    for first, second in ((one, other), (other, one)):
        checkpointer = S3Checkpointer(type_, MemoryStore())
        await checkpointer.commit(RUN, 0, first, [])

        with pytest.raises(StepConflictError):
            await checkpointer.commit(RUN, 0, second, [])


def committed_by_a_process(settings: S3Settings, hash_seed: int, *arguments: str) -> list[str]:
    """What `identity_worker` says of each step, run with this hash seed."""
    given = {
        "BUCKET": settings.bucket,
        "ENDPOINT_URL": str(settings.endpoint_url),
        "REGION_NAME": "us-east-1",
        "ACCESS_KEY_ID": "testing",
        "SECRET_ACCESS_KEY": "testing",
    }
    environment = {**os.environ, **{f"S3_CHECKPOINT_{name}": value for name, value in given.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "tests.format.identity_worker", *arguments],
        env={**environment, "PYTHONHASHSEED": str(hash_seed)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_processes_with_other_hash_seeds_agree_on_what_is_the_same(settings: S3Settings) -> None:
    """Equal states built in other orders commit as the same step; states with one difference never do."""
    run_id, steps = str(uuid4()), 15

    first = committed_by_a_process(settings, 1, run_id, "seed", "order-a", str(steps))
    again = committed_by_a_process(settings, 2, run_id, "seed", "order-b", str(steps))
    other = committed_by_a_process(settings, 3, run_id, "seed", "order-c", str(steps), "other")

    assert first == ["wrote"] * steps
    assert again == ["same"] * steps
    assert other == ["conflict"] * steps
