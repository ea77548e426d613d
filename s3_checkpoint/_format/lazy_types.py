"""Types that pydantic reads lazily: a value of one can be read only once, so a save would use up the state.

`Iterable[…]` and `Generator[…]` become one-shot iterators when they are validated. That is seen in the core schema of
the type, through which pydantic reads; where in it, is told as the path that values would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from s3_checkpoint._format.json_paths import json_step

_NOT_VALUES: Final = frozenset(
    {"metadata", "serialization", "keys_schema", "config", "function", "cls", "default", "expected", "members"}
)
"""Of a schema: what decides nothing about how values are read, data of the application's, and keys, which are texts."""


def first_lazy(schema: Mapping[str, Any]) -> str | None:
    """The path of the first value that a core schema reads lazily; None if there is none.

    Source: "pydantic_core.core_schema", pydantic's API reference.
    """
    definitions: dict[str, Any] = {}
    seen: set[int] = set()
    todo: list[tuple[Any, str]] = [(schema, "$")]
    while todo:
        part, path = todo.pop()
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        if part.get("type") == "definitions":
            definitions |= {one["ref"]: one for one in part["definitions"]}
        if _is_lazy(part):
            return path
        if part.get("type") == "definition-ref":
            todo.append((definitions.get(part["schema_ref"]), path))
        else:
            todo += reversed([(inner, path + step) for inner, step in _parts(part)])
    return None


def _is_lazy(schema: Mapping[str, Any]) -> bool:
    if schema.get("type") == "is-instance":  # where a model allows arbitrary types
        return isinstance(schema.get("cls"), type) and issubclass(schema["cls"], Iterator)
    return schema.get("type") == "generator"


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """The schemas inside of one, each with the step from its values to theirs."""
    kind = schema.get("type")
    if kind in ("model-fields", "typed-dict"):
        yield from ((field["schema"], json_step(name)) for name, field in schema["fields"].items())
        yield schema.get("extras_schema"), ".*"
    elif kind == "dataclass-args":
        yield from ((field["schema"], json_step(field["name"])) for field in schema["fields"])
    elif kind == "tuple":
        yield from ((part, f"[{index}]") for index, part in enumerate(schema["items_schema"]))
    elif kind in ("list", "set", "frozenset"):
        yield schema.get("items_schema"), "[*]"
    elif kind == "dict":
        yield schema.get("values_schema"), ".*"
    elif kind == "arguments":  # of a named tuple
        yield from ((part["schema"], json_step(part["name"])) for part in schema["arguments_schema"])
    elif kind != "definitions":
        yield from ((part, "") for name in schema if name not in _NOT_VALUES for part in _schemas(schema[name]))
    else:
        yield schema["schema"], ""


def _schemas(value: Any) -> Iterable[Any]:
    """The schemas that an entry of a schema holds: it may be one, or several, or the choices of a tagged union."""
    if isinstance(value, Mapping) and "type" not in value:
        return value.values()
    if isinstance(value, list | tuple):
        return [part[0] if isinstance(part, tuple) else part for part in value]  # a choice may have a label
    return [value]
