"""The ten lines that make checkpoints for tests, and the counter of requests."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint
from langgraph.checkpoint.base.id import uuid6

from s3_checkpoint.testing.counting import Counting

__all__ = ["Counting", "at", "chain", "checkpoint", "id_of", "put"]


def at(thread_id: str | None = None, namespace: str = "", checkpoint_id: str | None = None) -> RunnableConfig:
    """A config; without `checkpoint_id`, for the newest."""
    configurable = {"thread_id": str(uuid4()) if thread_id is None else thread_id, "checkpoint_ns": namespace}
    return {"configurable": configurable | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


def checkpoint(
    values: dict[str, Any] | None = None, *, checkpoint_id: str | None = None, **versions: Any
) -> Checkpoint:
    """A checkpoint whose channels all have version 1, but for `versions`."""
    values = values or {}
    return {
        "v": 4,
        "id": checkpoint_id or str(uuid6(clock_seq=1)),
        "ts": "2026-11-23T00:00:00+00:00",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, 1) | versions,
        "versions_seen": {},
        "updated_channels": None,
    }


def put(
    saver: BaseCheckpointSaver[Any], config: RunnableConfig, values: dict[str, Any] | None = None, **metadata: Any
) -> RunnableConfig:
    """Puts a new checkpoint below the one `config` names, all of whose channels are new."""
    new = checkpoint(values)
    return saver.put(config, new, {"source": "loop", "step": 0, "parents": {}, **metadata}, new["channel_versions"])  # type: ignore[typeddict-item]


def chain(saver: BaseCheckpointSaver[Any], config: RunnableConfig, count: int) -> list[RunnableConfig]:
    """`count` checkpoints, each the child of the one before."""
    configs = []
    for step in range(count):
        config = put(saver, config, {"n": step}, step=step)
        configs.append(config)
    return configs


def id_of(config: RunnableConfig) -> str:
    """The checkpoint id in a config."""
    return str(config["configurable"]["checkpoint_id"])
