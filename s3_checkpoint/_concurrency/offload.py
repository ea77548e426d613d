"""Work on large states, in a thread, so that the event loop continues.

Encoding is calls into C code that keep the interpreter to themselves while they last, thread or not; hashing and
compressing release it. Large values are therefore written and read in chunks (`chunked_json`), as far as their type
allows: 20 MB hold the loop for 5 to 30 ms at a time. Other types take a value whole: one that is mostly text holds it
for as long, small parts for 5 to 10 ms for each MB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from s3_checkpoint._concurrency.gc_pause import collector_paused

P = ParamSpec("P")
T = TypeVar("T")


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
