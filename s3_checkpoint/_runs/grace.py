"""The grace period: how old an object must be before it may be pruned."""

from __future__ import annotations

from datetime import datetime, timedelta

from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.object_store import ListedObject

GRACE = timedelta(hours=1)
"""The age below which nothing is pruned: far longer than any commit takes, computing the state not included."""


def is_young(listed: ListedObject, now: datetime, grace: timedelta) -> bool:
    """Whether the grace period keeps it; one of zero keeps nothing, whatever the clocks say."""
    return bool(grace) and now - listed.last_modified < grace


def check_grace(grace: timedelta) -> timedelta:
    """`grace`, if it is a timedelta of zero or more; `InvalidArgumentError` otherwise."""
    if not isinstance(grace, timedelta) or grace < timedelta(0):
        raise InvalidArgumentError("grace", repr(grace)[:80], "must be a timedelta of zero or more")
    return grace
