"""Work on large states, in a thread, so that the event loop goes on meanwhile.

Encoding is a few calls into C code that keep the interpreter to themselves while they last, thread or not; hashing and
compressing let it go. Plain JSON and lists of plain models are therefore written and read in pieces (`state_pieces`):
20 MB hold the loop up for 3 to 30 ms at a time. Other types take a state whole: one that is mostly text holds it up for
as long, small parts for 5 to 10 ms for each MB. The collector running would make that up to ten times as much: it
walks through all that has been made so far, again and again.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES = 128 * 1024
"""From here on it takes milliseconds, and a thread is worth its 0.1 ms."""
CHUNK_BYTES = 512 * 1024
"""Of JSON, in one call; reading it takes a few milliseconds. A smaller state is written whole."""
_NODE_BYTES = 8
"""What a value inside a state counts beside the length of its text."""
_SAMPLE = 8
"""Of a container with more parts than twice this, so many are looked at, and stand for the others."""
_DEPTH = 12

_pauses = 0
_enabled_before = False
_lock = threading.Lock()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps the garbage collector from running while much is made and next to nothing becomes garbage.

    For the whole process, until the last of those who paused it is done; then it is as it was, and what was made
    meanwhile counts as old: looking through a million new objects at once would take 50 ms.
    """
    global _pauses, _enabled_before  # noqa: PLW0603 - the collector is one for the process
    with _lock:
        if not _pauses:
            _enabled_before = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if not _pauses and _enabled_before:
                if not gc.get_freeze_count():  # else somebody keeps objects frozen, which this would undo
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()


def is_large(value: object) -> bool:
    """Whether `value` is likely to take `LARGE_BYTES` of JSON or more, by a look at some of it.

    An estimate: a wrong one costs time, never correctness. Long texts and long containers are seen wherever they are
    but in the parts of a long container that are not looked at.
    """
    return estimated_bytes(value, LARGE_BYTES) >= LARGE_BYTES


def estimated_bytes(value: object, enough: int, depth: int = _DEPTH) -> int:
    """About how many bytes of JSON `value` takes, by a look at some of it; from `enough` on, looks no further."""
    if isinstance(value, str | bytes | bytearray):
        return _NODE_BYTES + len(value)
    parts: Collection[object]
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    else:
        inside = getattr(value, "__dict__", None)
        if not inside:
            return _NODE_BYTES
        parts = inside.values()
    count = len(parts)
    least = _NODE_BYTES * (1 + count)
    if not count or not depth or least >= enough:
        return least
    if count <= 2 * _SAMPLE:
        looked_at: Iterable[object] = parts
    elif isinstance(parts, list | tuple):
        looked_at = parts[:: count // _SAMPLE]
    else:
        looked_at = islice(parts, _SAMPLE)
    size = seen = 0
    for part in looked_at:
        size += estimated_bytes(part, enough, depth - 1)
        seen += 1
        if size >= enough:
            return size
    return _NODE_BYTES + size * count // seen


async def off_loop(large: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work(…)` returns or raises: called in a thread if `large`, else here and now.

    Cancelled, it returns at once; the thread ends by itself, and what it made is dropped.
    """
    if not large:
        return work(*args, **kwargs)

    def apart() -> T:
        with collector_paused():
            return work(*args, **kwargs)

    return await asyncio.to_thread(apart)
