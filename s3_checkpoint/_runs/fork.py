"""Forks: a run that begins with a copy of another run's step, and remembers where it came from.

A fork begins the new run at its **step 0**, created as a commit creates it: so forks, and workers that begin a run,
contend for one key, and one of them wins. The state object carries `origin: <run_id>/<step>` in its metadata. Body and
metadata come from one GET of the source, so they belong to one write of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from s3_checkpoint._format.keys import MAX_STEP, STEP_DIGITS, RunKeys
from s3_checkpoint._format.metadata import ObjectMetadata
from s3_checkpoint.object_store import PAGE_KEYS, ObjectStore
from s3_checkpoint.run_models import Origin

FIRST_STEP = 0
"""Where every run begins, forked or not."""


def origin_of(metadata: ObjectMetadata) -> Origin | None:
    """Where the state object was forked from; None for one that was not, or whose field is not ours."""
    run, _, step = metadata.origin.partition("/")
    # No more digits than a step has: `int` refuses thousands of them with an error of its own.
    if not (step.isascii() and step.isdigit() and len(step) <= STEP_DIGITS and int(step) <= MAX_STEP):
        return None
    try:
        return Origin(UUID(run), int(step))
    except ValueError:
        return None


def is_same_fork(theirs: ObjectMetadata, ours: ObjectMetadata) -> bool:
    """Whether both are the same step forked, with the same content, by whatever call."""
    same_tasks = theirs.active_digest == ours.active_digest
    return bool(ours.origin) and theirs.origin == ours.origin and theirs.digest == ours.digest and same_tasks


@dataclass(frozen=True, slots=True)
class Fork:
    """A run that was forked from another."""

    run_id: UUID
    step: int
    """The step of the other run that it begins with a copy of."""


async def fork_of(store: ObjectStore, run: RunKeys, parent: UUID) -> Fork | None:
    """`run` as a fork of `parent`; None if it is none. 1 LIST, and 1 HEAD.

    Its first step tells: once that is pruned, nothing does.
    """
    page = await store.list(run.steps, limit=PAGE_KEYS if not store.ordered else 1)
    steps = [step for listed in page.objects if (step := run.parse_state(listed.key)) is not None]
    head = await store.head(run.state(min(steps))) if steps else None
    origin = origin_of(ObjectMetadata.of(head)) if head is not None else None
    return Fork(run.run_id, origin.step) if origin is not None and origin.run_id == parent else None
