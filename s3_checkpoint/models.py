"""Public values that a checkpointer takes and returns: frozen and plain. Those of whole runs are in `run_models`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, TypeAlias, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, JsonValue

StateT = TypeVar("StateT")

Migration: TypeAlias = Callable[[Any], JsonValue]
"""From the JSON value of one schema version to that of the next."""

InlineTasks: TypeAlias = Literal["auto", "always", "never"]
"""Whether a commit puts the active tasks into the state's metadata, if they fit; see `S3Settings.inline_tasks`."""

SnapshotObjects: TypeAlias = Literal["always", "when_large"]
"""Whether a commit writes an active snapshot object for tasks that the state carries inline too: for people and tools,
no call of the library needs it. `when_large`: only for tasks that are not inline."""


class ActiveSnapshot(BaseModel, frozen=True):
    """A task that is to run in the next superstep."""

    model_config: ClassVar[ConfigDict] = ConfigDict(defer_build=True)

    node_name: str
    """The node to dispatch on resume."""
    payload: JsonValue | None = None
    """The payload sent to that task, if any: a JSON value."""


@dataclass(frozen=True, slots=True)
class Checkpoint(Generic[StateT]):
    """A whole step: the state and the tasks that run next, as one commit stored them."""

    run_id: UUID
    step: int
    state: StateT
    active: tuple[ActiveSnapshot, ...] = ()

    @property
    def next_step(self) -> int:
        """The step that comes after it."""
        return self.step + 1


@dataclass(frozen=True, slots=True)
class Overtaken:
    """A step that is not the newest of its run: the one after it is stored, and perhaps later ones."""

    run_id: UUID
    step: int
    next_active: tuple[ActiveSnapshot, ...] | None
    """The active tasks of the step after it, where its metadata carries them."""


@dataclass(frozen=True, slots=True)
class StepInfo:
    """What a listing tells of a stored step, without reading it."""

    step: int
    size: int
    """Bytes as stored, after compression."""
    last_modified: datetime
    """When the store took it, in UTC."""
