"""Large values that nothing refers to any more: marked first, removed a grace period later.

The mark is a metadata entry that the value is given by a copy onto itself, which renews `Last-Modified`: from then on a
grace period counts, in which each put that relies on the value has ended. A process that reads a value or asks for its
head sees the mark, and does not rely on it: puts store the content again, under a name of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint.langgraph.grace import UNUSED_SINCE, is_unused
from s3_checkpoint.langgraph.thread_store import ThreadStore
from s3_checkpoint.object_store import ListedObject


async def sweep(
    threads: ThreadStore, unused: Sequence[ListedObject], orphaned: AbstractSet[str], listed_at: datetime
) -> list[str]:
    """Marks the values that are unused, and gives the keys of those that may go: marked a grace period ago.

    1 HEAD for each, and 1 COPY for each that gets its mark now. Without a grace period all may go, and no request is
    made.

    Args:
        threads: Where they are.
        unused: Values that nothing listed refers to.
        orphaned: The keys of those that a checkpoint referred to which is gone. Others that are younger than the grace
            period are left alone: a put in flight writes its values before its checkpoint.
        listed_at: When the listing began.
    """
    grace = threads.grace
    if not grace.period:
        return [line.key for line in unused]

    async def may_go(key: str) -> bool:
        head = await threads.objects.head(key)
        if head is None:
            return False
        if is_unused(head):
            return grace.is_over(head.last_modified, listed_at)
        metadata = {**head.attributes.metadata, UNUSED_SINCE: listed_at.isoformat(timespec="seconds")}
        await threads.objects.copy(key, key, attributes=replace(head.attributes, metadata=metadata))
        return False

    keys = [line.key for line in unused if line.key in orphaned or grace.is_over(line.last_modified, listed_at)]
    verdicts = await gather_bounded(may_go(key) for key in keys)
    return [key for key, goes in zip(keys, verdicts, strict=True) if goes]


async def in_flight(
    threads: ThreadStore, values: Sequence[ListedObject], named: Collection[str], listed_at: datetime
) -> list[str]:
    """The keys of values that may belong to a put whose checkpoint is still to come.

    They are younger than the grace period, unmarked, and not among `named`, the keys that a checkpoint referred to. 1
    HEAD for each that is young and not named.
    """
    young = [
        line.key
        for line in values
        if line.key not in named and not threads.grace.is_over(line.last_modified, listed_at)
    ]
    heads = await gather_bounded(threads.objects.head(key) for key in young)
    return [key for key, head in zip(young, heads, strict=True) if head is not None and not is_unused(head)]
