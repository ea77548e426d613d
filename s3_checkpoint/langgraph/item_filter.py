"""Which items a search keeps, and which namespaces a listing: LangGraph's filters and match conditions. Pure.

As its `InMemoryStore` compares, but for two things. What cannot be ordered (an item that lacks the field) does not
match, where `InMemoryStore` fails with a `TypeError`; and text that is no number is ordered as text, so that dates in
ISO 8601 can be compared.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langgraph.store.base import MatchCondition

from s3_checkpoint.errors import InvalidArgumentError

_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_EQUALITIES: Mapping[str, Callable[[Any, Any], bool]] = {"$eq": operator.eq, "$ne": operator.ne}


def check_filter(wanted: object) -> None:
    """Raises `InvalidArgumentError` for a filter that cannot be: an unknown operator, a bound that has no order."""
    if not isinstance(wanted, Mapping):
        raise InvalidArgumentError("filter", type(wanted).__name__, "must be a dict")
    for condition in wanted.values():
        _check_condition(condition)


def _check_condition(condition: object) -> None:
    if isinstance(condition, list | tuple):
        for part in condition:
            _check_condition(part)
    elif isinstance(condition, Mapping):
        if not _has_operators(condition):
            check_filter(condition)
            return
        for name, bound in condition.items():
            if name not in _ORDERS and name not in _EQUALITIES:
                known = ", ".join((*_EQUALITIES, *_ORDERS))
                raise InvalidArgumentError("filter", ascii(name)[:80], f"knows the operators {known}")
            if name in _ORDERS and not isinstance(bound, int | float | str):
                raise InvalidArgumentError("filter", f"{name}: {type(bound).__name__}", "orders numbers and text alone")


def matches(value: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an item's value meets every condition of a filter that `check_filter` has passed."""
    return all(_meets(value.get(field), condition) for field, condition in wanted.items())


def _meets(found: Any, condition: Any) -> bool:
    if isinstance(condition, Mapping):
        if _has_operators(condition):
            return all(_compare(found, name, bound) for name, bound in condition.items())
        return isinstance(found, Mapping) and matches(found, condition)
    if isinstance(condition, list | tuple):
        same_length = isinstance(found, list | tuple) and len(found) == len(condition)
        return same_length and all(map(_meets, found, condition))
    return bool(found == condition)


def _has_operators(condition: Mapping[Any, Any]) -> bool:
    return any(isinstance(name, str) and name.startswith("$") for name in condition)


def _compare(found: Any, name: str, bound: Any) -> bool:
    if name in _EQUALITIES:
        return _EQUALITIES[name](found, bound)
    numbers = _number(found), _number(bound)
    if None not in numbers:
        return _ORDERS[name](*numbers)
    return isinstance(found, str) and isinstance(bound, str) and _ORDERS[name](found, bound)


def _number(value: Any) -> float | None:
    """As `float` reads it, text too; None for what it does not."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def check_condition(condition: MatchCondition) -> None:
    """Raises `InvalidArgumentError` for a match condition that is of no known type."""
    if condition.match_type not in ("prefix", "suffix"):
        raise InvalidArgumentError("match_type", ascii(condition.match_type)[:80], "must be 'prefix' or 'suffix'")


def namespace_matches(namespace: Sequence[str], condition: MatchCondition) -> bool:
    """Whether the namespace begins, or ends, with the path; `*` in it is any one label."""
    path = condition.path
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for label, wanted in zip(part, path, strict=True))


def literal_prefix(conditions: Sequence[MatchCondition]) -> tuple[str, ...]:
    """The longest namespace that all matches begin with, as the conditions alone tell."""
    longest: tuple[str, ...] = ()
    for condition in conditions:
        if condition.match_type == "prefix":
            path = tuple(condition.path)
            literal = path[: path.index("*")] if "*" in path else path
            longest = max(longest, literal, key=len)
    return longest
