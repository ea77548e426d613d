"""How a large value that nothing refers to is removed: marked first, and a grace period later, for good.

    a put relies on a large value       for half of the grace period after this process has written it or seen it
                                        unmarked; later it looks again
    `prune` removes a large value       when nothing refers to it, it carries the mark, and the mark is a grace period
                                        old

The mark is a metadata entry that the value is given by a copy onto itself, which renews `Last-Modified`. A process that
reads the value or asks for its head sees the mark, and does not rely on it: puts store the content again, under a name
of their own.

A put whose checkpoint refers to a value has thus seen it unmarked at most half a period, and the time-outs of one
request, before the checkpoint is there. A mark that was made later is younger than a period then, so a removal
by it lists the checkpoint first. A mark that was made before has been seen. Names are never written again once they
are removed, so no delay of a removal can meet a new object.

Two clocks are asked for the age of what was seen, and the older answer counts: the monotonic one stops while a Lambda
sandbox is frozen, and the other one can be set back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._runs.grace import check_grace
from s3_checkpoint.object_store import ListedObject, ObjectHead, ObjectStore

GRACE = timedelta(hours=1)
"""Longer than twice any put: all attempts of its requests end within minutes."""
UNUSED_SINCE = "unused-since"
"""The mark, in the metadata of a value: when `prune` or `delete_for_runs` found that nothing refers to it, in UTC."""


def is_unused(head: ObjectHead) -> bool:
    """Whether a value is marked as one that nothing refers to."""
    return UNUSED_SINCE in head.attributes.metadata


class Seen(NamedTuple):
    """When a process had evidence of an object, by both clocks; `removals` tells how often it has removed objects."""

    monotonic: float
    now: datetime
    removals: int


class Grace:
    """The grace period of one saver, and its clocks."""

    def __init__(self, period: timedelta, *, now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self.period: timedelta = check_grace(period)
        self.now = now
        self._monotonic = monotonic
        self._removals = 0

    def look(self) -> Seen:
        """To be taken before a request; what its answer shows was there then, or after."""
        return Seen(self._monotonic(), self.now(), self._removals)

    def trusts(self, seen: Seen | None) -> bool:
        """Whether a put may refer to what was seen then without looking again. Never without a period."""
        return seen is not None and bool(self.period) and self.still_holds(seen)

    def still_holds(self, seen: Seen) -> bool:
        """Whether what was seen in the course of a put is recent enough for its last request."""
        if seen.removals != self._removals:
            return False
        age = max(timedelta(seconds=self._monotonic() - seen.monotonic), self.now() - seen.now)
        return not self.period or age < self.period / 2

    def is_over(self, last_modified: datetime, at: datetime) -> bool:
        """Whether an object was written a grace period before `at`, when a listing began; always without a period."""
        return not self.period or at - last_modified >= self.period

    def removed(self) -> None:
        """To be called when this process removes objects: nothing seen before is relied on any more."""
        self._removals += 1


async def sweep(
    objects: ObjectStore, grace: Grace, unused: Sequence[ListedObject], orphaned: AbstractSet[str], listed_at: datetime
) -> list[str]:
    """Marks the values that are unused, and gives the keys of those that may go: marked a grace period ago.

    1 HEAD for each, and 1 COPY for each that gets its mark now. Without a grace period all may go, and no request is
    made.

    Args:
        objects: Where they are.
        grace: How long they stay.
        unused: Values that nothing listed refers to.
        orphaned: The keys of those that a checkpoint referred to which is gone. Others that are younger than the grace
            period are left alone: a put in flight writes its values before its checkpoint.
        listed_at: When the listing began.
    """
    if not grace.period:
        return [entry.key for entry in unused]

    async def may_go(key: str) -> bool:
        head = await objects.head(key)
        if head is None:
            return False
        if is_unused(head):
            return grace.is_over(head.last_modified, listed_at)
        metadata = {**head.attributes.metadata, UNUSED_SINCE: listed_at.isoformat(timespec="seconds")}
        await objects.copy(key, key, attributes=replace(head.attributes, metadata=metadata))
        return False

    keys = [entry.key for entry in unused if entry.key in orphaned or grace.is_over(entry.last_modified, listed_at)]
    verdicts = await gather_bounded(may_go(key) for key in keys)
    return [key for key, goes in zip(keys, verdicts, strict=True) if goes]


async def in_flight(
    objects: ObjectStore, grace: Grace, values: Sequence[ListedObject], named: Collection[str], listed_at: datetime
) -> list[str]:
    """The keys of values that may belong to a put whose checkpoint is still to come.

    They are younger than the grace period, unmarked, and not among `named`, the keys that a checkpoint referred to. 1
    HEAD for each that is young and not named.
    """
    young = [
        entry.key for entry in values if entry.key not in named and not grace.is_over(entry.last_modified, listed_at)
    ]
    heads = await gather_bounded(objects.head(key) for key in young)
    return [key for key, head in zip(young, heads, strict=True) if head is not None and not is_unused(head)]
