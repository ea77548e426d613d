"""Faults that these tests have found, one test each, with the story in a sentence. More are beside their kind.

`grep -rn "Story:" tests/proofs` lists them all.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

import pytest

from s3_checkpoint import S3Checkpointer, StepConflictError, StoreUnavailableError
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.testing import (
    Aim,
    Request,
    Send,
    SlowDown503,
    StoreWrapper,
)
from tests.proofs.ledger import RUN, Work, tasks_of

T = TypeVar("T")


async def test_the_same_json_under_another_schema_version_is_a_conflict(store: ObjectStore) -> None:
    """Story: a newer worker was told that its state was stored; what was stored was to be migrated into another."""
    old = S3Checkpointer(Work, store)
    new = S3Checkpointer(Work, store, schema_version=2, migrations={1: lambda state: {"label": state["label"] + "!"}})
    await old.commit(RUN, 5, Work(label="a"), tasks_of("a"))

    with pytest.raises(StepConflictError):
        await new.commit(RUN, 5, Work(label="a"), tasks_of("a"))

    assert await new.load(RUN, 5) == Work(label="a!")


class HeadHangs(StoreWrapper):
    """The HEAD is never answered; `in_flight` says whether it still waits."""

    in_flight = False

    async def around(self, request: Request, send: Send[T]) -> T:
        if request.verb == "HeadObject":
            self.in_flight = True
            try:
                await asyncio.Event().wait()
            finally:
                self.in_flight = False
        return await send()


async def test_nothing_continues_behind_a_call_that_has_failed(store: ObjectStore) -> None:
    """Story: of two requests sent together one failed, and the other was still in flight when the caller was told."""
    hanging = HeadHangs(SlowDown503(store, Aim("GetObject")))

    with pytest.raises(StoreUnavailableError):
        await S3Checkpointer(Work, hanging).load_active(RUN, 5)

    assert not hanging.in_flight
