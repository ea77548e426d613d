"""Where in a value the place is that cannot be written as JSON, or not be read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from s3_checkpoint.fidelity import Difference
from s3_checkpoint.json_paths import json_step


def first_unencodable(value: object, path: str = "$") -> Difference | None:
    """The first place inside `value` that cannot be written as JSON at all; None if none is found."""
    return _first_unencodable(value, path, ())


def _first_unencodable(value: object, path: str, above: tuple[int, ...]) -> Difference | None:
    if id(value) in above:
        return Difference(path, "it contains itself")
    if len(above) > 250:
        return Difference(path, "it is nested too deeply")
    for key in value if isinstance(value, Mapping) else ():
        if isinstance(key, str) and (reason := _why_not_json(key)):
            return Difference(path + json_step(key), f"its key {reason}")
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
            yield json_step(name), getattr(value, name, None)
        for name, extra in (value.model_extra or {}).items():
            yield json_step(name), extra
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield json_step(field.name), getattr(value, field.name, None)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield json_step(key), item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif type(value).__eq__ is object.__eq__:
        for name, item in getattr(value, "__dict__", {}).items():
            yield json_step(name), item
