"""Public values that tell of runs, as `RunAdmin` returns them: frozen and plain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic
from uuid import UUID

from s3_checkpoint.models import ActiveSnapshot, StateT


@dataclass(frozen=True, slots=True)
class Origin:
    """The step a run was forked from."""

    run_id: UUID
    step: int

    def __str__(self) -> str:
        return f"{self.run_id}/{self.step}"


class RunStatus(StrEnum):
    """What becomes of a run, as the tasks of its newest step tell."""

    WAITING = "waiting"
    """A task waits for a human: its node is one of those that the caller names."""
    ACTIVE = "active"
    """Tasks run next: a worker is at them, or none has been yet."""
    FINISHED = "finished"
    """Nothing runs next."""


@dataclass(frozen=True, slots=True)
class RunActivity:
    """A run and its newest step; all but the id None where a run has no step (yet)."""

    run_id: UUID
    newest_step: int | None = None
    last_modified: datetime | None = None
    """When the newest step was stored, in UTC."""
    status: RunStatus | None = None
    """None too where the newest step was `save`d without tasks, or its tasks cannot be trusted (`resume` says why)."""
    next_nodes: tuple[str, ...] | None = None
    """The nodes that run next, each named once, in task order; empty for a finished run; None where `status` is."""


@dataclass(frozen=True, slots=True)
class HistoryEntry(Generic[StateT]):
    """A step as it was stored."""

    step: int
    last_modified: datetime
    """When the store took it, in UTC."""
    size: int
    """Bytes of the state object as stored, after compression."""
    state: StateT
    active: tuple[ActiveSnapshot, ...]
    origin: Origin | None
    """The step of another run that this one is a copy of, if it is the beginning of a fork."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a call of `prune` or `delete` removed; with `dry_run`, what it would remove."""

    run_id: UUID
    steps: tuple[int, ...]
    """The run's own steps that went, ascending; those of namespaces are counted below only."""
    kept: int
    """Steps that stay, namespaces included."""
    states: int
    """State objects that went, namespaces included."""
    snapshots: int
    """Active snapshots that went, namespaces included; of `delete`: every object that is not a state."""
    bytes: int
    """What these took in the bucket, as stored."""
    dry_run: bool
    young: int = 0
    """Of the steps that stay, those that only the grace period keeps."""
    left: int = 0
    """Of `delete`: active snapshots left because a commit in progress may be about to name them."""


@dataclass(frozen=True, slots=True)
class PrunedRuns:
    """What a call of `prune_all` removed, over all runs; with `dry_run`, what it would remove."""

    runs: int
    kept: int
    states: int
    snapshots: int
    bytes: int
    dry_run: bool
    young: int = 0

    def plus(self, one: Pruned) -> PrunedRuns:
        """This and one run more."""
        return PrunedRuns(
            self.runs + 1,
            self.kept + one.kept,
            self.states + one.states,
            self.snapshots + one.snapshots,
            self.bytes + one.bytes,
            self.dry_run,
            self.young + one.young,
        )


@dataclass(frozen=True, slots=True)
class RunUsage:
    """What a run takes in the bucket: current versions of objects, namespaces included."""

    run_id: UUID
    objects: int
    bytes: int
    steps: int
    """The run's own steps."""
    last_modified: datetime
    """When its newest object was stored, in UTC."""

    def plus(self, more: RunUsage) -> RunUsage:
        """This and more of the same run."""
        return RunUsage(
            self.run_id,
            self.objects + more.objects,
            self.bytes + more.bytes,
            self.steps + more.steps,
            max(self.last_modified, more.last_modified),
        )
