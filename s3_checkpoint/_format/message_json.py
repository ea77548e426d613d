"""States and updates inside a message: JSON text as the codec writes it, read without touching a digit.

A message holds them as JSON like its other members. But a parser that makes Python values of a whole message makes
floats of numbers, and a `Decimal` of twenty digits does not survive that: so the text of each member is cut out as it
is, and only the state's own type reads it.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import date
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, Final, NoReturn
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import from_json, to_json, to_jsonable_python

from s3_checkpoint._format.encoding_faults import first_unencodable
from s3_checkpoint._format.foreign_errors import without_values
from s3_checkpoint._format.json_codec import JsonCodec
from s3_checkpoint._format.json_paths import json_step
from s3_checkpoint.errors import StateEncodingError

MAX_BYTES: Final = 64 * 1024 * 1024
"""More than any queue takes: that a message is too large is for the queue to say."""
MAX_TRIES: Final = 1000
"""So many numbers of one value are looked at one by one."""


class JsonText(str):
    """JSON text, ready to be a member of a message."""

    __slots__ = ()


def encoded(value: Any, as_type: Any = None) -> JsonText:
    """`value` as JSON that its type reads back as the same value; `StateEncodingError` if it would not.

    `as_type` is the type, or a `TypeAdapter` of it. Without it, models, dataclasses and other objects are written as
    their own types say, and so is whatever is found in a `dict`, `list`, `tuple` or `set`.
    """
    if as_type is not None:
        return JsonText(_codec(as_type, "$").encode(value).data.decode())
    try:
        return JsonText(_by_parts(value, "$"))
    except RecursionError:
        raise StateEncodingError("$", "it is nested too deeply, or contains itself") from None


def inherits_fields(value: Any) -> bool:
    """Whether `value`, or a part of it that `encoded` writes by its own type, is of a class that inherits fields.

    A type that names the class it inherits them from reads its JSON too, without the fields that are its own.
    """
    try:
        return _inherits_fields(value)
    except RecursionError:  # it cannot be written either
        return False


def _inherits_fields(value: Any) -> bool:
    if isinstance(value, JsonText):
        return False
    if type(value) is dict:
        return any(map(_inherits_fields, value.values()))
    if type(value) in (list, tuple, set, frozenset):
        return any(map(_inherits_fields, value))
    return any(
        getattr(base, "model_fields", None) or getattr(base, "__dataclass_fields__", None)
        for base in type(value).__mro__[1:]
    )


def first_dropped(adapter: TypeAdapter[Any], value: Any, text: str) -> str | None:
    """The path of the first member of the JSON `text` that is not in `value`, which was read from it; None if none."""
    written = adapter.dump_json(value, by_alias=False, round_trip=True, warnings="none")
    return _first_missing(from_json(text), from_json(written), "$")


def _first_missing(said: Any, kept: Any, path: str) -> str | None:
    if isinstance(said, dict) and isinstance(kept, dict):
        for name, part in said.items():
            step = path + json_step(name)
            if name not in kept:
                return step
            if (missing := _first_missing(part, kept[name], step)) is not None:
                return missing
    if isinstance(said, list) and isinstance(kept, list):
        for index, (part, back) in enumerate(zip(said, kept, strict=False)):
            missing = _first_missing(part, back, f"{path}[{index}]")
            # The items of a set come in any order.
            if missing is not None and all(_first_missing(part, other, path) is not None for other in kept):
                return missing
    return None


def members(text: str) -> dict[str, str]:
    """The members of a JSON object, each as the text that is there; `ValueError` if `text` is no such object."""
    try:
        return _members(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def decoded(adapter: TypeAdapter[Any], text: str) -> Any:
    """The value that `text` is, read by name and by alias, as the codec does; `ValidationError` without its input.

    Pydantic reads a JSON number as a float, for a `Decimal` too. Where a float does not hold the number, the digits are
    given to it as a string, if a `Decimal` then has more of them and nothing else has changed.
    """
    try:
        value = _validated(adapter, text)
    except ValidationError as error:
        raise without_values(error) from None
    spans = [*_beyond_a_float(text)]
    # All at once first; one by one only where some of them are for something else than a `Decimal`.
    for chosen in [spans, *([span] for span in reversed(spans) if len(spans) > 1)][: MAX_TRIES if spans else 0]:
        quoted = _quoted(text, chosen)
        with contextlib.suppress(ValidationError):
            exact = _validated(adapter, quoted)
            if _same_but_for_decimals(value, exact):
                value, text = exact, quoted  # what is before the span has not moved
                if chosen is spans:
                    break
    return value


def _quoted(text: str, spans: Sequence[tuple[int, int]]) -> str:
    for start, end in reversed(spans):
        text = f'{text[:start]}"{text[start:end]}"{text[end:]}'
    return text


def _beyond_a_float(text: str) -> Iterator[tuple[int, int]]:
    """Where the numbers are that a float does not hold."""
    if _LONG_NUMBER.search(text) is None:
        return
    for match in _STRING_OR_NUMBER.finditer(text):
        number = match[0]
        whole = number.startswith('"') or number.lstrip("-").isdigit()
        if not whole and Decimal(number) != Decimal(repr(float(number))):
            yield match.span()


def _same_but_for_decimals(one: Any, other: Any) -> bool:
    """Whether two values are of the same types and values throughout, whatever their decimals are."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Decimal):
        return True
    if isinstance(one, Mapping):
        return [*one] == [*other] and all(_same_but_for_decimals(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same_but_for_decimals, one, other))
    if hasattr(one, "__dict__") and not callable(one):
        return _same_but_for_decimals(vars(one), vars(other))
    if isinstance(one, Set) and len(one) == len(other):
        return one == other or all(isinstance(item, Decimal) for item in [*one, *other])
    return bool(one == other) or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


def _validated(adapter: TypeAdapter[Any], text: str) -> Any:
    return adapter.validate_json(text, by_alias=True, by_name=True)


def _codec(as_type: Any, path: str) -> JsonCodec[Any]:
    adapter = as_type if isinstance(as_type, TypeAdapter) else TypeAdapter(as_type)
    return JsonCodec(lambda: adapter, root=path, compression=None, max_bytes=MAX_BYTES)


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _by_parts(value: Any, path: str) -> str:
    """Containers as JSON has them, everything else as its own type writes it."""
    kind: Any = type(value)
    if kind is dict:
        parts = {_key(key, path): _by_parts(item, path + json_step(key)) for key, item in value.items()}
        if len(parts) < len(value):
            raise StateEncodingError(path, "two keys are the same as JSON")
        return "{" + ",".join(f"{key}:{part}" for key, part in parts.items()) + "}"
    if kind in (list, tuple, set, frozenset):
        return "[" + ",".join(_by_parts(item, f"{path}[{index}]") for index, item in enumerate(value)) + "]"
    if kind in (str, int, bool) or value is None or (kind is float and math.isfinite(value)):
        return _scalar(value, path)
    try:
        adapter = _adapter(kind)
    except PydanticUserError as error:
        reason = f"how a {kind.__name__} is written is not known; give the type of the whole (state_type, update_type)"
        raise StateEncodingError(path, reason) from error
    return _codec(adapter, path).encode(value).data.decode()


def _key(key: Any, path: str) -> str:
    if isinstance(key, str):
        return _scalar(str(key), path)
    if not isinstance(key, int | float | Decimal | UUID | date | Enum):
        raise StateEncodingError(path, f"a {type(key).__name__} cannot be a key")
    (name,) = to_jsonable_python({key: None})
    return _scalar(name, path)


def _scalar(value: Any, path: str) -> str:
    try:
        return to_json(value).decode()
    except ValueError as error:
        difference = first_unencodable(value, path)
        raise StateEncodingError(*(difference or (path, f"a {type(value).__name__} has no JSON"))) from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Numbers stay text: what they are is not asked here, and a number of any length is read.
_STRING_OR_NUMBER: Final = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?')
_LONG_NUMBER: Final = re.compile(r"[0-9.]{17}|[eE][+-]?[0-9]{3}")
"""Whatever is shorter, a float holds."""
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_DECODER: Final = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_no_constant)
_KINDS: Final = {"[": "an array", '"': "a string", "t": "true", "f": "false", "n": "null"}


def _members(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    at = _past_space(text, 0)
    if text[at : at + 1] != "{":
        _DECODER.decode(text)
        raise ValueError(f"an object is expected, not {_KINDS.get(text[at], 'a number')}")
    closed = text[(at := _past_space(text, at + 1)) : at + 1] == "}"
    while not closed:
        start = at
        name, at = _DECODER.raw_decode(text, at)
        if text[start] != '"':
            raise json.JSONDecodeError("Expecting property name", "", 0)
        if name in found:
            raise ValueError("a member is there twice")
        at = _past_space(text, at)
        _expect(text, at, ":")
        start = _past_space(text, at + 1)
        _, at = _DECODER.raw_decode(text, start)
        found[name] = text[start:at]
        at = _past_space(text, at)
        closed = text[at : at + 1] == "}"
        if not closed:
            _expect(text, at, ",")
            at = _past_space(text, at + 1)
    if _past_space(text, at + 1) != len(text):
        raise ValueError(f"something follows the object at character {at + 1}")
    return found


def _past_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _expect(text: str, at: int, mark: str) -> None:
    if text[at : at + 1] != mark:
        raise ValueError(f"Expecting {mark!r} at character {at}")
