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
_SHAPE = bytes.maketrans(b"123456789.E[, \t\r\n", b"0000000000e::::::")
"""All digits are 0, and all that a number can follow is a colon."""
_EXPONENTS = (b"0e000", b"0e+000")
"""What a number out of range looks like, or else a long row of digits does."""
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_CANDIDATE = re.compile(rb"NaN|Infinity|[0-9.]+[eE]\+?[0-9]+|[0-9]{%d,}(?:\.[0-9]+)?" % _LONG)


class OddNumber(NamedTuple):
    """A number that is none in JSON, or too large for a float."""

    text: str
    is_integer: bool
    """An integer is JSON, however long, and an `int` holds it; a `float` would read it as infinity."""


def odd_number(data: bytes | bytearray) -> OddNumber | None:
    """The first such number in the JSON text `data`, or None. Costs a hundredth of parsing where there is none.

    A few lines at a time, as neither a string nor a number crosses lines: a closer look holds the interpreter for long.
    """
    start = 0
    while start < len(data):
        end = data.find(b"\n", start + _CHUNK_BYTES)
        end = len(data) if end < 0 else end
        if found := _odd_number(data[start:end] if end - start < len(data) else data):
            return found
        start = end
    return None


def _odd_number(lines: bytes | bytearray) -> OddNumber | None:
    if b"NaN" in lines or b"Infinity" in lines or _looks_out_of_range(lines):
        for found in _CANDIDATE.finditer(_STRING.sub(b'""', lines)):
            text = found[0].decode()
            if text in ("NaN", "Infinity") or _is_infinite(text):
                return OddNumber(text if len(text) <= 40 else f"{text[:40]}…", text.isdigit())
    return None


def _looks_out_of_range(data: bytes | bytearray) -> bool:
    for start in range(0, len(data), _CHUNK_BYTES):
        shape = data[start : start + _CHUNK_BYTES + _LONG].translate(_SHAPE)
        if b"0" * _LONG in shape or any(_is_a_value(shape, exponent) for exponent in _EXPONENTS):
            return True
    return False


def _is_a_value(shape: bytes | bytearray, exponent: bytes) -> bool:
    """Whether `exponent` ends a number there, and not a stretch of a hexadecimal id."""
    at = shape.find(exponent)
    while at >= 0:
        before = shape[max(0, at - _LONG) : at + 1].rstrip(b"0").removesuffix(b"-")
        if before.endswith(b":") or not before:
            return True
        at = shape.find(exponent, at + 1)
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
