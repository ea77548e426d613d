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
_application_froze = False
_lock = threading.Lock()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps the garbage collector from running inside the block, for the whole process.

    It stays paused until the last of all such blocks is left; then it is as it was, and what was made in them counts as
    old: looking through a million new objects at once would take 50 ms.

    Once the application has frozen objects of its own, as servers do before they fork, new ones count as new: to make
    them old would undo that.
    """
    global _pauses, _enabled_before, _application_froze  # noqa: PLW0603 - the collector is one for the process
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
                # Python counts them one by one, 20 ms for a million: asked until there are some.
                _application_froze = _application_froze or gc.get_freeze_count() > 0
                if not _application_froze:
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()
