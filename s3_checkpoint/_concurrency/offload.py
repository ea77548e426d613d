"""Work on large states, in a thread, so that the event loop goes on meanwhile.

Encoding is calls into C code that keep the interpreter to themselves while they last, thread or not; hashing and
compressing let it go. Large values are therefore written and read in chunks (`chunked_json`), as far as their type
allows: 20 MB hold the loop up for 5 to 30 ms at a time. Other types take a value whole: one that is mostly text holds
it up for as long, small parts for 5 to 10 ms for each MB. The collector running would make that up to ten times as
much: it walks through all that has been made so far, again and again.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

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
