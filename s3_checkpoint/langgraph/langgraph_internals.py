"""What is private to LangGraph and relied on: the class of delta channels' snapshots, which is in beta, and its code.

Where a version of LangGraph has it no longer, no value is taken for a snapshot: snapshots are stored as other values
are, part of the checkpoint while they are small, and histories are read and pruned by what checkpoints say.
"""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.serde import types

_SNAPSHOT: Any = getattr(types, "_DeltaSnapshot", None)
SNAPSHOT_CODE = 7
"""Of its msgpack extension."""


def is_snapshot(value: object) -> bool:
    """Whether a channel value is the snapshot of a delta channel."""
    return _SNAPSHOT is not None and isinstance(value, _SNAPSHOT)


def new_snapshot(value: Any) -> Any:
    """A snapshot that holds `value`; without the class, the value itself."""
    return value if _SNAPSHOT is None else _SNAPSHOT(value)
