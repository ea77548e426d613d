"""Faults that these tests have found, one test each, with the story in a sentence. More stand beside their kind.

`grep -rn "Story:" tests/proofs` lists them all.
"""

from __future__ import annotations

import contextlib
import gc
import logging

import pytest

from s3_checkpoint import S3Checkpointer, StepConflictError, StoreUnavailableError
from s3_checkpoint.object_store import ObjectStore
from tests.faults import Aim, SlowDown503
from tests.proofs.ledger import RUN, Work, tasks_of


async def test_the_same_json_under_another_schema_version_is_a_conflict(store: ObjectStore) -> None:
    """Story: a newer worker was told that its state stood, while what stood was to be migrated into another."""
    old = S3Checkpointer(Work, store)
    new = S3Checkpointer(Work, store, schema_version=2, migrations={1: lambda state: {"label": state["label"] + "!"}})
    await old.commit(RUN, 5, Work(label="a"), tasks_of("a"))

    with pytest.raises(StepConflictError):
        await new.commit(RUN, 5, Work(label="a"), tasks_of("a"))

    assert await new.load(RUN, 5) == Work(label="a!")


async def test_two_reads_that_fail_at_once_leave_no_failure_behind(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Story: of two requests sent together, the second one's failure was never read, and the event loop complained."""
    checkpointer = S3Checkpointer(Work, SlowDown503(store, Aim(times=99)))

    with caplog.at_level(logging.ERROR):
        with contextlib.suppress(StoreUnavailableError):  # kept by nobody, so that what it holds is collected
            await checkpointer.load_active(RUN, 5)
        gc.collect()

    assert caplog.records == []
