"""One walk through all seven calls, on every store."""

from __future__ import annotations

from uuid import uuid4

from pydantic import BaseModel

from s3_checkpoint import ActiveSnapshot, Checkpoint, S3Checkpointer
from s3_checkpoint.object_store import ObjectStore


class Research(BaseModel):
    question: str
    notes: list[str] = []


async def test_a_run_is_saved_committed_and_resumed(store: ObjectStore) -> None:
    """The seven calls give back what they were given."""
    checkpointer = S3Checkpointer(Research, store)
    run_id = uuid4()
    first, second = Research(question="why"), Research(question="why", notes=["because"])
    write = ActiveSnapshot(node_name="write", payload={"section": 2})

    await checkpointer.save(run_id, 0, first)
    await checkpointer.save_active(run_id, 0, [ActiveSnapshot(node_name="ask")])
    await checkpointer.commit(run_id, 3, second, [write])

    assert await checkpointer.load(run_id, 0) == first
    assert await checkpointer.load(run_id) == second
    assert await checkpointer.list(run_id) == [0, 3]
    assert await checkpointer.load_active(run_id, 0) == [ActiveSnapshot(node_name="ask")]
    assert await checkpointer.load_active(run_id, 3) == [write]
    assert await checkpointer.resume(run_id) == Checkpoint(run_id, 3, second, (write,))
    assert await checkpointer.load(run_id, 9) is None
