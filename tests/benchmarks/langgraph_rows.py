"""The LangGraph rows: `S3Saver` and the published savers for object storage, doing the same work on the stub.

    python -m tests.benchmarks.langgraph_rows        prints the table; needs the extra `bench`

Requests and round trips are exact and the same on every machine; times are medians of three, and depend on it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint
from langgraph.checkpoint.base.id import uuid6

from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.langgraph.object_cache import CACHE_BYTES
from tests.benchmarks.stub_process import StubProcess, running_stub

Saver = BaseCheckpointSaver[Any]
BUCKET = "langgraph-rows"
LATENCY_MS = 20
VALUE = "x" * 4096
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Row:
    """What one saver needs for one kind of work. `wall_ms` is at 20 ms per request, `cpu_ms` at none."""

    work: str
    saver: str
    requests: int
    round_trips: int
    wall_ms: float
    cpu_ms: float


@asynccontextmanager
async def ours(url: str, **options: Any) -> AsyncIterator[Saver]:
    """`S3Saver`, by its async methods, without a cache: as in a process that has not read the thread before."""
    async with S3Saver.from_conn_string(
        f"s3://{BUCKET}/ours",
        endpoint_url=url,
        access_key_id="bench",
        secret_access_key="bench",
        **{"cache_bytes": 0} | options,
    ) as saver:
        yield saver


def ours_warm(url: str) -> AbstractAsyncContextManager[Saver]:
    """`S3Saver` as it comes: what this process has read is not asked for again."""
    return ours(url, cache_bytes=CACHE_BYTES)


@asynccontextmanager
async def tigris_async(url: str) -> AsyncIterator[Saver]:
    """langgraph-checkpoint-tigris, async: makes a client for each operation."""
    from langgraph.checkpoint.tigris.aio import AsyncTigrisSaver  # type: ignore[import-not-found,unused-ignore]

    yield AsyncTigrisSaver(BUCKET, prefix="tigris", endpoint_url=url, region_name="us-east-1")


@asynccontextmanager
async def tigris_sync(url: str) -> AsyncIterator[Saver]:
    """langgraph-checkpoint-tigris, sync."""
    from langgraph.checkpoint.tigris import TigrisSaver  # type: ignore[import-not-found,unused-ignore]

    saver = TigrisSaver(BUCKET, prefix="tigris", endpoint_url=url, region_name="us-east-1")
    yield InThread(saver)
    saver.client.close()


@asynccontextmanager
async def objectstorage(url: str) -> AsyncIterator[Saver]:
    """langgraph-checkpoint-objectstorage on s3fs."""
    from langgraph_checkpoint_objectstorage import ObjectStorageSaver  # type: ignore[import-not-found,unused-ignore]

    yield ObjectStorageSaver.from_conn_string(
        f"s3://{BUCKET}/objectstorage",
        endpoint_url=url,
        key="bench",
        secret="bench",
        use_listings_cache=False,
        skip_instance_cache=True,
    )


class InThread(BaseCheckpointSaver[Any]):
    """The async methods that the rows call, by the sync ones of another saver."""

    def __init__(self, saver: Saver) -> None:
        super().__init__(serde=saver.serde)
        self._saver = saver

    async def aput(self, *arguments: Any) -> RunnableConfig:
        return await asyncio.to_thread(self._saver.put, *arguments)

    async def aput_writes(self, *arguments: Any) -> None:
        await asyncio.to_thread(self._saver.put_writes, *arguments)

    async def aget_tuple(self, config: RunnableConfig) -> Any:
        return await asyncio.to_thread(self._saver.get_tuple, config)

    async def alist(self, config: RunnableConfig | None, **options: Any) -> AsyncIterator[Any]:
        for item in await asyncio.to_thread(lambda: list(self._saver.list(config, **options))):
            yield item

    async def adelete_thread(self, thread_id: str) -> None:
        await asyncio.to_thread(self._saver.delete_thread, thread_id)


Open = Callable[[str], AbstractAsyncContextManager[Saver]]
SAVERS: dict[str, tuple[Open, Open]] = {
    "S3Saver": (ours, ours),
    "S3Saver, warm": (ours_warm, ours),
    "tigris, async": (tigris_async, tigris_sync),
    "tigris, sync": (tigris_sync, tigris_sync),
    "objectstorage": (objectstorage, objectstorage),
}
"""How each is opened: to be measured, and to write the history before that, where another way is quicker."""
PACKAGES = {"tigris": "langgraph.checkpoint.tigris", "objectstorage": "langgraph_checkpoint_objectstorage"}


def installed() -> list[str]:
    """The savers that can be measured here."""
    return [
        name
        for name in SAVERS
        if all(find_spec(package) for peer, package in PACKAGES.items() if name.startswith(peer))
    ]


def config(thread: str, checkpoint_id: str | None = None) -> RunnableConfig:
    """The config of a checkpoint, or of the newest."""
    configurable = {"thread_id": thread, "checkpoint_ns": ""}
    return {"configurable": configurable | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


def checkpoint() -> Checkpoint:
    """A new one, with 4 KB of state."""
    return {
        "v": 4,
        "id": str(uuid6(clock_seq=1)),
        "ts": "2026-11-23T00:00:00+00:00",
        "channel_values": {"state": VALUE},
        "channel_versions": {"state": f"{1:032}.{0.5:016}"},
        "versions_seen": {},
        "updated_channels": None,
    }


async def put(saver: Saver, thread: str, new: Checkpoint | None = None, parent: str | None = None) -> None:
    """Puts one checkpoint."""
    new = new or checkpoint()
    await saver.aput(config(thread, parent), new, {"source": "loop", "step": 1, "parents": {}}, new["channel_versions"])


async def put_history(saver: Saver, thread: str, count: int) -> None:
    """A chain of `count` checkpoints."""
    chain = [checkpoint() for _ in range(count)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(index: int) -> None:
        async with gate:
            await put(saver, thread, chain[index], chain[index - 1]["id"] if index else None)

    await asyncio.gather(*(one(index) for index in range(count)))


@dataclass(frozen=True, slots=True)
class Work:
    """A thing to measure, on a thread with a history of `history` checkpoints."""

    name: str
    history: int
    run: Callable[[Saver, str], Awaitable[Any]]
    consumes: bool = False
    """Whether each run needs a history of its own."""


async def put_writes(saver: Saver, thread: str) -> None:
    """Three writes of a task."""
    await saver.aput_writes(
        config(thread, str(uuid6(clock_seq=1))), [("a", VALUE), ("b", 1), ("c", 2)], str(uuid6(clock_seq=1))
    )


async def latest(saver: Saver, thread: str) -> None:
    """The newest checkpoint."""
    found = await saver.aget_tuple(config(thread))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"state": VALUE}


async def list_ten(saver: Saver, thread: str) -> None:
    """The ten newest."""
    assert len([item async for item in saver.alist(config(thread), limit=10)]) == 10


def works(sizes: Iterable[int], deleted: int) -> list[Work]:
    """All there is to measure; `sizes` are the lengths of histories in which the newest is looked for."""
    return [
        Work("put, 4 KB", 1, put),
        Work("put_writes, 3 writes", 1, put_writes),
        *(Work(f"latest of {size:,}", size, latest) for size in sizes),
        Work("list(limit=10) of 100", 100, list_ten),
        Work(
            f"delete_thread of {deleted:,}", deleted, lambda saver, thread: saver.adelete_thread(thread), consumes=True
        ),
    ]


async def measure(
    stub: StubProcess, names: Iterable[str], todo: Iterable[Work], *, repeats: int = 3
) -> AsyncIterator[Row]:
    """A row for each saver and work; histories are written before, without latency, and not counted."""
    kinds = list(todo)
    for name in names:
        opening, filling = SAVERS[name]
        async with opening(stub.url) as saver, filling(stub.url) as filler:
            # The first call makes connections; what a client does once is not what is compared here.
            await saver.aget_tuple(config("unknown"))
            for work in kinds:
                # Names that every saver takes: some refuse blanks.
                unused = [uuid4().hex for _ in range(repeats * 2 if work.consumes else 1)]
                stub.set()
                for thread in unused:
                    await put_history(filler, thread, work.history)
                threads = iter(unused if work.consumes else unused * repeats * 2)
                before = time.process_time()
                for _ in range(repeats):
                    await work.run(saver, next(threads))
                cpu_ms = (time.process_time() - before) * 1000 / repeats
                walls: list[float] = []
                for _ in range(repeats):
                    stub.set(latency_ms=LATENCY_MS)
                    start = time.perf_counter()
                    await work.run(saver, next(threads))
                    walls.append((time.perf_counter() - start) * 1000)
                    requests, round_trips = stub.counts()
                yield Row(work.name, name, sum(requests.values()), round_trips, statistics.median(walls), cpu_ms)


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown: requests / one after another, wall ms at 20 ms per request (CPU ms at none)."""
    found = list(rows)
    names = list(dict.fromkeys(row.saver for row in found))
    cells = {
        (row.work, row.saver): f"{row.requests} / {row.round_trips}, {row.wall_ms:,.0f} ({row.cpu_ms:,.1f})"
        for row in found
    }
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for work in dict.fromkeys(row.work for row in found):
        lines.append(f"| {work} | {' | '.join(cells.get((work, name), '–') for name in names)} |")
    return "\n".join(lines)


def run(
    stub: StubProcess,
    *,
    sizes: Iterable[int] = (10, 1_000, 5_000),
    deleted: int = 1_000,
    names: Iterable[str] | None = None,
) -> list[Row]:
    """All rows, on a running stub."""
    # The peers read credentials from the environment only.
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    urlopen(Request(f"{stub.url}/{BUCKET}", method="PUT")).close()

    async def collect() -> list[Row]:
        return [row async for row in measure(stub, names or installed(), works(sizes, deleted))]

    return asyncio.run(collect())


def main() -> None:
    """Prints the table."""
    with running_stub() as stub:
        print(table(run(stub)))


if __name__ == "__main__":
    main()
