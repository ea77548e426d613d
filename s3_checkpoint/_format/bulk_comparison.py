"""Whether two values are the same, asked of many nodes in one call: what `round_trip` decides node by node, fast.

Values are put side by side in two columns: all the items of all the lists at one place, all the values of one field of
all the models of one class. Columns of one plain type are compared in a single call. What is not plain is compared in
pairs, by a function that is given; so nothing here calls two values the same that it would not.
"""

from __future__ import annotations

import dataclasses
import gc
import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from itertools import chain, repeat
from math import copysign
from types import FunctionType, MemberDescriptorType, NoneType
from typing import Any, Final, cast
from uuid import UUID

from pydantic import BaseModel, RootModel
from pydantic_core import TzInfo

Pairwise = Callable[[Any, Any], bool]
"""Whether two values are the same, with all that is in them."""

SLICE: Final = 20_000
"""Nodes that are compared in one go. It takes about a millisecond, in which no other thread has the interpreter."""
_TOP_LEVELS: Final = 4
_MANY: Final = 12
"""Parts of one container that are worth columns."""
_STR: Final = frozenset({str})
_JSON: Final = frozenset({dict, list, str, int, float, bool, NoneType})
_BY_EQUALITY: Final = frozenset({bool, int, str, bytes, bytearray, date, timedelta, UUID})
_FIXED_ZONES: Final = frozenset({timezone, TzInfo})
_BASES_WITH_CONTENT: Final = (str, bytes, bytearray, int, float, complex, Decimal, date, time, timedelta, tzinfo, UUID)
_DEEPEST: Final = 256
"""JSON cannot be read deeper; what is may contain itself, and is compared in pairs, with care for that."""
_dict_of: Final = operator.attrgetter("__dict__")
_zone_of: Final = operator.attrgetter("tzinfo")
_fold_of: Final = operator.attrgetter("fold")


def same_in_bulk(before: object, after: object, pairwise: Pairwise) -> bool:
    """Whether the two are the same."""
    bulk = _Bulk(pairwise)
    return bulk.items((before,), (after,)) and bulk.columns()


def same_plain_json(before: object, after: object) -> bool:
    """Whether JSON's own types alone make up `before`, and `after`, which was read from the JSON of it, equals it.

    JSON tells `1`, `1.0`, `true` and `-0.0` apart; so of what holds no other types, `==` sees all that can change.
    """
    count = _count_if_plain(before)
    return count is not None and _equal_in_slices(before, after, count, _TOP_LEVELS)


def _count_if_plain(value: object) -> int | None:
    """How many nodes make up `value`; None if one of them is of another type than JSON's own.

    Source: "gc.get_referents", Python library reference. The referents of a dict are its values, and its keys if they
    are not all strings; those of a list are its items; JSON's other types have none.
    """
    level, count = [value], 0
    while level:
        count += len(level)
        below: list[object] = []
        for start in range(0, len(level), SLICE):
            nodes = level[start : start + SLICE]
            if not _JSON.issuperset(map(type, nodes)):
                return None
            below += gc.get_referents(*nodes)
        level = below
    return count


def _equal_in_slices(before: Any, after: Any, count: int, levels: int) -> bool:
    """`before == after`, both of JSON's own types and `count` nodes, in calls that do not take long if that is many."""
    if count <= SLICE or not levels or type(before) not in (dict, list):
        return bool(before == after)
    if type(before) is not type(after) or len(before) != len(after):
        return False
    if type(before) is dict:
        if before.keys() != after.keys():
            return False
        before, after = list(before.values()), [after[key] for key in before]
    if len(before) < _MANY:
        return all(_equal_in_slices(one, other, count, levels - 1) for one, other in zip(before, after, strict=True))
    length = max(1, len(before) * SLICE // count)
    slices = range(0, len(before), length)
    return all(before[start : start + length] == after[start : start + length] for start in slices)


class _Bulk:
    """One comparison: few parts are taken one after another, many in columns."""

    def __init__(self, pairwise: Pairwise) -> None:
        self._pairwise = pairwise
        self._todo: list[tuple[Sequence[Any], Sequence[Any], int]] = []

    # The next three are one loop over what a container holds; written out, since a call for each part would double it.

    def items(self, before: Sequence[Any], after: Sequence[Any]) -> bool:
        """Whether two sequences of equal length have the same items; columns that are found are put on the list."""
        for one, other in zip(before, after):  # noqa: B905 - `strict` costs a tenth
            if one is other:
                continue
            kind = type(one)
            if kind is type(other) and (kind is str or kind is int):
                if one != other:
                    return False
            elif not self._part(kind, one, other):
                return False
        return True

    def _values(self, before: dict[Any, Any], after: dict[Any, Any]) -> bool:
        if not (len(before) == len(after) and _STR.issuperset(map(type, before)) and _STR.issuperset(map(type, after))):
            return self._pairwise(before, after)
        for key, one in before.items():
            if key not in after:
                return False
            other = after[key]
            if one is other:
                continue
            kind = type(one)
            if kind is type(other) and (kind is str or kind is int):
                if one != other:
                    return False
            elif not self._part(kind, one, other):
                return False
        return True

    def _fields(self, names: tuple[str, ...], before: Any, after: Any) -> bool:
        ours, theirs = before.__dict__, after.__dict__
        if not len(ours) == len(theirs) == len(names):
            return self._pairwise(before, after)
        for name in names:
            one, other = ours[name], theirs[name]
            if one is other:
                continue
            kind = type(one)
            if kind is type(other):
                if kind is str or kind is int or kind is bool:
                    if one != other:
                        return False
                    continue
                if kind is float and one == other != 0:
                    continue
            if not self._part(kind, one, other):
                return False
        return True

    def _part(self, kind: type, one: Any, other: Any) -> bool:
        """Whether two parts are the same that are no strings and no ints."""
        other_kind: type = type(other)
        if kind is not other_kind:
            return self._pairwise(one, other)
        if kind is float and one == other != 0:
            return True
        if kind is list or kind is tuple:
            if len(one) != len(other):
                return False
            if len(one) < _MANY:
                return self.items(one, other)
            self._todo.append((one, other, 0))
            return True
        if kind is dict:
            return self._values(one, other) if len(one) < _MANY else self._entries((one,), (other,), 0)
        if names := _fields_of(kind):
            try:
                return self._fields(names, one, other)
            except KeyError:  # a field is missing
                return self._pairwise(one, other)
        return self._of_one_type(kind, (one,), (other,), 0)

    def columns(self) -> bool:
        """Whether the columns on the list are the same."""
        todo = self._todo
        while todo:
            before, after, depth = todo.pop()
            if len(before) > SLICE:
                middle = len(before) // 2
                todo += [(before[:middle], after[:middle], depth), (before[middle:], after[middle:], depth)]
            elif before and not self._column(before, after, depth + 1):
                return False
        return True

    def _column(self, before: Sequence[Any], after: Sequence[Any], depth: int) -> bool:
        kinds = set(map(type, before))
        if len(kinds) == 1 and kinds == set(map(type, after)):
            return self._of_one_type(kinds.pop(), before, after, depth)
        groups: dict[type, tuple[list[Any], list[Any]]] = {}
        for one, other in zip(before, after, strict=True):
            kind = type(one)
            if kind is not type(other):
                if not self._pairwise(one, other):
                    return False
                continue
            group = groups.get(kind)
            if group is None:
                groups[kind] = group = ([], [])
            group[0].append(one)
            group[1].append(other)
        return all(self._of_one_type(kind, *group, depth) for kind, group in groups.items())

    def _of_one_type(self, kind: type, before: Sequence[Any], after: Sequence[Any], depth: int) -> bool:
        if kind in _BY_EQUALITY:
            return before == after
        if kind is NoneType:
            return True
        if kind is float:
            return _same_floats(before, after) or self._pairs(before, after)
        if depth > _DEEPEST:
            return self._pairs(before, after)
        if kind is list or kind is tuple:
            return self._items(before, after, depth)
        if kind is dict:
            return self._entries(before, after, depth)
        if names := _fields_of(kind):
            return self._by_fields(kind, names, before, after, depth)
        return _same_special(kind, before, after) or self._pairs(before, after)

    def _pairs(self, before: Sequence[Any], after: Sequence[Any]) -> bool:
        return all(map(self._pairwise, before, after))

    def _items(self, before: Sequence[Any], after: Sequence[Any], depth: int) -> bool:
        if len(before) == 1:
            ours, theirs = before[0], after[0]
        elif list(map(len, before)) == list(map(len, after)):
            ours, theirs = list(chain.from_iterable(before)), list(chain.from_iterable(after))
        else:
            return False
        self._todo.append((ours, theirs, depth))
        return len(ours) == len(theirs)

    def _entries(self, before: Sequence[dict[Any, Any]], after: Sequence[dict[Any, Any]], depth: int) -> bool:
        keys, others = list(chain.from_iterable(before)), list(chain.from_iterable(after))
        if not keys:
            return not others
        if {*map(type, keys), *map(type, others)} != {str}:
            return self._pairs(before, after)
        if keys == others and list(map(len, before)) == list(map(len, after)):
            ours = list(chain.from_iterable(map(dict.values, before)))
            theirs = list(chain.from_iterable(map(dict.values, after)))
        else:
            ours, theirs = [], []
            for one, other in zip(before, after, strict=True):
                if one.keys() != other.keys():
                    return False
                ours += one.values()
                theirs += map(other.__getitem__, one)
        self._todo.append((ours, theirs, depth))
        return True

    def _by_fields(
        self, kind: type, names: tuple[str, ...], before: Sequence[Any], after: Sequence[Any], depth: int
    ) -> bool:
        ours, theirs = list(map(_dict_of, before)), list(map(_dict_of, after))
        if {*map(len, ours), *map(len, theirs)} != {len(names)} and not _only_fields(kind, names, chain(ours, theirs)):
            return self._pairs(before, after)
        try:
            for name in names:
                self._todo.append(([found[name] for found in ours], [found[name] for found in theirs], depth))
        except KeyError:
            return self._pairs(before, after)
        return True


def is_part(kind: type, name: str) -> bool:
    """Whether an attribute that is no field is a part of the value, and neither private nor a result that is kept."""
    return not name.startswith("_") and not is_kept_result(kind, name)


def is_kept_result(kind: type, name: str) -> bool:
    """Whether it is what a `cached_property` of the class keeps in an instance, or another descriptor like it."""
    found = getattr(kind, name, None)
    return hasattr(found, "__get__") and not isinstance(found, FunctionType)


def _only_fields(kind: type, names: tuple[str, ...], dicts: Iterable[dict[str, Any]]) -> bool:
    """Whether there is nothing but these fields, and what is no part of a value."""
    known = set(names)
    return not any(is_part(kind, name) for found in dicts if len(found) != len(names) for name in found.keys() - known)


@lru_cache(maxsize=1024)
def _fields_of(kind: Any) -> tuple[str, ...]:
    """The names of the fields that are all there is to an instance; empty if there may be more, or none."""
    if issubclass(kind, BaseModel):
        more = issubclass(kind, RootModel) or kind.model_config.get("extra") == "allow"
        return () if more else tuple(kind.model_fields)
    if issubclass(kind, (*_BASES_WITH_CONTENT, Enum, Collection)) or not dataclasses.is_dataclass(kind):
        return ()
    fields = tuple(field.name for field in dataclasses.fields(kind))
    slots = [
        slot
        for cls in cast("type", kind).__mro__
        for slot in vars(cls).values()
        if isinstance(slot, MemberDescriptorType)
    ]
    return () if slots else fields


def _same_special(kind: type, before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether all are the same, of the types that have a quick way to tell; False if it does not tell."""
    if kind is datetime:
        return _same_fixed_times(before, after)
    if kind is Decimal:
        return list(map(str, before)) == list(map(str, after))
    if issubclass(kind, Enum):
        return all(map(operator.is_, before, after))
    return kind in (set, frozenset) and _same_plain_sets(before, after)


def _same_floats(before: Sequence[float], after: Sequence[float]) -> bool:
    return before == after and (
        0.0 not in before or list(map(copysign, repeat(1.0), before)) == list(map(copysign, repeat(1.0), after))
    )


def _same_fixed_times(before: Sequence[datetime], after: Sequence[datetime]) -> bool:
    """Whether all are times of the same wall clock and offset, none in a zone that may be more than an offset."""
    zones = {*map(type, map(_zone_of, before)), *map(type, map(_zone_of, after))}
    if zones != {NoneType}:
        if not zones <= _FIXED_ZONES:
            return False
        if list(map(datetime.utcoffset, before)) != list(map(datetime.utcoffset, after)):
            return False
    return before == after and not any(map(_fold_of, before)) and not any(map(_fold_of, after))


def _same_plain_sets(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Whether all are sets of the same items, all of one type that `==` tells all of."""
    kinds = {*map(type, chain.from_iterable(before)), *map(type, chain.from_iterable(after))}
    return len(kinds) <= 1 and kinds <= _BY_EQUALITY and before == after
