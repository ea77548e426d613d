"""Whether a value that was written and read back is the same, and if not, where it differs and what to do about it.

*The same* means the same type and value at every node, whether or not `==` looks there:

    models, dataclasses     the same class, and its fields one by one, those with `compare=False` included
    dict                    the same keys, types included; their order counts in an `OrderedDict` only
    set                     the same items, types included, in any order
    list, tuple, deque      the same items in the same order; of a deque `maxlen`, of a defaultdict its factory
    float                   the same bits; every NaN is the same
    Decimal                 the same digits and exponent
    datetime, time          the same wall clock, `fold`, and offset, if that is fixed; else the same zone
    other objects           their attributes and slots, and what their own `==` says

Not looked at, since it is no part of a state: which fields of a model were set explicitly, cached properties, private
attributes of models, and attributes of other classes that begin with an underscore and are no fields, unless the class
is compared by identity, so that nothing but its attributes says what it is.

One thing may change: an `int` where the type says `float` comes back as the equal float, as type checkers see it.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Set
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from types import MemberDescriptorType, NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeGuard
from zoneinfo import ZoneInfo

from pydantic import BaseModel, RootModel
from pydantic_core import TzInfo

from s3_checkpoint._format.bulk_comparison import is_kept_result, is_part, same_in_bulk, same_plain_json
from s3_checkpoint._format.json_paths import json_step

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_BY_EQUALITY: Final = frozenset({NoneType, bool, int, str, bytes, bytearray, date, timedelta})
"""Types whose `==`, between two of the same type, looks at everything there is."""
_BASES: Final = (str, int, bytes, bytearray, date, timedelta)
"""Those of them that can have subclasses."""
_SCALARS: Final = (float, complex, Decimal, datetime, time, tzinfo, *_BASES)
_DATE: Final = ("year", "month", "day")
_TIME: Final = ("hour", "minute", "second", "microsecond")
_ANY_ITEM: Final = "[*]"
"""The step to an item of a set, which has no place of its own."""
_PAIRED_AT_MOST: Final = 100
"""Items of a set that have no equal on the other side are compared each with each, up to so many."""


class _Absent:
    pass


_ABSENT: Final = _Absent()


class Difference(NamedTuple):
    """Where in the value, as a JSON path, and what happens to it there. Names types, never values."""

    path: str
    reason: str


def first_difference(before: object, after: object, path: str = "$", *, plain: bool = False) -> Difference | None:
    """The first place where `after`, which was read back, is not what `before` was; None if they are the same.

    `plain`: `after` was read as JSON and nothing more, so that it holds no types but JSON's own.
    """
    if plain and same_plain_json(before, after):
        return None
    comparison = _Comparison(int_as_float=True)
    return None if same_in_bulk(before, after, comparison.same) else comparison.first(before, after, path)


def same_value(one: object, other: object) -> bool:
    """Whether two values that were both read back are the same: type and value at every node."""
    comparison = _Comparison(int_as_float=False)
    return same_in_bulk(one, other, comparison.same) or comparison.same(one, other)


class _Comparison:
    """One walk through two values, side by side."""

    def __init__(self, *, int_as_float: bool) -> None:
        self._int_as_float = int_as_float
        self._open: set[tuple[int, int]] = (
            set()
        )  # pairs of objects that are being compared: they may contain themselves

    def same(self, before: Any, after: Any) -> bool:
        return self.first(before, after, "$") is None

    def first(self, before: Any, after: Any, path: str) -> Difference | None:
        kind = type(before)
        if before is after:
            return None
        if kind is not type(after):
            if self._int_as_float and kind is int and type(after) is float and before == after:
                return None
            return Difference(path, changed_type(before, after))
        if kind in _BY_EQUALITY:
            return None if before == after else _changed_value(before, path)
        pair = (id(before), id(after))
        if pair in self._open:
            return None
        self._open.add(pair)
        try:
            return self._object(before, after, path)
        finally:
            self._open.discard(pair)

    def _object(self, before: Any, after: Any, path: str) -> Difference | None:
        """Two of one type that is none of the plain ones: first what its base class holds, then what it adds."""
        if type(before) in (list, tuple):
            return self._items(before, after, path)
        if type(before) is dict:
            return self._entries(before, after, path)
        if isinstance(before, BaseModel):
            return self._model(before, after, path)
        if isinstance(before, Enum):
            return None if before.value == after.value else _changed_value(before, path)
        if isinstance(before, _SCALARS):
            if (reason := _changed_scalar(before, after)) is not None:
                return Difference(path, reason)
        elif isinstance(before, Mapping | list | tuple | deque | Set):
            if (difference := self._container(before, after, path)) is not None:
                return difference
        elif not _is_dataclass(before):
            return self._other(before, after, path)
        return self._added(before, after, path)

    def _model(self, before: BaseModel, after: BaseModel, path: str) -> Difference | None:
        was, now = before.__dict__, after.__dict__
        root = isinstance(before, RootModel)
        fields = type(before).model_fields
        more = [name for name in {**was, **now} if name not in fields and is_part(type(before), name)]
        for name in [*fields, *more]:
            step = path if root else path + json_step(name)
            difference = self._part(was.get(name, _ABSENT), now.get(name, _ABSENT), step)
            if difference is not None:
                return difference
        if before.model_extra or after.model_extra:
            return self._entries(before.model_extra or {}, after.model_extra or {}, path)
        return None

    def _container(self, before: Any, after: Any, path: str) -> Difference | None:
        if isinstance(before, Mapping):
            if isinstance(before, defaultdict) and not _equal(before.default_factory, after.default_factory):
                return Difference(
                    path, "its default_factory is another one when read back; use the one its annotation makes"
                )
            if isinstance(before, OrderedDict) and not self._in_same_order(before, after):
                return Difference(path, "its keys come back in another order")
            return self._entries(before, after, path)
        if isinstance(before, Set):
            return self._members(before, after, path)
        if isinstance(before, deque) and before.maxlen != after.maxlen:
            reason = f"its maxlen of {before.maxlen} comes back as {after.maxlen}; store a list, or set it when read"
            return Difference(path, reason)
        return self._items(before, after, path)

    def _entries(self, before: Mapping[Any, Any], after: Mapping[Any, Any], path: str) -> Difference | None:
        plain = all(type(key) is str for key in before) and all(type(key) is str for key in after)
        keys = {} if plain else {key: key for key in after}
        for key, item in before.items():
            step = path + json_step(key)
            if key not in after:
                return Difference(step, "it is not there when read back" if type(key) is str else _lost_key(key))
            if keys and (difference := self.first(key, keys[key], step)) is not None:
                return Difference(step, f"its key changes: {difference.reason}")
            if (difference := self.first(item, after[key], step)) is not None:
                return difference
        if len(after) != len(before):
            key = next(key for key in after if key not in before)
            return Difference(path + json_step(key), "it appears only when read back")
        return None

    def _items(self, before: Any, after: Any, path: str) -> Difference | None:
        names = getattr(before, "_fields", ()) if isinstance(before, tuple) else ()
        for index, (item, back) in enumerate(zip(before, after, strict=False)):
            step = f".{names[index]}" if index < len(names) else f"[{index}]"
            if (difference := self.first(item, back, path + step)) is not None:
                return difference
        shorter = min(len(before), len(after))
        if len(before) > shorter:
            return Difference(f"{path}[{shorter}]", "it is not there when read back")
        if len(after) > shorter:
            return Difference(f"{path}[{shorter}]", "it appears only when read back")
        return None

    def _members(self, before: Set[Any], after: Set[Any], path: str) -> Difference | None:
        if len(before) != len(after):
            return Difference(path, f"of its {len(before)} items {len(after)} come back")
        by_key = {item: item for item in after}
        alone, step = [], path + _ANY_ITEM
        for item in before:
            counterpart = by_key.pop(item, _ABSENT)
            if isinstance(counterpart, _Absent):
                alone.append(item)
            elif (difference := self.first(item, counterpart, step)) is not None:
                return difference
        left = list(by_key)
        for item in alone:  # compared by identity, as it seems, or changed
            differences = [self.first(item, other, step) for other in left[:_PAIRED_AT_MOST]]
            if None not in differences:
                known = differences[0] if len(differences) == 1 else None
                return known or Difference(step, f"a {type(item).__name__} is not there when read back")
            del left[differences.index(None)]
        return None

    def _in_same_order(self, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> bool:
        return len(before) == len(after) and all(
            self.first(one, other, "$") is None for one, other in zip(before, after, strict=True)
        )

    def _added(self, before: Any, after: Any, path: str) -> Difference | None:
        """What a dataclass or a subclass holds beside: its fields, and other attributes that are not private."""
        names = {field.name for field in dataclasses.fields(before)} if _is_dataclass(before) else set()
        for name in names:
            step = path + json_step(name)
            difference = self._part(getattr(before, name, _ABSENT), getattr(after, name, _ABSENT), step)
            if difference is not None:
                return difference
        return self._attributes(before, after, path, private_too=False, known=names)

    def _other(self, before: Any, after: Any, path: str) -> Difference | None:
        """Two objects of a class that nothing is known of."""
        equals: object = type(before).__eq__
        by_identity = equals is object.__eq__
        same_array = _same_array(before, after)
        equal = (not by_identity and _equal(before, after)) if same_array is None else same_array
        if (difference := self._attributes(before, after, path, private_too=by_identity)) is not None or equal:
            return difference
        if (
            _equality_is_trusted(before)
            or not _has_attributes(before)
            or self._attributes(before, after, path, private_too=True) is not None
        ):
            return Difference(path, f"a {type(before).__name__} comes back as one that it does not equal")
        return None

    def _attributes(
        self, before: object, after: object, path: str, *, private_too: bool, known: Collection[str] = ()
    ) -> Difference | None:
        was, now = dict(attributes_of(before)), dict(attributes_of(after))
        for name in [*was, *(name for name in now if name not in was)]:
            if name in known or (name.startswith("_") and not private_too):
                continue
            difference = self._part(was.get(name, _ABSENT), now.get(name, _ABSENT), path + json_step(name))
            if difference is not None:
                return difference
        return None

    def _part(self, before: object, after: object, path: str) -> Difference | None:
        if isinstance(before, _Absent):
            return None if isinstance(after, _Absent) else Difference(path, "it appears only when read back")
        if isinstance(after, _Absent):
            return Difference(path, "it is not there when read back")
        return self.first(before, after, path)


def changed_type(before: object, after: object) -> str:
    """What to say of a value that comes back as one of another type, and what to do about it."""
    was, now = type(before).__name__, type(after).__name__
    if isinstance(before, float) and after is None:
        remedy = 'store None, or set ser_json_inf_nan="strings" in the configuration of its model'
        return f"{float(before)} is not a JSON number and comes back as null; {remedy}"
    if isinstance(before, Iterator):
        return f"a {was} can be read only once and comes back as a {now}; store a list"
    if was == now:
        return f"a {was} comes back as another class of the same name (a cell or module run again?)"
    if (names := _field_names(before)) is not None:
        dropped = sorted(names - (_field_names(after) or names))
        fields = f", without {', '.join(dropped)}" if dropped else ""
        return f"a {was} comes back as a {now}{fields}; {_how_to_annotate(type(before))}"
    parts = "[…]" if isinstance(before, Mapping | list | tuple | Set | deque) else ""
    return f"a {was} comes back as a {now}; annotate {was}{parts}, or store a {now}"


def _how_to_annotate(kind: type) -> str:
    if kind.__module__.startswith("langchain_core.messages."):
        return "annotate AnyMessage of langchain_core.messages, the union of its messages"
    return f"annotate {kind.__name__}, or a union of classes told apart by a Literal"


def _changed_value(before: object, path: str) -> Difference:
    return Difference(path, f"a {type(before).__name__} comes back as another value")


def _changed_scalar(before: Any, after: Any) -> str | None:
    """What happened to a number, a text, a time or a zone (or to one of a subclass); None if nothing."""
    another = f"a {type(before).__name__} comes back as another value"
    if isinstance(before, float):
        return None if _same_float(before, after) else another
    if isinstance(before, complex):
        same = _same_float(before.real, after.real) and _same_float(before.imag, after.imag)
        return None if same else another
    if isinstance(before, Decimal):
        return None if before.as_tuple() == after.as_tuple() else another
    if isinstance(before, tzinfo):
        return None if _same_zone(before, after, 2000) else another
    if isinstance(before, datetime | time):
        return _changed_time(before, after)
    base = next(base for base in _BASES if isinstance(before, base))
    return None if base.__eq__(before, after) is True else another


def _changed_time(before: Any, after: Any) -> str | None:
    dated = isinstance(before, datetime)
    names = [*(_DATE if dated else ()), *_TIME]
    if any(getattr(before, name) != getattr(after, name) for name in names):
        return f"a {type(before).__name__} comes back as another time"
    if not _same_zone(before.tzinfo, after.tzinfo, before.year if dated else 2000):
        was = type(before.tzinfo).__name__
        return f"its time zone (a {was}) is more than an offset and is lost; store UTC and the zone's name"
    if before.fold != after.fold:
        return "its fold=1 comes back as 0, another time where clocks are set back; store UTC and the zone's name"
    return None


def _same_zone(before: tzinfo | None, after: tzinfo | None, year: int) -> bool:
    """Whether two zones do the same: both have one and the same fixed offset, or they are one zone."""
    if before is None or after is None:
        return before is after
    if type(before) is type(after) and _equal(before, after):
        return True
    if isinstance(before, ZoneInfo) and isinstance(after, ZoneInfo) and before.key == after.key is not None:
        return True
    offset = _fixed_offset(before, year)
    return offset is not None and offset == _fixed_offset(after, year)


def _fixed_offset(zone: tzinfo, year: int) -> timedelta | None:
    """The offset of a zone that always has the same one; None of one whose clocks change.

    A zone that answers for no particular moment says that it is fixed: `datetime.timezone`, `zoneinfo`, `dateutil` and
    `pytz` all do. Of classes that nothing is known of, the months of a year are asked too.
    Source: "tzinfo Objects", Python library reference.
    """
    offset = zone.utcoffset(None)
    if offset is None or isinstance(zone, timezone | TzInfo | ZoneInfo):
        return offset
    same = all(zone.utcoffset(datetime(year, month, 15)) == offset for month in range(1, 13))  # noqa: DTZ001 - as asked
    return offset if same else None


def _same_float(before: float, after: float) -> bool:
    if before == after:
        return before != 0 or math.copysign(1, before) == math.copysign(1, after)
    return math.isnan(before) and math.isnan(after)


def _same_array(before: Any, after: Any) -> bool | None:
    """Whether both are arrays of the same numbers, type and all; None if they are no arrays.

    The `==` of NumPy's answers with an array, that of `array.array` takes `1` for `1.0`.
    """
    try:
        was, now = memoryview(before), memoryview(after)
    except TypeError:
        return None
    return (was.format, was.shape, was.tobytes()) == (now.format, now.shape, now.tobytes())


def _equal(before: object, after: object) -> bool:
    try:
        return before is after or bool(before == after)
    except Exception:  # noqa: BLE001 - an `__eq__` that fails or answers with an array has not said "equal"
        return False


def _lost_key(key: object) -> str:
    kind = type(key).__name__
    return f"its key is a {kind}, not a string; annotate dict[{kind}, …], or use strings"


def _field_names(value: object) -> set[str] | None:
    if isinstance(value, BaseModel):
        return {*type(value).model_fields, *(value.model_extra or ())}
    return {field.name for field in dataclasses.fields(value)} if _is_dataclass(value) else None


def _has_attributes(value: object) -> bool:
    """Whether its class is one whose instances hold attributes, and nothing that cannot be seen."""
    return hasattr(value, "__dict__") or any("__slots__" in vars(cls) for cls in type(value).__mro__)


def _equality_is_trusted(value: object) -> bool:
    """Whether its `==` is the standard library's, which looks at what is not seen here, such as what makes a UUID."""
    definer = next(cls for cls in type(value).__mro__ if "__eq__" in vars(cls))
    return definer is not object and definer.__module__.partition(".")[0] in sys.stdlib_module_names


def _is_dataclass(value: object) -> TypeGuard[DataclassInstance]:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def attributes_of(value: object) -> Iterator[tuple[str, object]]:
    """The attributes and slots of an object; no properties, cached ones included."""
    kind = type(value)
    for name, item in getattr(value, "__dict__", {}).items():
        if not is_kept_result(kind, name):
            yield name, item
    for cls in kind.__mro__:
        if cls.__module__.partition(".")[0] in sys.stdlib_module_names:
            continue  # their slots are their own affair: caches, and what a UUID was made with
        for name, slot in vars(cls).items():
            if isinstance(slot, MemberDescriptorType):
                try:
                    yield name, slot.__get__(value, kind)
                except AttributeError:
                    continue  # empty
