"""What a worker leaves that is still at work when its thread is deleted: a checkpoint without the values it reuses.

A put that reuses values it has seen lately sends nothing but its checkpoint. If its thread has been deleted since, that
checkpoint arrives alone. It is taken for what it is, a part of a deleted thread: readers pass it over, with a warning,
and the next `delete_thread` removes it. It is told from damage, which stays an error, by all three of these:

- the value that is gone was stored by another checkpoint, as puts store their own values right before their checkpoint;
- that other checkpoint is gone too: `prune` would have left the value, so the value did not go alone;
- no checkpoint of its namespace is older than it by more than a grace period: `delete_thread` leaves none of those that
  were there, and a put relies for half that time at most on what it has seen.

Where objects under `threads/` expire by age, and history is pruned, this cannot be told from a deleted thread: they
have been deleted. No lifecycle rule may do that (docs/guides/langgraph.md).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta

from s3_checkpoint.errors import StateDecodingError
from s3_checkpoint.langgraph.records import CheckpointRecord
from s3_checkpoint.langgraph.thread_listing import ListedCheckpoint, checkpoints
from s3_checkpoint.object_store import ObjectStore

_logger = logging.getLogger("s3_checkpoint.langgraph")


async def is_remnant(
    objects: ObjectStore,
    read_head: Callable[[ListedCheckpoint], Awaitable[tuple[str, CheckpointRecord]]],
    listed: ListedCheckpoint,
    gone: str,
    grace: timedelta,
) -> bool:
    """Whether a checkpoint is what a put left whose thread was deleted before; `gone`: the key that was not there.

    1 GET, by `read_head`, and 1 LIST (per 1,000 keys of the namespace).
    """
    name = listed.keys.parse_value(gone)
    if name is None or listed.last_modified is None:
        return False
    try:
        key, record = await read_head(listed)
    except StateDecodingError:
        return False
    except LookupError:
        return True  # it is gone itself by now
    origin = next((ref.origin for ref in record.values.values() if ref.name == name), None)
    if origin is None or origin == listed.id:
        return False
    async with aclosing(checkpoints(objects, listed.keys)) as others:
        async for other in others:
            if other.last_modified is None:
                continue
            if other.id == origin or listed.last_modified - other.last_modified > grace:
                return False
    _logger.warning("passed over, since it was left by a put after its thread was deleted: key=%s", ascii(key))
    return True
