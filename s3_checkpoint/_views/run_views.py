"""Steps of runs as they are stored, read as plain JSON: their types, schema versions and migrations are elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import JsonValue, TypeAdapter

from s3_checkpoint._concurrency.gather import Budget, ordered_map
from s3_checkpoint._format.json_codec import JsonCodec
from s3_checkpoint._format.json_diff import Change, differences
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._format.size_estimate import estimated_bytes
from s3_checkpoint._runs.fork import Fork, fork_of, origin_of
from s3_checkpoint._runs.step_objects import StoredStep
from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.errors import StateDecodingError
from s3_checkpoint.models import ActiveSnapshot
from s3_checkpoint.run_admin import RunAdmin
from s3_checkpoint.run_models import Origin

STEPS_AHEAD = 8
BYTES_AHEAD = 4 * 1024**2
"""Of the steps read ahead of what is shown, as they are stored: as Python values they take some ten times that."""
RUNS_SEARCHED = 500
"""The most runs that are looked at for forks."""


@dataclass(frozen=True, slots=True)
class StepView:
    """A step as it is stored, nothing migrated."""

    step: int
    last_modified: datetime
    size: int
    schema_version: str
    write_id: str
    committed: bool
    """Whether `commit` wrote it; else `save` did."""
    encoding: str | None
    origin: Origin | None
    state: JsonValue
    active: tuple[ActiveSnapshot, ...]

    def as_row(self, run_id: UUID) -> dict[str, JsonValue]:
        """For JSON output."""
        return {
            "run_id": str(run_id),
            "step": self.step,
            "last_modified": self.last_modified.isoformat(),
            "size": self.size,
            "schema_version": self.schema_version,
            "write_id": self.write_id,
            "committed": self.committed,
            "encoding": self.encoding,
            "origin": {"run_id": str(self.origin.run_id), "step": self.origin.step} if self.origin else None,
            "active": [task.model_dump(mode="json") for task in self.active],
            "state": self.state,
        }


@dataclass(frozen=True, slots=True)
class Damaged:
    """A step that is there and cannot be trusted."""

    step: int
    error: StateDecodingError


Pairs = AsyncGenerator[tuple[StepView | None, StepView], None]
"""Each step behind the one before it."""


class RunViews:
    """The steps that `checkpointer` sees, whatever its state type; a state has at most `max_state_bytes`."""

    def __init__(self, checkpointer: S3Checkpointer[Any], max_state_bytes: int) -> None:
        self._checkpointer = checkpointer
        self._codec: JsonCodec[JsonValue] = JsonCodec(
            lambda: TypeAdapter(Any), root="$", compression=None, max_bytes=max_state_bytes
        )

    async def step(self, run: RunKeys, step: int) -> StepView | None:
        """A step of the run, or None if it is not stored.

        Requests:
            1 GET; 1 more if the tasks are not inline.

        Raises:
            StateDecodingError: It is stored and cannot be trusted.
        """
        stored = await self._checkpointer.objects.get_step(run, step)
        return self._read(run, step, stored) if stored is not None else None

    def _read(self, run: RunKeys, step: int, whole: StoredStep) -> StepView:
        stored, metadata = whole.state.stored, whole.state.metadata
        return StepView(
            step=step,
            last_modified=stored.head.last_modified,
            size=stored.head.size,
            schema_version=metadata.schema_version,
            write_id=metadata.write_id,
            committed=bool(metadata.active),
            encoding=stored.head.attributes.content_encoding,
            origin=origin_of(metadata),
            state=self._codec.decode(self._checkpointer.objects.bucket, run.state(step), stored),
            active=tuple(whole.active),
        )

    async def steps(self, run: RunKeys, numbers: Sequence[int]) -> AsyncGenerator[StepView | Damaged, None]:
        """The steps `numbers` of the run, in that order; one that cannot be read says so in its place.

        Requests:
            Those of `step` for each, at most `STEPS_AHEAD` steps and about `BYTES_AHEAD` ahead of the caller.
        """

        async def look(step: int) -> tuple[int, StoredStep | Damaged | None]:
            try:
                return step, await self._checkpointer.objects.get_step(run, step)
            except StateDecodingError as error:
                return step, Damaged(step, error)

        async with ordered_map(look, numbers, ahead=STEPS_AHEAD, budget=Budget(BYTES_AHEAD, _weight)) as looked_at:
            async for step, found in looked_at:
                if isinstance(found, Damaged):
                    yield found
                elif found is not None:
                    try:
                        view = self._read(run, step, found)
                    except StateDecodingError as error:
                        yield Damaged(step, error)
                    else:
                        del found  # the reader holds a step as long as it likes; its bytes need not stay so long
                        yield view

    async def pairs(self, run: RunKeys, numbers: Sequence[int], damaged: list[Damaged]) -> Pairs:
        """As `steps`, each with the readable one before it; those that cannot be read go into `damaged`."""
        before: StepView | None = None
        async with aclosing(self.steps(run, numbers)) as views:
            async for view in views:
                if isinstance(view, Damaged):
                    damaged.append(view)
                else:
                    yield before, view
                    before = view

    async def forks(self, parent: UUID) -> tuple[list[Fork], int]:
        """The forks of `parent` among the first `RUNS_SEARCHED` runs, and how many runs were looked at.

        Requests:
            The LISTs of `RunAdmin.runs`, and 1 LIST and 1 HEAD per run.
        """
        runs: list[UUID] = []
        async for run_id in RunAdmin(self._checkpointer).runs():
            if len(runs) == RUNS_SEARCHED:
                break
            if run_id != parent:
                runs.append(run_id)

        async def one(run_id: UUID) -> Fork | None:
            return await fork_of(self._checkpointer.objects.store, RunKeys(self._checkpointer.prefix, run_id), parent)

        async with ordered_map(one, runs, ahead=16) as found:
            return [fork async for fork in found if fork is not None], len(runs)


def _weight(looked_at: tuple[int, StoredStep | Damaged | None]) -> int:
    found = looked_at[1]
    if found is None or isinstance(found, Damaged):
        return 0
    return len(found.state.stored.body) + estimated_bytes(found.active, BYTES_AHEAD)


def changes_between(old: StepView, new: StepView) -> list[tuple[str, Change]]:
    """What changed in the state (root `$`) and in the active tasks (root `$active`)."""
    found = [("$", change) for change in differences(old.state, new.state)]
    return found + [("$active", change) for change in differences(_tasks(old), _tasks(new))]


def _tasks(view: StepView) -> list[JsonValue]:
    return [task.model_dump(mode="json") for task in view.active]


def missing_between(before: StepView | None, view: StepView) -> tuple[int, int] | None:
    """First and last of the steps that lie between the two, and are not stored."""
    return (before.step + 1, view.step - 1) if before is not None and view.step > before.step + 1 else None


def timeline_row(run: RunKeys, before: StepView | None, view: StepView) -> dict[str, Any]:
    """A step of a timeline as JSON, for programs and for the page; state and changes included."""
    changes = changes_between(before, view) if before else []
    missing = missing_between(before, view)
    return {
        **view.as_row(run.run_id),
        "changes": [_change(root, change) for root, change in changes],
        "missing_before": list(missing) if missing else None,
        "pause_s": (view.last_modified - before.last_modified).total_seconds() if before else 0.0,
    }


def _change(root: str, change: Change) -> dict[str, JsonValue]:
    """A change; one of the state with its path as keys too, which for odd keys are surer than text."""
    row = change.as_row(root)
    return row | {"at": list(change.path)} if root == "$" else row


def fork_rows(forks: Sequence[Fork]) -> list[dict[str, JsonValue]]:
    """Forks as JSON."""
    return [{"run_id": str(fork.run_id), "step": fork.step} for fork in forks]
