"""Whether a value that was written and read back is the same, and if not, where it differs.

Equality decides (`==`), as the state's own types define it. Only where that says no are the two walked side by side, to
find the place and to forgive what JSON cannot be blamed for: NaN (unequal to itself) and private attributes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_json


class Difference(NamedTuple):
    """Where in the value, as a JSON path, and what happens to it there. Names types, never values."""

    path: str
    reason: str


def first_difference(before: object, after: object, path: str = "$") -> Difference | None:
    """The first place where `after` is not what `before` was; None if they are the same."""
    if _equal(before, after) or _both_nan(before, after):
        return None
    if type(before) is not type(after) and not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        return Difference(path, _changed_type(before, after))
    if isinstance(before, float | int | str | bytes | bytearray) or before is None:
        return Difference(path, f"a {type(before).__name__} comes back as another value")
    was, now = dict(_children(before)), dict(_children(after))
    for step, child in was.items():
        if step not in now:
            return Difference(path + step, _lost(before, step))
        difference = first_difference(child, now[step], path + step)
        if difference:
            return difference
    for step in now:
        if step not in was:
            return Difference(path + step, "it appears only when read back")
    if was or _compares_by_identity(before):
        return None
    return Difference(path, f"a {type(before).__name__} does not equal itself when read back")


def first_unencodable(value: object, path: str = "$") -> Difference | None:
    """The first place inside `value` that cannot be written as JSON at all; None if none is found."""
    return _first_unencodable(value, path, ())


def json_path(location: tuple[int | str, ...]) -> str:
    """A JSON path for the location of a pydantic error."""
    return "$" + "".join(_step(part) for part in location)


def _first_unencodable(value: object, path: str, above: tuple[int, ...]) -> Difference | None:
    if id(value) in above:
        return Difference(path, "it contains itself")
    if len(above) > 250:
        return Difference(path, "it is nested too deeply")
    for key in value if isinstance(value, Mapping) else ():
        if isinstance(key, str) and (reason := _why_not_json(key)):
            return Difference(path + _step(key), f"its key {reason}")
    children = list(_children(value))
    for step, child in children:
        difference = _first_unencodable(child, path + step, (*above, id(value)))
        if difference:
            return difference
    reason = None if children else _why_not_json(value)
    return Difference(path, f"it {reason}") if reason else None


def _why_not_json(leaf: object) -> str | None:
    try:
        to_json(leaf)
    except UnicodeEncodeError:
        return "holds a lone surrogate"
    except ValueError as error:
        if "surrogates not allowed" in str(error):
            return "holds a lone surrogate"
        return "is bytes that are not UTF-8 text" if isinstance(leaf, bytes | bytearray) else "has no form in JSON"
    return None


def _children(value: object) -> Iterator[tuple[str, Any]]:
    """The parts of a container, each with its step in a JSON path."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield _step(name), getattr(value, name, None)
        for name, extra in (value.model_extra or {}).items():
            yield _step(name), extra
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield _step(field.name), getattr(value, field.name, None)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield _step(key), item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif _compares_by_identity(value):
        for name, item in getattr(value, "__dict__", {}).items():
            yield _step(name), item


def _step(key: object) -> str:
    if isinstance(key, str):
        return f".{key}" if key.isidentifier() and key.isascii() else f"[{ascii(key)[:80]}]"
    return f"[{key}]" if isinstance(key, int) else f"[{ascii(key)[:80]}]"


def _equal(before: object, after: object) -> bool:
    try:
        return bool(before == after)
    except Exception:  # noqa: BLE001 - an `__eq__` that fails or answers with an array has not said "equal"
        return False


def _both_nan(before: object, after: object) -> bool:
    return isinstance(before, float) and isinstance(after, float) and math.isnan(before) and math.isnan(after)


def _compares_by_identity(value: object) -> bool:
    return type(value).__eq__ is object.__eq__


def _changed_type(before: object, after: object) -> str:
    if isinstance(before, float) and after is None:
        return f"{before} is not a JSON number and comes back as null"
    dropped = {step for step, _ in _children(before)} - {step for step, _ in _children(after)}
    fields = f", without {', '.join(sorted(step.lstrip('.') for step in dropped))}" if dropped else ""
    return f"a {type(before).__name__} comes back as a {type(after).__name__}{fields}"


def _lost(container: object, step: str) -> str:
    if isinstance(container, Mapping):
        keys = [key for key in container if _step(key) == step]
        if keys and not isinstance(keys[0], str):
            return f"its key is a {type(keys[0]).__name__}, not a string"
    return "it is not there when read back"
