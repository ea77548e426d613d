"""What an operator sees of a checkpoint: values as JSON, what runs next, what waits for a human. Pure.

Read without the graph: which nodes run next is in the names of channels, and which task a pending write is of in its
task path, as LangGraph 1 makes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from langgraph.checkpoint.base import WRITES_IDX_MAP
from pydantic import JsonValue

from s3_checkpoint._format.json_diff import Change, differences
from s3_checkpoint.errors import StateDecodingError
from s3_checkpoint.langgraph.chunked_payloads import load_payload
from s3_checkpoint.langgraph.conversion import DELTA_COUNTERS
from s3_checkpoint.langgraph.json_view import TYPE, JsonViews, is_encrypted
from s3_checkpoint.langgraph.records import applied
from s3_checkpoint.langgraph.thread_store import StoredCheckpoint

TASKS = "__pregel_tasks"
ERROR, INTERRUPT = "__error__", "__interrupt__"
_START = "__start__"
_MARKS = ("branch:to:", "join:")
_PULL, _PUSH = "~__pregel_pull, ", "~__pregel_push, "
_JOIN = re.compile(r"join:(?P<starts>.*):(?P<end>[^:]*)", re.DOTALL)


class ThreadStatus(StrEnum):
    """What becomes of a thread, as its newest checkpoint tells."""

    INTERRUPTED = "interrupted"
    """A task waits for a human's answer."""
    IN_ERROR = "in error"
    """A task failed, and has not run again."""
    ACTIVE = "active"
    """Tasks run next: a process works on them, or has stopped before them."""
    IDLE = "idle"
    """Nothing runs next: the graph has come to its end, and the next input begins it again."""
    UNKNOWN = "unknown"
    """What runs next is encrypted, and nothing waits or failed."""
    UNREADABLE = "unreadable"
    """Its newest checkpoint cannot be trusted; `ThreadAdmin.checkpoint` says why."""


@dataclass(frozen=True, slots=True)
class WriteView:
    """A pending write of a task."""

    task_id: str
    node: str | None
    """The node whose task wrote it; None where its task path does not say."""
    channel: str
    value: JsonValue

    def as_row(self) -> dict[str, JsonValue]:
        """For JSON output."""
        return {"task_id": self.task_id, "node": self.node, "channel": self.channel, "value": self.value}


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """A checkpoint as it is stored, its values as JSON (`json_view`)."""

    thread_id: str
    namespace: str
    id: str
    parent_id: str | None
    saved_at: datetime
    """When it was put, by the clock of the process that put it, in UTC."""
    size: int
    """Bytes of its payloads, large values and pending writes included, as far as they were read."""
    metadata: JsonValue
    values: dict[str, JsonValue]
    """The channels a state is made of; not those by which LangGraph triggers nodes."""
    delta_channels: tuple[str, ...]
    """Channels that are rebuilt from the writes of ancestors: their values are not stored here."""
    next: tuple[str, ...] | None
    """The nodes that run next, as LangGraph's history tells them; None if that is encrypted."""
    writes: tuple[WriteView, ...]
    """The pending writes, in the order in which LangGraph applies them."""

    @property
    def step(self) -> int | None:
        """LangGraph's count of supersteps: -1 for an input; None where the metadata does not say."""
        step = self.metadata.get("step") if isinstance(self.metadata, dict) else None
        return step if isinstance(step, int) and not isinstance(step, bool) else None

    @property
    def source(self) -> str | None:
        """What made it: input, loop, update or fork."""
        source = self.metadata.get("source") if isinstance(self.metadata, dict) else None
        return source if isinstance(source, str) else None

    @property
    def encrypted(self) -> bool:
        """Whether what it is made of could not be read."""
        return is_encrypted(self.metadata)

    @property
    def remaining(self) -> tuple[str, ...] | None:
        """Of `next`, the nodes whose tasks have not written what they had to write."""
        if self.next is None:
            return None
        left = [*self.next]
        for node in {write.task_id: write.node for write in self.writes if write.task_id in self._finished}.values():
            if node in left:
                left.remove(node)
        return tuple(left)

    @property
    def status(self) -> ThreadStatus:
        """What becomes of the thread, if this is its newest checkpoint."""
        special = {write.channel for write in self.writes if write.task_id not in self._finished}
        if ERROR in special:
            return ThreadStatus.IN_ERROR
        if INTERRUPT in special:
            return ThreadStatus.INTERRUPTED
        remaining = self.remaining
        if remaining is None:
            return ThreadStatus.UNKNOWN
        return ThreadStatus.ACTIVE if remaining else ThreadStatus.IDLE

    @property
    def _finished(self) -> set[str]:
        """The tasks that have written more than what LangGraph notes of them."""
        return {write.task_id for write in self.writes if write.channel not in WRITES_IDX_MAP}

    @property
    def interrupts(self) -> tuple[WriteView, ...]:
        """What waits for a human's answer."""
        return tuple(write for write in self.writes if write.channel == INTERRUPT)

    def as_row(self) -> dict[str, JsonValue]:
        """For JSON output."""
        return {
            "thread_id": self.thread_id,
            "namespace": self.namespace,
            "checkpoint_id": self.id,
            "parent_id": self.parent_id,
            "saved_at": self.saved_at.isoformat(),
            "step": self.step,
            "source": self.source,
            "next": None if self.next is None else [*self.next],
            "size": self.size,
            "encrypted": self.encrypted,
            "metadata": self.metadata,
            "values": self.values,
            "delta_channels": [*self.delta_channels],
            "writes": [write.as_row() for write in self.writes],
        }


def asked(value: JsonValue) -> list[JsonValue]:
    """What tasks gave to `interrupt`, of the value of such a write; an encrypted one is that alone."""
    if not isinstance(value, list):
        return [value]
    return [one["value"] if isinstance(one, dict) and "value" in one else one for one in value]


@dataclass(frozen=True, slots=True)
class ThreadActivity:
    """A thread and its newest checkpoint in the root namespace; all but the id None where it has none there."""

    thread_id: str
    checkpoint_id: str | None = None
    saved_at: datetime | None = None
    step: int | None = None
    status: ThreadStatus | None = None
    next: tuple[str, ...] | None = None
    """The nodes that run next; None if that is encrypted."""
    waits_for: tuple[JsonValue, ...] = ()
    """What tasks wait for, as they gave it to `interrupt`."""

    def as_row(self) -> dict[str, JsonValue]:
        """For JSON output."""
        return {
            "thread_id": self.thread_id,
            "checkpoint_id": self.checkpoint_id,
            "saved_at": self.saved_at.isoformat() if self.saved_at else None,
            "step": self.step,
            "status": self.status.value if self.status else None,
            "next": None if self.next is None else [*self.next],
            "waits_for": [*self.waits_for],
        }


@dataclass(frozen=True, slots=True)
class ThreadUsage:
    """What a thread takes in the bucket: current versions of objects, all namespaces."""

    thread_id: str
    objects: int
    bytes: int
    last_modified: datetime
    """When its newest object was stored, in UTC."""


@dataclass(frozen=True, slots=True)
class PrunedThread:
    """What a call of `prune` or `delete` removed of a thread; with `dry_run`, what it would remove."""

    thread_id: str
    checkpoints: int
    kept: int
    """Checkpoints that stay."""
    namespaces: int
    """Namespaces of subgraphs that went whole."""
    objects: int
    """Objects that went: checkpoints, their writes, and large values that only they referred to. Values go at once
    only from a saver without grace; else they are marked, and removed by a prune a grace period later."""
    bytes: int
    """What these took in the bucket, as stored."""
    dry_run: bool


def changes_between(old: CheckpointView | None, new: CheckpointView) -> list[tuple[str, Change]]:
    """What changed in the values (root `$`), the nodes that run next (`$next`) and the pending writes (`$writes`)."""
    sides: list[tuple[str, JsonValue, JsonValue]] = [
        ("$", old.values if old else {}, new.values),
        ("$next", [*(old.next or ())] if old else [], [*(new.next or ())]),
        ("$writes", _written(old) if old else [], _written(new)),
    ]
    return [(root, change) for root, before, after in sides for change in differences(before, after)]


def _written(view: CheckpointView) -> list[JsonValue]:
    return [{"node": write.node, "channel": write.channel, "value": write.value} for write in view.writes]


def checkpoint_view(thread_id: str, checkpoint: StoredCheckpoint, bucket: str, views: JsonViews) -> CheckpointView:
    """The view of a stored checkpoint. Large values that were not read are shown as such.

    Raises `StateDecodingError` for a large value whose content is not the one that was stored under its name.
    """
    record, values = checkpoint.record, checkpoint.values
    fields: Any = views.loads_typed(record.checkpoint)
    metadata = views.loads_typed(record.metadata)
    stored: dict[str, JsonValue] = {}
    for channel, payload in record.inline.items():
        stored[channel] = load_payload(views, payload)
    for channel, ref in record.values.items():
        body = values.get(ref.name)
        if body is not None and not ref.is_of(channel, body):
            reason = "its content does not match its name"
            raise StateDecodingError(bucket, checkpoint.keys.value(ref.name), reason)
        stored[channel] = {TYPE: "not read"} if body is None else load_payload(views, (ref.tag, body))
    versions = _dict(_dict(fields).get("channel_versions"))
    order = [*versions, *stored]
    shown = {name: stored[name] for name in dict.fromkeys(order) if name in stored and not _is_trigger(name)}
    tasks = stored.get(TASKS)
    written = [
        WriteView(task_id, _node(row.task_path, tasks), row.channel, load_payload(views, row.payload))
        for task_id, row in applied(checkpoint.writes)
    ]
    following = None if is_encrypted(fields) else _next(fields, stored)
    counted = _dict(_dict(metadata).get(DELTA_COUNTERS))
    delta = tuple(name for name in counted if name in versions and name not in stored)
    size = checkpoint.size + len(record.checkpoint[1]) + len(record.metadata[1])
    size += sum(len(row.payload[1]) for one in checkpoint.writes for row in one.rows)
    return CheckpointView(
        thread_id=thread_id,
        namespace=record.namespace,
        id=record.id,
        parent_id=record.parent,
        saved_at=record.saved_at,
        size=size,
        metadata=metadata,
        values=shown,
        delta_channels=delta,
        next=following,
        writes=tuple(written),
    )


def _is_trigger(channel: str) -> bool:
    """Whether a channel is LangGraph's own, by which nodes are triggered."""
    return channel.startswith(_MARKS) or channel in (TASKS, _START)


def _node(path: str, tasks: JsonValue) -> str | None:
    """The node that a task path names, or the `Send` that it counts."""
    if path.startswith(_PULL):
        return path[len(_PULL) :]
    number = path[len(_PUSH) :].partition(",")[0] if path.startswith(_PUSH) else ""
    if number.isdecimal() and isinstance(tasks, list) and int(number) < len(tasks):
        return _sent_to(tasks[int(number)])
    return None


def _sent_to(task: JsonValue) -> str | None:
    node = task.get("node") if isinstance(task, dict) else None
    return node if isinstance(node, str) else None


def _next(fields: Any, stored: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """The nodes that the channels trigger, and those that tasks were sent to."""
    nodes: list[str] = []
    for channel in stored:
        node = _triggered(channel, stored[channel])
        if node is not None and _is_new(fields, node, channel):
            nodes.append(node)
    tasks = stored.get(TASKS)
    nodes += [node for task in (tasks if isinstance(tasks, list) else []) if (node := _sent_to(task)) is not None]
    return tuple(nodes)


def _triggered(channel: str, value: JsonValue) -> str | None:
    """The node that a channel with this value triggers, if it does."""
    waits = isinstance(value, list) and len(value) == 2 and value[1] is False  # a deferred node: not yet
    if channel == _START:
        return _START
    if channel.startswith("branch:to:"):
        return None if waits else channel.removeprefix("branch:to:")
    joined = _JOIN.fullmatch(channel)
    if joined is None or not isinstance(value, list) or waits:
        return None
    names = value[0] if len(value) == 2 and value[1] is True else value
    seen = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    starts = joined["starts"]
    complete = bool(seen) and sum(map(len, seen)) + len(seen) - 1 == len(starts)
    return joined["end"] if complete else None


def _is_new(fields: Any, node: str, channel: str) -> bool:
    """Whether the node has not yet run for this version of the channel."""
    before = _dict(_dict(_dict(fields).get("versions_seen")).get(node)).get(channel)
    return before is None or before != _dict(_dict(fields).get("channel_versions")).get(channel)


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
