"""Where in a value the place is that cannot be written as JSON, or cannot be read again, and why.

Asked only when writing or reading back has failed; what it costs does not matter much.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from typing import Any, Final

from pydantic import BaseModel, RootModel
from pydantic_core import from_json, to_json

from s3_checkpoint._format.foreign_errors import raised
from s3_checkpoint._format.json_paths import json_step
from s3_checkpoint._format.round_trip import Difference, first_difference

Dump = Callable[[Any, Any], object]
"""Writes a value, or the parts of it that the second argument names in pydantic's form; raises if it cannot be."""
_DEEPEST: Final = 200
"""More levels than this no reader of JSON in pydantic takes."""
_LONGEST_SEARCH: Final = 4 * 1024**2
"""Bytes of JSON that are read again and again to find the place that fails."""
_KEY_OF_NOTHING: Final = object()
"""A key that nothing has."""
_GARBAGE: Final = ({"\x00": "in the place of what may be at fault"}, 0.5)
"""In the place of a leaf, and of a container: of another kind, so that its type refuses it before other code has it."""


def unwritable(value: object, root: str, error: Exception, dump: Dump) -> Difference:
    """The place that makes writing `value` fail with `error`."""
    keys: list[Any] = []
    path, node, above = root, value, [value]
    while len(keys) < _DEEPEST:
        parts = {key: (step, part) for key, step, part in _parts(node)}
        failing = _failing(list(parts), _without_others(value, keys, node, dump)) if parts else None
        if failing is None:
            break
        step, node = parts[failing]
        keys.append(failing)
        path += step
        if any(node is one for one in above):
            return Difference(path, "it contains itself")
        above.append(node)
    else:
        return Difference(path, "it is nested too deeply")
    if keys and isinstance(keys[-1], str) and (reason := _why_not_json(keys[-1])):
        return Difference(path, f"its key {reason}")
    if "Error calling function" in str(error):  # pydantic-core's words for a serializer that raises
        return Difference(path, f"its serializer fails ({raised(error)})")
    return first_unencodable(node, path) or Difference(path, f"it cannot be written ({raised(error)})")


def _without_others(value: Any, keys: list[Any], node: Any, dump: Dump) -> Callable[[list[Any]], bool]:
    """Whether writing `value` fails though of `node`, to which `keys` lead, only some parts are left."""
    if type(node) is list:

        def fails(some: list[Any]) -> bool:
            # As a shorter list; pydantic takes long to leave out many items of one.
            return _fails(dump, _with(value, keys, [node[index] for index in some]), _include(keys))
    else:

        def fails(some: list[Any]) -> bool:
            return _fails(dump, value, _include([*keys, set(some)]))

    # What fails with nothing in it fails by itself: its own serializer does.
    return (lambda _: False) if fails([] if type(node) is list else [_KEY_OF_NOTHING]) else fails


def _with(value: Any, keys: list[Any], part: Any) -> Any:
    """A copy of `value` with `part` at the place that `keys` lead to; what is not on the way there is not copied."""
    if not keys:
        return part
    if isinstance(value, RootModel):
        return value.model_copy(update={"root": _with(value.root, keys, part)})
    key, *more = keys
    inner = next(one for name, _, one in _parts(value) if name == key)
    changed = _with(inner, more, part)
    if isinstance(value, BaseModel):
        return value.model_copy(update={key: changed})
    copied = list(value) if isinstance(value, tuple) else copy(value)
    if isinstance(copied, dict | list):
        copied[key] = changed
    else:
        object.__setattr__(copied, key, changed)
    return copied


def unreadable(value: object, root: str) -> Difference:
    """The place that makes the JSON of `value` no JSON for a reader: too deep, or a number too long."""
    return first_unencodable(value, root) or Difference(root, "its JSON cannot be read again")


def failing_to_read(data: bytes, root: str, error: Exception, read: Callable[[bytes], object]) -> str:
    """The path of the place in the JSON `data` that makes reading it fail with `error`, which is none of pydantic's."""
    path = root
    if len(data) > _LONGEST_SEARCH:
        return path
    value = from_json(data)
    place, key = [value], 0

    def still_fails() -> bool:
        try:
            read(to_json(value))
        except Exception as other:  # noqa: BLE001 - an application's; only whether it is the same one matters
            return type(other) is type(error)
        return False

    while True:
        node = place[key]
        keys = list(node if isinstance(node, dict) else range(len(node))) if isinstance(node, dict | list) else []

        def harmless_without(some: Iterable[Any], node: Any = node) -> bool:
            kept = {one: node[one] for one in some}
            for one in kept:
                node[one] = _GARBAGE[isinstance(kept[one], dict | list)]
            try:
                return not still_fails()
            finally:
                for one, part in kept.items():
                    node[one] = part

        failing = _failing(keys, harmless_without) if keys else None
        if failing is None:
            return path
        path += json_step(failing)
        place, key = node, failing


def keys_of_misfit(location: Iterable[int | str], data: bytes | bytearray, *, missing: bool) -> list[int | str]:
    """The keys that lead through the JSON `data` to a location that pydantic gives.

    Pydantic names the branches of unions and validators too; they are no places in the data. The last step of a
    location leads to what is `missing` there, if something is.
    """
    try:
        value: Any = from_json(bytes(data))
    except ValueError:
        return []
    keys, parts = [], list(location)
    for number, part in enumerate(parts, 1):
        key = part if isinstance(value, list) else str(part)
        found = isinstance(value, dict) and key in value
        if found or (isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value)):
            value = value[key]
            keys.append(key)
        elif missing and number == len(parts):
            keys.append(part)
    return keys


def lost_on_the_way(value: object, keys: Iterable[int | str], data: bytes, path: str) -> Difference | None:
    """What JSON makes of the leaf of `value` that `keys` lead to; None if it is none, or JSON has it as it is."""
    written = from_json(data)
    for key in keys:
        if isinstance(value, set | frozenset | deque):
            value = [*value]  # in the order in which they were written
        found = [part for one, _, part in _parts(value) if str(one) == str(key)]
        if not found:
            return Difference(path, "it is under a key that is not a string; use strings") if _odd_keys(value) else None
        value = found[0]
        try:
            written = written[key]
        except (LookupError, TypeError):
            return None
    if isinstance(written, dict | list) or any(_parts(value)):
        return None
    return first_difference(value, written, path)


def _odd_keys(value: object) -> bool:
    return isinstance(value, Mapping) and not all(isinstance(key, str) for key in value)


def _failing(keys: list[Any], fails: Callable[[list[Any]], bool]) -> Any | None:
    """The first of `keys` that fails by itself; None if none does. Asks about twice as often as they can be halved."""
    while len(keys) > 1:
        first, second = keys[: len(keys) // 2], keys[len(keys) // 2 :]
        if fails(first):
            keys = first
        elif fails(second):
            keys = second
        else:
            return None
    return keys[0] if fails(keys) else None


def _fails(dump: Dump, value: object, include: object) -> bool:
    try:
        dump(value, include)
    except Exception:  # noqa: BLE001 - the same that failed before, or another
        return True
    return False


def _include(keys: list[Any]) -> Any:
    """Pydantic's form of "only this part of this part"; the last of `keys` may be the set of the innermost."""
    if not keys:
        return None
    nested: Any = keys[-1] if isinstance(keys[-1], set) else {keys[-1]}
    for key in reversed(keys[:-1]):
        nested = {key: nested}
    return nested


def first_unencodable(value: object, path: str, above: tuple[int, ...] = ()) -> Difference | None:
    """The first place inside `value` that cannot be written as JSON by itself, or not be read again; None if none is.

    `above`: the identities of the containers that `value` is inside of.
    """
    if id(value) in above:
        return Difference(path, "it contains itself")
    if len(above) > _DEEPEST:
        return Difference(path, "it is nested too deeply")
    for key in value if isinstance(value, Mapping) else ():
        if isinstance(key, str) and (reason := _why_not_json(key)):
            return Difference(path + json_step(key), f"its key {reason}")
    parts = list(_parts(value))
    for _, step, part in parts:
        difference = first_unencodable(part, path + step, (*above, id(value)))
        if difference:
            return difference
    taken_apart = bool(parts) and (isinstance(value, dict) or not isinstance(value, Mapping))
    reason = None if taken_apart else _why_not_json(value)
    return Difference(path, f"it {reason}") if reason else None


def _why_not_json(leaf: object) -> str | None:
    try:
        data = to_json(leaf)
    except UnicodeEncodeError:
        return "holds a lone surrogate"
    except ValueError as error:
        if "surrogates not allowed" in str(error):
            return "holds a lone surrogate"
        if isinstance(leaf, bytes | bytearray):
            return 'is bytes that are not UTF-8 text; set ser_json_bytes and val_json_bytes="base64", or store text'
        return f"has no form in JSON; annotate {type(leaf).__name__}, if pydantic knows it, or store what JSON has"
    try:
        from_json(data)
    except ValueError:
        return "has a form in JSON that cannot be read again; is it an int of thousands of digits?"
    return None


def _parts(value: object) -> Iterator[tuple[Any, str, Any]]:
    """The parts of a container, each with the key that pydantic has for it and its step in a JSON path."""
    if isinstance(value, RootModel):
        yield from _parts(value.root)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield name, json_step(name), value.__dict__.get(name)
        for name, extra in (value.model_extra or {}).items():
            yield name, json_step(name), extra
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield field.name, json_step(field.name), getattr(value, field.name, None)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key, json_step(key), item
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield index, f"[{index}]", item
    elif type(value).__eq__ is object.__eq__ and not isinstance(value, type):
        for name, item in getattr(value, "__dict__", {}).items():
            yield name, json_step(name), item
