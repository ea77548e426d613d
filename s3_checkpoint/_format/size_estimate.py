"""About how much JSON a value makes, by a look at some of it: decides what goes into a thread, and what into chunks.

An estimate: a wrong one costs time, never correctness.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, cast

LARGE_BYTES = 128 * 1024
"""From here on encoding takes milliseconds, and a thread is worth its 0.1 ms."""
CHUNK_BYTES = 512 * 1024
"""Of JSON, in one call; reading it takes a few milliseconds. A smaller state is written whole."""
_NODE_BYTES = 8
"""What a value inside a state counts beside the length of its text."""
_SAMPLE = 8
"""Of a container with more parts than twice this, so many are looked at, and count for the others."""
_DEPTH = 12
_SCALARS = frozenset({int, float, bool, type(None)})
_TEXTS = (str, bytes, bytearray)
_SEQUENCES = (list, tuple, set, frozenset)


def estimated_bytes(value: object, enough: int = CHUNK_BYTES, depth: int = _DEPTH) -> int:
    """About how many bytes of JSON `value` takes, the names in it included; from `enough` on, looks no further.

    Long texts, names and containers are seen wherever they are but in the parts of a long container that are not
    looked at.
    """
    kind = type(value)
    if kind is str or isinstance(value, _TEXTS):
        return _NODE_BYTES + len(value)  # type: ignore[arg-type]
    named = kind is dict or isinstance(value, dict)
    if named or kind is list or isinstance(value, _SEQUENCES):
        parts: Any = value
    elif parts := getattr(value, "__dict__", None):
        named = True
    else:
        return _NODE_BYTES
    count = len(parts)
    least = _NODE_BYTES * (1 + count)
    if not count or not depth or least >= enough:
        return least
    size = seen = 0
    for part in _looked_at(parts, count):
        inside = part
        if named:
            inside = parts[part]
            if type(part) is str:
                size += len(part)
        if type(inside) is str:  # as below, without a call
            size += _NODE_BYTES + len(inside)
        elif type(inside) in _SCALARS:
            size += _NODE_BYTES
        else:
            size += estimated_bytes(inside, enough, depth - 1)
        seen += 1
        if size >= enough:
            return size
    return _NODE_BYTES + size * count // seen


def _looked_at(parts: Any, count: int) -> Iterable[Any]:
    if count <= 2 * _SAMPLE:
        return cast("Iterable[Any]", parts)
    return parts[:: count // _SAMPLE] if isinstance(parts, list | tuple) else islice(parts, _SAMPLE)
