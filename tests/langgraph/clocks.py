"""A clock that tests set, and checkpoints that reuse a large value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.object_store import ObjectStore
from tests.langgraph.counting import checkpoint

BIG = "x" * 100_000
HOUR = timedelta(hours=1)


class Clock:
    """The time of store and savers alike."""

    def __init__(self) -> None:
        self.passed = timedelta(0)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + self.passed

    def monotonic(self) -> float:
        return self.passed.total_seconds()

    def store(self) -> MemoryStore:
        return MemoryStore(now=self.now)

    def saver(self, store: ObjectStore, **options: Any) -> S3Saver:
        """One more process."""
        return S3Saver(store, now=self.now, monotonic=self.monotonic, **options)


def reuse(saver: S3Saver, parent: RunnableConfig, n: int = 1, **metadata: Any) -> RunnableConfig:
    """A child whose large value is its parent's, as a superstep leaves it that did not write the channel."""
    return saver.put(parent, checkpoint({"big": BIG, "n": n}, n=n), metadata, {"n": n})  # type: ignore[arg-type]


def replace(saver: S3Saver, parent: RunnableConfig, n: int = 1, **metadata: Any) -> RunnableConfig:
    """A child without a large value, as `update_state` leaves it that overwrites the channel."""
    return saver.put(parent, checkpoint({"big": "", "n": n}, n=n, big=n), metadata, {"n": n, "big": n})  # type: ignore[arg-type]


def values_of(found: CheckpointTuple | None) -> dict[str, Any] | None:
    return None if found is None else found.checkpoint["channel_values"]
