"""Work on large states, in a thread, so that the event loop goes on meanwhile.

Encoding is a few calls into C code that keep the interpreter to themselves while they last, thread or not; hashing and
compressing let it go. Measured for 20 MB of JSON, collector paused: a state that is mostly text holds the loop up for
25 ms at a time; one of 200,000 small items for 0.1 s (writing JSON) and 0.3–0.4 s (reading it), which is 5 and 20 ms
for each MB. The collector running would make that up to ten times as much: it walks through all that has been made so
far, again and again.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES = 128 * 1024
"""From here on it takes milliseconds, and a thread is worth its 0.1 ms."""
_NODE_BYTES = 8
"""What a value inside a state counts beside the length of its text."""
_ENOUGH = LARGE_BYTES // _NODE_BYTES

_pauses = 0
_enabled_before = False
_lock = threading.Lock()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps the garbage collector from running while much is made and next to nothing becomes garbage.

    For the whole process, until the last of those who paused it is done; then it is as it was.
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
                gc.enable()


def is_large(value: object) -> bool:
    """Whether `value` is likely to take `LARGE_BYTES` of JSON or more. Looks at no more of it than it needs to know."""
    size = 0
    rest = [value]
    while rest and size < LARGE_BYTES:
        value = rest.pop()
        size += _NODE_BYTES
        if isinstance(value, str | bytes | bytearray):
            size += len(value)
        elif isinstance(value, dict):
            size += _NODE_BYTES * len(value)
            rest.extend(islice(value.values(), _ENOUGH))
        elif isinstance(value, list | tuple | set | frozenset):
            rest.extend(islice(value, _ENOUGH))
        elif inside := getattr(value, "__dict__", None):
            rest.extend(islice(inside.values(), _ENOUGH))
    return size >= LARGE_BYTES


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
