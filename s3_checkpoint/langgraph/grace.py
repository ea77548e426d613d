"""How long removing leaves alone what a put in flight may rely on, and how long a put relies on what it has seen.

    a put relies on a large value       for half of the grace period after this process has written it or seen it unused
                                        by none of the marks below; later it looks again
    `prune` removes a large value       when nothing refers to it, it carries a mark, and the mark is a grace period old

A put whose checkpoint refers to a value has thus seen it unmarked at most half a period, and the time-outs of one
request, before the checkpoint is there. A mark that was made later is younger than a period then, so a removal
by it lists the checkpoint first. A mark that was made before has been seen. Names are never written again once they
are removed, so no delay of a removal can meet a new object.

Two clocks are asked for the age of what was seen, and the older answer counts: the monotonic one stops while a Lambda
sandbox is frozen, and the other one can be set back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from s3_checkpoint.object_store import ObjectHead

GRACE = timedelta(hours=1)
"""Longer than twice any put: all attempts of its requests end within minutes."""
UNUSED_SINCE = "unused-since"
"""The mark, in the metadata of a value: when `prune` or `delete_for_runs` found that nothing refers to it, in UTC."""


def is_unused(head: ObjectHead) -> bool:
    """Whether a value is marked as one that nothing refers to."""
    return UNUSED_SINCE in head.attributes.metadata


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


class Seen(NamedTuple):
    """When a process had evidence of an object, by both clocks; `removals` tells how often it has removed objects."""

    monotonic: float
    now: datetime
    removals: int


class Grace:
    """The grace period of one saver, and its clocks."""

    def __init__(
        self,
        period: timedelta = GRACE,
        *,
        now: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.period = period
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
