"""Numbers that JSON does not have, or that no float holds: `NaN`, `Infinity`, `1e999`. Pure.

pydantic's parser reads the first two as floats, and the third, whose grammar is JSON's, as infinity. Nothing that this
library writes holds them, and no other reader would read the same: a body that does is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from pydantic_core import from_json

_CHUNK_BYTES = 1 << 20
_LONG = 200
"""Digits in a row that a number needs to leave the range of a float with an exponent of two digits, or with none."""
_SHAPE = bytes.maketrans(b"123456789E", b"000000000e")
_SUSPICIOUS = (b"0e000", b"0e+000", b"0" * _LONG)
"""What a number out of range looks like, all digits being 0. Hexadecimal text looks like that too: then it is read."""
_LONGEST = _LONG
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_CANDIDATE = re.compile(rb"NaN|Infinity|[0-9.]+[eE]\+?[0-9]+|[0-9]{%d,}(?:\.[0-9]+)?" % _LONG)


class OddNumber(NamedTuple):
    """A number that is none in JSON, or too large for a float."""

    text: str
    is_integer: bool
    """An integer is JSON, however long, and an `int` holds it; a `float` would read it as infinity."""


def odd_number(data: bytes | bytearray) -> OddNumber | None:
    """The first such number in the JSON text `data`, or None. Costs a hundredth of parsing where there is none."""
    if b"NaN" in data or b"Infinity" in data or _looks_out_of_range(data):
        for found in _CANDIDATE.finditer(_STRING.sub(b'""', data)):
            text = found[0].decode()
            if text in ("NaN", "Infinity") or _is_infinite(text):
                return OddNumber(text if len(text) <= 40 else f"{text[:40]}…", text.isdigit())
    return None


def _looks_out_of_range(data: bytes | bytearray) -> bool:
    for start in range(0, len(data), _CHUNK_BYTES):
        shape = data[start : start + _CHUNK_BYTES + _LONGEST].translate(_SHAPE)
        if any(pattern in shape for pattern in _SUSPICIOUS):
            return True
    return False


def _is_infinite(text: str) -> bool:
    try:
        return math.isinf(float(text))
    except ValueError:
        return False  # no number at all: the parser will say so


def path_of_non_finite(data: bytes | bytearray) -> tuple[str | int, ...]:
    """Where in the JSON text `data` the first NaN or infinity is; the whole of it where that cannot be told."""
    try:
        waiting: list[tuple[tuple[str | int, ...], object]] = [((), from_json(data))]
    except ValueError:
        return ()
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, float) and not math.isfinite(part):
            return path
        waiting += [((*path, key), inner) for key, inner in _parts(part)][::-1]
    return ()


def _parts(value: object) -> Iterator[tuple[str | int, object]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)
