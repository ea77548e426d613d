"""The size of a state's JSON, estimated: what goes into a thread and into chunks, and once for each save."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from s3_checkpoint._format.size_estimate import LARGE_BYTES, estimated_bytes


class Model(BaseModel):
    text: str


class Plain:
    """Any object with attributes."""

    def __init__(self, inside: object) -> None:
        self.inside = inside


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("value", "large"),
    [
        ("x" * LARGE_BYTES, True),
        ("x" * 1000, False),
        ({"a": [{"b": "x" * LARGE_BYTES}]}, True),
        ([None] * LARGE_BYTES, True),
        ({str(n): n for n in range(LARGE_BYTES)}, True),
        ({f"{n:02000}": n for n in range(100)}, True),  # it is the names that are large
        ({"x" * LARGE_BYTES: 1}, True),
        ([{"x" * 200: 1}] * 1000, True),
        ({f"{n:02000}": n for n in range(10)}, False),
        (Model(text="x" * LARGE_BYTES), True),
        (Plain(Plain("x" * LARGE_BYTES)), True),
        (ENDLESS, False),  # is refused whatever its size
        ([ENDLESS] * 16, False),
        ([{"a": n, "b": [n]} for n in range(10_000)], True),
        ([{"a": n, "b": [n]} for n in range(100)], False),
        (None, False),
        (7, False),
        ([1.5] * 100, False),
    ],
)
def test_size_is_estimated_from_what_is_inside(value: object, large: bool) -> None:
    """Text and names by their length, all else by its number; without end for no value."""
    assert (estimated_bytes(value, LARGE_BYTES) >= LARGE_BYTES) is large


@pytest.mark.parametrize(
    "value",
    [
        {"rows": [{"id": n, "name": "n" * 30} for n in range(500)]},
        {f"{n:040}": [n, n] for n in range(900)},
        [["t" * 100] * 9 for _ in range(70)],
        Model(text="x" * 4000).model_dump(),
    ],
)
def test_the_estimate_is_within_a_half_and_double(value: object) -> None:
    """For values whose parts are alike."""
    import json

    size = len(json.dumps(value, separators=(",", ":")))
    assert size / 2 < estimated_bytes(value, 10**9) < size * 2
