"""Differences lead from one value to the other, and there are none between equals."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_checkpoint._format.json_diff import Change, differences, same

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5]) | st.text("ab", max_size=2)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=12,
)


def applied(before: Any, changes: list[Change]) -> Any:
    """`before` with the changes made: removals from the back, then changes, then additions in their order."""
    value = [copy.deepcopy(before)]
    order = {"removed": 0, "changed": 1, "added": 2}
    removals = [change for change in changes if change.kind == "removed"][::-1]
    others = sorted((c for c in changes if c.kind != "removed"), key=lambda change: order[change.kind])
    for change in removals + others:
        holder: Any = value
        path: tuple[Any, ...] = (0, *change.path)
        for key in path[:-1]:
            holder = holder[key]
        if change.kind == "removed":
            del holder[path[-1]]
        elif change.kind == "added" and isinstance(holder, list):
            holder.insert(path[-1], change.after)
        else:
            holder[path[-1]] = change.after
    return value[0]


@given(VALUES, VALUES)
def test_the_changes_lead_from_one_to_the_other(before: Any, after: Any) -> None:
    """For any two values."""
    assert same(applied(before, list(differences(before, after))), after)


@given(VALUES)
def test_equal_values_have_no_differences(value: Any) -> None:
    """Whatever the order of keys."""
    assert list(differences(value, copy.deepcopy(value))) == []


@given(VALUES, VALUES)
def test_differences_are_told(one: Any, other: Any) -> None:
    """`same` and `differences` agree."""
    assert (list(differences(one, other)) == []) == same(one, other)


@pytest.mark.parametrize(
    ("before", "after", "path", "kind"),
    [
        ([1, 2, 3], [1, 9, 2, 3], "$[1]", "added"),
        ([1, 2, 3], [1, 3], "$[1]", "removed"),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}, "$.a[0].b", "changed"),
        ({"a b": 1}, {}, "$['a b']", "removed"),
        (1, 1.0, "$", "changed"),
        (1, True, "$", "changed"),
        (0, None, "$", "changed"),
    ],
)
def test_one_difference_is_one_change(before: Any, after: Any, path: str, kind: str) -> None:
    """An element inserted or removed is not a change of each that follows."""
    [change] = differences(before, after)

    assert (change.where(), change.kind) == (path, kind)


def test_nan_is_the_same_as_nan() -> None:
    """Though no number is less equal to itself."""
    assert list(differences([float("nan")], [float("nan")])) == []
