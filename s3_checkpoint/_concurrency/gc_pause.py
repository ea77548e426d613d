"""The garbage collector, paused while much is made and next to nothing becomes garbage.

It walks through all that has been made so far, again and again: with it, decoding 20 MB holds the interpreter for up to
ten times as long.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_pauses = 0
_enabled_before = False
_lock = threading.Lock()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps the garbage collector from running inside the block, for the whole process.

    It stays paused until the last of all such blocks is left; then it is as it was, and what was made in them counts as
    old: looking through a million new objects at once would take 50 ms.
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
                if not gc.get_freeze_count():  # else the application keeps objects frozen, which this would undo
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()
