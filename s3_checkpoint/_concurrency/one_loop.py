"""What belongs to one event loop until it is closed, in the words of an open store."""

from __future__ import annotations

import asyncio

from s3_checkpoint.errors import LifecycleError


def check_usable(loop: asyncio.AbstractEventLoop, *, closed: bool) -> None:
    """Raises `LifecycleError` for a store that is closed, or is used in another loop than its own."""
    if closed:
        raise LifecycleError("this checkpointer is closed; use it inside its `async with connect(...)` block")
    if asyncio.get_running_loop() is not loop:
        raise LifecycleError(
            "this checkpointer was opened in another event loop; open one inside this loop with "
            "`async with connect(...)`, or use SyncS3Checkpointer, which has a loop of its own"
        )


def closed_in_progress() -> LifecycleError:
    """The error of a call that was in progress when its store was closed."""
    return LifecycleError(
        "this checkpointer was closed while the call was in progress; whether a write took effect is "
        "unknown. Wait for all calls before leaving the `async with connect(...)` block"
    )
