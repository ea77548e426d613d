"""Large plain JSON objects, written and read in pieces: no call into the JSON library keeps the interpreter for long.

A large container is spread over lines, each of which holds one or more of its parts:

    {
    "question":"why?",
    "notes":[
    {"id":0},{"id":1},{"id":2},
    {"id":3},{"id":4}
    ]
    }

Compact JSON has line breaks nowhere else, so who reads knows where to cut without parsing. To everybody else they are
white space. What is not laid out like that to the letter is left to be read whole, right or wrong as it may be.

The layout is no part of the digest, and so not of what makes two commits the same: it may go by estimates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pydantic_core import from_json, to_json

from s3_checkpoint.off_loop import CHUNK_BYTES, estimated_bytes

T = TypeVar("T")

LONGEST = 8
"""Pieces that a line may have the length of. A longer one is a single text, which is quickly read, but not copied."""
_LOOKED_AT = 1000
"""A container of no more parts has a line for each, so that each may be large; the parts of a longer one are small."""
_DEPTH = 12
_MOMENT_S = 0.0001


def to_json_in_pieces(value: object, piece_bytes: int = CHUNK_BYTES) -> bytes | None:
    """The JSON of `value`, laid out in pieces; None if it is no dict, not large, or has longer texts than pieces help.

    What has no form in JSON raises as `pydantic_core.to_json` does.
    """
    if type(value) is not dict or estimated_bytes(value, piece_bytes) < piece_bytes:
        return None
    lines: list[bytes] = []
    for line in giving_way(_lines_of(value, b"", b"", piece_bytes, _DEPTH)):
        if len(line) > LONGEST * piece_bytes:
            return None
        lines.append(line)
    return b"\n".join(lines)


def from_json_in_pieces(data: bytes | bytearray) -> dict[str, Any] | None:
    """The object that `to_json_in_pieces` wrote as `data`; None if `data` is not what it writes."""
    try:
        return _read(data)
    except ValueError:
        return None


def _lines_of(value: Any, before: bytes, behind: bytes, piece_bytes: int, depth: int) -> Iterator[bytes]:
    if type(value) not in (dict, list) or not depth or estimated_bytes(value, piece_bytes) < piece_bytes:
        yield before + _json(value) + behind
        return
    named = type(value) is dict
    parts = list(value.items()) if named else value
    yield before + (b"{" if named else b"[")
    if len(parts) > _LOOKED_AT:
        yield from chunks_of(parts, lambda chunk: _json(dict(chunk) if named else chunk)[1:-1], piece_bytes)
    else:
        for number, part in enumerate(parts, 1):
            comma = b"," if number < len(parts) else b""
            if not named:
                yield from _lines_of(part, b"", comma, piece_bytes, depth - 1)
            elif type(part[0]) is str:
                yield from _lines_of(part[1], _json(part[0]) + b":", comma, piece_bytes, depth - 1)
            else:
                yield _json(dict([part]))[1:-1] + comma
    yield (b"}" if named else b"]") + behind


def chunks_of(parts: list[T], encode: Callable[[list[T]], bytes], piece_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """A line for every so many of `parts`, about a piece long; `encode` gives them without brackets."""
    start, count = 0, 1
    while start < len(parts):
        end = min(start + count, len(parts))
        line = encode(parts[start:end])
        yield line + (b"," if end < len(parts) else b"")
        # As many as make a piece, if they go on as they were; with care, as they may not.
        count = max(1, min(4 * count, count * piece_bytes // len(line)))
        start = end


def giving_way(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The same lines; after each piece of them, other threads have their turn.

    One that only wants the interpreter for a moment, as an event loop does, would else wait for 5 ms each time.
    """
    passed = 0
    for line in lines:
        yield line
        passed += len(line)
        if passed >= CHUNK_BYTES:
            passed = 0
            time.sleep(_MOMENT_S)


def _json(value: object) -> bytes:
    return to_json(value, inf_nan_mode="null")


def _read(data: bytes | bytearray) -> dict[str, Any]:
    root: dict[str, Any] = {}
    opened: list[Any] = [root]
    more = True  # whether a part must come next, or else the end of the container
    lines = giving_way(lines_in(data))
    if next(lines) != b"{":
        raise ValueError("it does not begin as pieces do")
    for line in lines:
        if not opened:
            raise ValueError("it goes on behind its end")
        comma = line.endswith(b",")
        text = line[:-1] if comma else line
        container = opened[-1]
        named = type(container) is dict
        if text == (b"}" if named else b"]"):
            if more:
                raise ValueError("a part is missing")
            opened.pop()
        elif not more:
            raise ValueError("a comma is missing")
        elif text.endswith((b"[", b"{")):
            if comma:
                raise ValueError("a comma stands where a part begins")
            inner: Any = {} if text.endswith(b"{") else []
            _put(container, text[:-1], inner)
            opened.append(inner)
            comma = True  # in what is opened a part must come
        elif named:
            container.update(_some(from_json(b"{" + text + b"}")))
        else:
            container += _some(from_json(b"[" + text + b"]"))
        more = comma
    if opened or more:
        raise ValueError("it does not end where it should")
    return root


def lines_in(data: bytes | bytearray) -> Iterator[bytes]:
    """The lines of `data`, one at a time; `ValueError` for one that is longer than pieces have."""
    start = 0
    while start <= len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        if end - start > LONGEST * CHUNK_BYTES:
            raise ValueError("a line is longer than a piece can be")
        yield bytes(data[start:end])
        start = end + 1


def _put(container: Any, before: bytes, inner: object) -> None:
    if type(container) is list:
        if before:
            raise ValueError("parts of a list have no names")
        container.append(inner)
        return
    name = from_json(before.removesuffix(b":")) if before.endswith(b":") else None
    if type(name) is not str:
        raise ValueError("a name is missing")
    container[name] = inner


def _some(parts: Any) -> Any:
    if not parts:
        raise ValueError("a line is empty")
    return parts
