"""A user's program: every line of it is right, and passes `mypy --strict` and pyright. It is checked, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type
from uuid import UUID, uuid4

from pydantic import BaseModel, JsonValue

from s3_checkpoint import (
    END,
    ActiveSnapshot,
    Advance,
    Checkpoint,
    Checkpointer,
    CheckpointError,
    ConfigurationError,
    Graph,
    HistoryEntry,
    Interrupted,
    MemoryStore,
    Next,
    RequestEvent,
    RunAdmin,
    S3Checkpointer,
    S3Settings,
    StepConflictError,
    StoreUnavailableError,
    SyncS3Checkpointer,
    Task,
    connect,
    run_superstep,
)
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.object_store import ObjectStore


class Research(BaseModel):
    topic: str
    notes: list[str] = []


async def opened_in_each_way(client_settings: S3Settings) -> None:
    """By URL, by name, from the environment, from settings, on a store of one's own."""
    async with connect(Research, "s3://my-bucket/team") as checkpointer:
        assert_type(checkpointer, S3Checkpointer[Research])
    async with connect(Research, "my-bucket", schema_version=2, migrations={1: lambda old: old}):
        pass
    async with connect(Research):
        pass
    async with connect(Research, client_settings, on_request=print_event):
        pass
    async with connect(Research, store=MemoryStore()) as checkpointer:
        assert_type(checkpointer, S3Checkpointer[Research])
    async with connect(dict[str, JsonValue]) as untyped:
        assert_type(untyped, S3Checkpointer[dict[str, JsonValue]])
    async with S3Checkpointer(Research, MemoryStore()) as checkpointer:
        assert_type(checkpointer, S3Checkpointer[Research])


def print_event(event: RequestEvent) -> None:
    print(event.operation, event.duration_s)


async def committed_and_resumed(checkpointer: S3Checkpointer[Research], run_id: UUID | str) -> str:
    """A run's id is a UUID or its text; what is resumed has the state's own type."""
    await checkpointer.commit(run_id, 0, Research(topic="tides"), [ActiveSnapshot(node_name="write", payload={"n": 1})])
    await checkpointer.save("9b2f0a6e-5f0c-4c1e-8a57-3c1b8d1e2f30", 1, Research(topic="tides"))
    checkpoint = await checkpointer.resume(run_id)
    assert_type(checkpoint, Checkpoint[Research] | None)
    if checkpoint is None:
        return "new"
    assert_type(checkpoint.active, tuple[ActiveSnapshot, ...])
    return checkpoint.state.topic


async def operated(checkpointer: S3Checkpointer[Research]) -> None:
    """An operator's calls keep the state's type."""
    admin = RunAdmin(checkpointer)
    async for entry in admin.history(uuid4()):
        assert_type(entry, HistoryEntry[Research])
    assert_type((await admin.prune(uuid4(), keep_last=3)).steps, tuple[int, ...])


def without_a_loop() -> None:
    """The same calls, blocking."""
    with SyncS3Checkpointer(Research, "my-bucket") as checkpointer:
        assert_type(checkpointer.load(uuid4()), Research | None)
        assert_type(checkpointer.run(lambda inner: inner.list(uuid4())), list[int])
    SyncS3Checkpointer(Research, store=MemoryStore()).close()


async def handled(checkpointer: S3Checkpointer[Research]) -> None:
    """An error carries typed details."""
    try:
        await checkpointer.commit(uuid4(), 0, Research(topic=""), [])
    except StepConflictError as conflict:
        assert_type(conflict.step, int)
        assert_type(conflict.winner, str)
    except StoreUnavailableError as unavailable:
        assert_type(unavailable.outcome_unknown, bool)
    except ConfigurationError as wrong:
        assert_type(wrong.problem, str)
    except CheckpointError as error:
        assert_type(error.code, str)


async def write(state: Research, task: Task) -> Next:
    return Next({"notes": [task.node_name]}, END)


async def advanced(checkpointer: S3Checkpointer[Research]) -> None:
    """A small graph, one superstep at a time."""
    graph: Graph[Research] = Graph(
        start="write", nodes={"write": write}, apply=lambda state, update: state.model_copy(update=update)
    )
    advance = await run_superstep(checkpointer, graph, str(uuid4()), initial=Research(topic="tides"))
    assert_type(advance, Advance[Research])
    if isinstance(advance, Interrupted):
        print(advance.step)


class OwnCheckpointer(Checkpointer[Research]):
    """Only the three calls that a checkpointer must have."""

    async def save(self, run_id: UUID | str, step: int, state: Research) -> None:
        raise NotImplementedError

    async def load(self, run_id: UUID | str, step: int | None = None) -> Research | None:
        raise NotImplementedError

    async def list(self, run_id: UUID | str) -> list[int]:
        raise NotImplementedError


async def stored(checkpointer: Checkpointer[Research], tasks: Sequence[ActiveSnapshot]) -> None:
    """Any checkpointer will do, one of the user's own too."""
    await checkpointer.save_active(uuid4(), 0, tasks)


def used_by_langgraph() -> None:
    """A saver takes the settings as options."""
    with S3Saver.from_conn_string("s3://my-bucket", region_name="eu-west-1", secret_access_key="s", access_key_id="a"):
        pass
    S3Saver("my-bucket", inline_bytes=0)
    S3Saver(MemoryStore())


def a_store() -> ObjectStore:
    """The memory store is an object store."""
    return MemoryStore()
