"""The mistakes that a type checker must see in a user's program. It is checked, never run.

Each is marked for both checkers, which also report a mark where there is no mistake: the file is green only while all
of them are seen.
"""

# pyright: standard, reportUnnecessaryTypeIgnoreComment=true, reportUnusedCoroutine=true

from __future__ import annotations

from typing import Any
from uuid import uuid4

from pydantic import BaseModel

import s3_checkpoint
from s3_checkpoint import (
    ActiveSnapshot,
    Checkpointer,
    ConfigurationError,
    Graph,
    MemoryStore,
    Next,
    S3Checkpointer,
    S3Settings,
    SyncS3Checkpointer,
    Task,
    connect,
)
from s3_checkpoint.langgraph import S3Saver


class Research(BaseModel):
    topic: str
    notes: list[str] = []


async def not_entered() -> None:
    """A connection is no checkpointer: `async with` makes one of it."""
    await connect(Research, "my-bucket").resume(uuid4())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    with connect(Research, "my-bucket"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass


async def misspelt(checkpointer: S3Checkpointer[Research]) -> None:
    """Names of methods, options, settings and fields."""
    s3_checkpoint.conect(Research)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    await checkpointer.resmue(uuid4())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    connect(Research, "my-bucket", schema_versoin=2)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    S3Settings(bucket="my-bucket", regoin_name="eu-west-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    S3Settings.from_url("s3://my-bucket", regoin_name="eu-west-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    S3Saver.from_conn_string("s3://my-bucket", regoin_name="eu-west-1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    SyncS3Checkpointer(Research, on_requests=print)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    checkpoint = await checkpointer.resume(uuid4())
    if checkpoint is not None:
        print(checkpoint.state.topci)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def in_the_wrong_place(client: Any) -> None:
    """A store goes by keyword; a client belongs to an event loop that the sync checkpointer does not have."""
    connect(Research, MemoryStore())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    SyncS3Checkpointer(Research, MemoryStore())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SyncS3Checkpointer(Research, client=client)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    S3Settings(bucket="my-bucket", compression="lzma")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def of_another_type(checkpointer: S3Checkpointer[Research]) -> None:
    """States are of the type the checkpointer was made for; tasks are snapshots; steps are numbers."""
    await checkpointer.commit(uuid4(), 0, {"topic": "tides"}, [])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await checkpointer.commit(uuid4(), 0, Research(topic="tides"), ["write"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    await checkpointer.commit(uuid4(), "0", Research(topic="tides"), [])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await checkpointer.commit(7, 0, Research(topic="tides"), [])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ActiveSnapshot(node_name="write", payload=object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def taken_for_granted(checkpointer: S3Checkpointer[Research]) -> None:
    """A run may have no step yet; a call must be awaited."""
    print((await checkpointer.resume(uuid4())).step)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
    checkpointer.save(uuid4(), 0, Research(topic="tides"))  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


def frozen(task: ActiveSnapshot, error: ConfigurationError) -> None:
    """Values are not changed, and errors have the attributes they have."""
    task.node_name = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    print(error.step)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def write(state: int, task: Task) -> Next:
    return Next(state, "write")


def a_graph_of_another_state() -> None:
    """The nodes of a graph take its state."""
    nodes = {"write": write}
    graph: Graph[Research] = Graph(start="write", nodes=nodes, apply=lambda state, _: state)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    print(graph)


class Incomplete(Checkpointer[Research]):
    """A checkpointer needs three calls."""


def made() -> None:
    Incomplete()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
