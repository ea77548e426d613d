"""Iterators inside a value: they can be read only once, so a save that writes one has used up the caller's state.

Looked for before anything is written, and thus read. Pydantic writes an iterator as a list wherever a type leaves room
for one: under `Any`, in a field that was set without being validated.
"""

from __future__ import annotations

import dataclasses
import gc
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache, partial
from itertools import chain
from types import FunctionType, MappingProxyType, ModuleType, NoneType
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from s3_checkpoint._format.bulk_comparison import SLICE, is_part
from s3_checkpoint._format.json_paths import json_step
from s3_checkpoint._format.round_trip import Difference, attributes_of

_LEAVES: Final = frozenset(
    {NoneType, bool, int, float, complex, str, bytes, bytearray, date, datetime, time, timedelta, Decimal, UUID}
)
_LEAF_BASES: Final = (*(_LEAVES - {NoneType, bool}), Enum, type, FunctionType, ModuleType)
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset, deque, MappingProxyType})
"""The garbage collector knows what they refer to: their items, keys that are no strings, and nothing else."""
_CONTAINER_BASES: Final = (dict, list, tuple, set, frozenset, deque, Mapping)
_MANY: Final = 500_000
_DEEP: Final = 16
"""So many nodes, or levels, and each is looked at once only: the value may contain itself."""


def first_one_shot(value: object, path: str) -> Difference | None:
    """The place of the first iterator inside `value`, which is not read; None if there is none."""
    if not _holds_iterator(value):
        return None
    todo, seen = [(value, path)], set[int]()
    while todo:
        node, at = todo.pop()
        if _is_iterator(type(node)):
            reason = f"a {type(node).__name__} can be read only once, and a save would use it up; store a list"
            return Difference(at, reason)
        if id(node) not in seen and type(node) not in _LEAVES:
            seen.add(id(node))
            todo += reversed([(part, at + step) for step, part in _parts(node)])
    return None


def _holds_iterator(value: object) -> bool:
    level: list[Any] = [value]
    seen: set[int] = set()
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        below: list[Any] = []
        for start in range(0, len(level), SLICE):
            nodes = level[start : start + SLICE] if len(level) > SLICE else level
            kinds = {*map(type, nodes)} - _LEAVES
            if not kinds:
                continue
            if depth > _DEEP or count > _MANY:
                nodes = _not_seen(nodes, seen)
            if kinds <= _CONTAINERS:
                below += gc.get_referents(*nodes)
                continue
            for kind in kinds:
                if kind not in _CONTAINERS and (inside := _inside(kind)) is not _nothing:
                    if inside is None:
                        return True
                    below += inside([node for node in nodes if type(node) is kind] if len(kinds) > 1 else nodes)
            if not _CONTAINERS.isdisjoint(kinds):
                below += gc.get_referents(*[node for node in nodes if type(node) in _CONTAINERS])
        level = below
    return False


def _not_seen(nodes: Iterable[Any], seen: set[int]) -> list[Any]:
    found = {id(node): node for node in nodes if type(node) not in _LEAVES}
    for known in seen.intersection(found):
        del found[known]
    seen.update(found)
    return [*found.values()]


def _is_iterator(kind: type) -> bool:
    """Whether instances can be read only once; not those of a class that says itself how they are written or equal."""
    if not issubclass(kind, Iterator) or issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind):
        return False
    return kind.__eq__ is object.__eq__ and not hasattr(kind, "__get_pydantic_core_schema__")


@lru_cache(maxsize=1024)
def _inside(kind: type) -> Callable[[Sequence[Any]], Iterable[Any]] | None:
    """What gives the parts of all of some values of the type `kind`; None if they are iterators."""
    if issubclass(kind, _LEAF_BASES):
        return _nothing
    if issubclass(kind, BaseModel) and kind.model_config.get("extra") != "allow":
        return partial(_of_models, len(kind.model_fields))
    return None if _is_iterator(kind) else _of_others


def _nothing(_: Sequence[Any]) -> Iterable[Any]:
    return ()


def _of_models(count: int, nodes: Sequence[Any]) -> Iterable[Any]:
    """The parts of models of one class, which has `count` fields and no extra ones."""
    dicts = [node.__dict__ for node in nodes]
    if any(len(found) != count for found in dicts):  # some are missing, or there is more
        return _of_others(nodes)
    return chain.from_iterable([found.values() for found in dicts])


def _of_others(nodes: Sequence[Any]) -> Iterable[Any]:
    return (part for node in nodes for _, part in _parts(node))


def _parts(node: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a value that may be written, each with its step in a JSON path."""
    kind = type(node)
    if isinstance(node, BaseModel):
        found = {**node.__dict__, **(node.model_extra or {})}
        root = kind.__pydantic_root_model__
        for name, part in found.items():
            if name in kind.model_fields or is_part(kind, name):
                yield "" if root else json_step(name), part
        return
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        names = [field.name for field in dataclasses.fields(node)]
        yield from ((json_step(name), getattr(node, name)) for name in names if hasattr(node, name))
    else:
        names = []
    if isinstance(node, _CONTAINER_BASES):
        yield from _items(node)
    elif isinstance(node, _LEAF_BASES):
        return
    for name, part in attributes_of(node):
        if name not in names and not name.startswith("_"):
            yield json_step(name), part


def _items(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        yield from ((json_step(key), part) for key, part in node.items())
    elif isinstance(node, set | frozenset):
        yield from (("[*]", part) for part in node)
    else:
        yield from ((f"[{index}]", part) for index, part in enumerate(node))
