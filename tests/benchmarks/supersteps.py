"""A superstep by message, and the operator's calls on a long run, in a process that has seen nothing of the run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Literal
from uuid import UUID

from s3_checkpoint import ActiveSnapshot, Graph, Next, RunAdmin, S3Checkpointer, Task, run_superstep
from s3_checkpoint._format.keys import RunKeys
from tests.benchmarks.bare_clients import BUCKET
from tests.benchmarks.contestants import Library, State
from tests.benchmarks.measuring import COUNTING_MS
from tests.benchmarks.stub_process import StubProcess
from tests.benchmarks.targets import Row, wall

HISTORY = 10_000
"""Steps that the run has: the next message is that of the last."""


async def _think(state: State, task: Task) -> Next:
    return Next(update="", goto="think")


GRAPH: Graph[State] = Graph(start="think", nodes={"think": _think}, apply=lambda state, update: state)


async def by_message(stub: StubProcess, library: Library, say: Callable[[str], None]) -> list[Row]:
    """One superstep of a run of 10,000 steps, as the Lambda handler makes it for a message."""
    store, run = library.checkpointer.objects.store, RunKeys(library.prefix, UUID(int=3))
    tasks = [ActiveSnapshot(node_name="think")]
    await library.checkpointer.commit(run.run_id, 0, State(text="x" * 2048), tasks)
    stub.copy(BUCKET, run.state(0), HISTORY)
    await library.checkpointer.commit(run.run_id, HISTORY, State(text="x" * 2048), tasks)  # young, as before a message
    step = HISTORY

    def cold(snapshots: Literal["always", "when_large"]) -> S3Checkpointer[State]:
        return S3Checkpointer(State, store, prefix=library.prefix, snapshot_objects=snapshots)

    async def superstep(checkpointer: S3Checkpointer[State], expected: int) -> None:
        await run_superstep(checkpointer, GRAPH, run.run_id, expected_step=expected, max_steps=2 * HISTORY)

    rows: list[Row] = []
    for what, snapshots, most in (
        ("a superstep by message", "always", 4),
        ('the same, snapshot_objects="when_large"', "when_large", 3),
    ):
        stub.set(latency_ms=COUNTING_MS)
        await superstep(cold(snapshots), step)  # type: ignore[arg-type]
        requests, trips = stub.counts()
        stub.set(latency_ms=20)
        took = await wall(partial(superstep, cold(snapshots), step + 1))  # type: ignore[arg-type]
        step += 2
        stub.set()
        say(f"{what} at {HISTORY:,} steps: {requests}, {trips} round trips, {took * 1000:.0f} ms at 20 ms")
        rows += [
            (f"{what}: requests to S3", f"≤ {most}", sum(requests.values()), ""),
            (f"{what}: round trips", "≤ 2", trips, ""),
            (f"{what}, 20 ms for each request", "", took * 1000, "ms"),
        ]
    return rows


async def operators_calls(stub: StubProcess, library: Library, say: Callable[[str], None]) -> list[Row]:
    """The newest entry of a long history, and a dry prune of it."""
    store, run = library.checkpointer.objects.store, RunKeys(library.prefix, UUID(int=4))
    await library.checkpointer.commit(run.run_id, 0, State(text="x" * 2048), [])
    stub.copy(BUCKET, run.state(0), 10 * HISTORY)
    admin: RunAdmin[Any] = RunAdmin(S3Checkpointer(State, store, prefix=library.prefix))

    stub.set(latency_ms=COUNTING_MS)
    async for _ in admin.history(run.run_id):
        break
    first, trips = stub.counts()
    stub.set()
    await admin.prune(run.run_id, keep_last=100, older_than=timedelta(0), dry_run=True)
    prune, _ = stub.counts()
    stub.set()
    say(f"newest entry of the history of {10 * HISTORY:,} steps: {first}, {trips} round trips; dry prune: {prune}")
    return [
        ("newest entry of a history of 100,000 steps: LISTs", "≤ 60", first["ListObjectsV2"], ""),
        ("newest entry of a history of 100,000 steps: round trips", "≤ 9", trips, ""),
        ("prune of 100,000 steps, dry: requests", "≤ 160", sum(prune.values()), ""),
    ]
