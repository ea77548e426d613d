"""Who is measured: this library, the bare SDK, and published savers, each as far as it is installed and runs.

All do the same work: store a state of text under a thread, find the latest one, list what is there.
"""

from __future__ import annotations

import asyncio
import importlib.util
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import BaseModel

from s3_checkpoint import S3Checkpointer, S3Settings, connect
from s3_checkpoint._format.keys import RunKeys
from tests.benchmarks.bare_clients import BUCKET, default_client
from tests.benchmarks.postgres_server import postgres_url, server_available


class State(BaseModel):
    """What is checkpointed."""

    text: str


class Contestant(ABC):
    """One way to keep checkpoints."""

    name: str
    package: str = ""
    on_s3 = True
    longest: int = 10_000
    """The longest history that it is worth waiting for."""
    filled: dict[str, int]

    def __init__(self, url: str, scratch: Path) -> None:
        self.url, self.scratch = url, scratch
        self.stack = AsyncExitStack()
        self.filled = {}

    @classmethod
    def missing(cls) -> str:
        """Why it cannot run here; empty if it can."""
        return "" if not cls.package or _installed(cls.package) else f"{cls.package} is not installed"

    @property
    def version(self) -> str:
        """Of the package it comes from."""
        return version(self.package) if self.package else ""

    @abstractmethod
    async def open(self) -> None:
        """Ready for use."""

    @abstractmethod
    async def save(self, thread: str, step: int, text: str) -> None:
        """Stores one state."""

    @abstractmethod
    async def latest(self, thread: str) -> int:
        """Loads the latest state; its length in characters."""

    async def resume(self, thread: str) -> int:
        """Loads the latest state and the tasks or writes that are pending."""
        return await self.latest(thread)

    @abstractmethod
    async def count(self, thread: str) -> int:
        """How many checkpoints a listing of the thread gives."""

    async def fill(self, thread: str, count: int, text: str) -> None:
        """Makes the thread `count` checkpoints long."""
        for step in range(self.filled.get(thread, 0), count):
            await self.save(thread, step, text)
        self.filled[thread] = count


class Library(Contestant):
    """`S3Checkpointer`, opened by `connect`."""

    name = "s3_checkpoint"
    prefix = "ours"

    async def open(self) -> None:
        self.checkpointer: S3Checkpointer[State] = await self.stack.enter_async_context(connect(State, self.settings()))

    def settings(self) -> S3Settings:
        """For the stub."""
        return S3Settings.from_url(f"s3://{BUCKET}/{self.prefix}", endpoint_url=self.url, region_name="us-east-1")

    async def save(self, thread: str, step: int, text: str) -> None:
        await self.checkpointer.save(run_of(thread), step, State(text=text))

    async def latest(self, thread: str) -> int:
        state = await self._new_process().load(run_of(thread))
        return len(state.text) if state else 0

    async def resume(self, thread: str) -> int:
        checkpoint = await self._new_process().resume(run_of(thread))
        return len(checkpoint.state.text) if checkpoint else 0

    async def count(self, thread: str) -> int:
        return len(await self._new_process().list(run_of(thread)))

    def run(self, thread: str) -> RunKeys:
        """Where the steps of the thread are."""
        return RunKeys(self.prefix, run_of(thread))

    def _new_process(self) -> S3Checkpointer[State]:
        """A checkpointer that has seen no step yet, on the same client."""
        return S3Checkpointer(State, self.checkpointer.objects.store, prefix=self.prefix)


class LibraryWithHint(Library):
    """The same, in a process that has seen a recent step."""

    name = "s3_checkpoint, step seen"
    prefix = "seen"

    def _new_process(self) -> S3Checkpointer[State]:
        return self.checkpointer


class Bare(Contestant):
    """aioboto3's default client, kept open: put_object, get_object, and every page of a listing."""

    name = "bare aioboto3"
    package = "aioboto3"

    async def open(self) -> None:
        self.client: Any = await self.stack.enter_async_context(default_client(self.url))

    async def save(self, thread: str, step: int, text: str) -> None:
        body = State(text=text).model_dump_json().encode()
        await self.client.put_object(Bucket=BUCKET, Key=f"bare/{thread}/{step:020d}.json", Body=body)

    async def latest(self, thread: str) -> int:
        return len(await self.load((await self._keys(thread))[-1]))

    async def load(self, key: str) -> str:
        """The text of the state at `key`."""
        answer = await self.client.get_object(Bucket=BUCKET, Key=key)
        async with answer["Body"] as stream:
            return State.model_validate_json(await stream.read()).text

    async def count(self, thread: str) -> int:
        return len(await self._keys(thread))

    async def _keys(self, thread: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"bare/{thread}/")
        return [line["Key"] async for page in pages for line in page.get("Contents", ())]


class Saver(Contestant):
    """A LangGraph saver."""

    saver: Any
    sync = False

    def __init__(self, url: str, scratch: Path) -> None:
        super().__init__(url, scratch)
        self.parents: dict[str, str] = {}

    async def save(self, thread: str, step: int, text: str) -> None:
        from langgraph.checkpoint.base import empty_checkpoint

        checkpoint = empty_checkpoint()
        checkpoint["channel_values"] = {"text": text}
        checkpoint["channel_versions"] = {"text": f"{step:032}.0"}
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": self.parents.get(thread)}}
        metadata = {"source": "loop", "step": step, "parents": {}}
        await self._call("put", config, checkpoint, metadata, dict(checkpoint["channel_versions"]))
        self.parents[thread] = checkpoint["id"]

    async def latest(self, thread: str) -> int:
        found = await self._call("get_tuple", {"configurable": {"thread_id": thread, "checkpoint_ns": ""}})
        return len(found.checkpoint["channel_values"]["text"])

    async def count(self, thread: str) -> int:
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        if self.sync:
            return await asyncio.to_thread(lambda: sum(1 for _ in self.saver.list(config)))
        return len([found async for found in self.saver.alist(config)])

    async def _call(self, method: str, *arguments: Any) -> Any:
        if self.sync:
            return await asyncio.to_thread(getattr(self.saver, method), *arguments)
        return await getattr(self.saver, "a" + method)(*arguments)


class LibrarySaver(Saver):
    """`S3Saver` of this library."""

    name = "s3_checkpoint.langgraph"
    package = "langgraph-checkpoint"

    async def open(self) -> None:
        from s3_checkpoint.langgraph import S3Saver

        saver = S3Saver.from_conn_string(
            f"s3://{BUCKET}/saver",
            endpoint_url=self.url,
            region_name="us-east-1",
            cache_bytes=0,  # as in a process that has not read the thread before
        )
        self.saver = await self.stack.enter_async_context(saver)


class ObjectStorage(Saver):
    """`ObjectStorageSaver` on s3fs."""

    name = "objectstorage"
    package = "langgraph-checkpoint-objectstorage"

    @classmethod
    def missing(cls) -> str:
        return super().missing() or ("" if importlib.util.find_spec("s3fs") else "s3fs is not installed")

    async def open(self) -> None:
        from langgraph_checkpoint_objectstorage import ObjectStorageSaver

        self.saver = ObjectStorageSaver.from_conn_string(
            f"s3://{BUCKET}/objectstorage",
            client_kwargs={"endpoint_url": self.url, "region_name": "us-east-1"},
            asynchronous=True,
        )
        self.stack.push_async_callback(self._close)

    async def _close(self) -> None:
        await (await self.saver.fs.set_session()).close()


class TigrisSync(Saver):
    """`TigrisSaver`, a boto3 client kept open."""

    name = "tigris sync"
    package = "langgraph-checkpoint-tigris"
    sync = True

    async def open(self) -> None:
        from langgraph.checkpoint.tigris import TigrisSaver

        self.saver = TigrisSaver(BUCKET, prefix="tigris", endpoint_url=self.url, region_name="us-east-1")


class TigrisAsync(Saver):
    """`AsyncTigrisSaver`, an aioboto3 client for every call; the sync one, which is quicker, puts its history there."""

    name = "tigris async"
    package = "langgraph-checkpoint-tigris"
    longest = 1_000

    async def open(self) -> None:
        from langgraph.checkpoint.tigris.aio import AsyncTigrisSaver

        self.saver = AsyncTigrisSaver(BUCKET, prefix="tigris-async", endpoint_url=self.url, region_name="us-east-1")
        self.filler = TigrisSync(self.url, self.scratch)
        await self.filler.open()
        self.filler.saver.prefix = "tigris-async"

    async def fill(self, thread: str, count: int, text: str) -> None:
        await self.filler.fill(thread, count, text)


class Sqlite(Saver):
    """`AsyncSqliteSaver` on a file."""

    name = "sqlite"
    package = "langgraph-checkpoint-sqlite"
    on_s3 = False

    async def open(self) -> None:
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        saver = AsyncSqliteSaver.from_conn_string(str(self.scratch / "checkpoints.sqlite"))
        self.saver = await self.stack.enter_async_context(saver)


class Postgres(Saver):
    """`AsyncPostgresSaver` on a server of its own, on loopback."""

    name = "postgres"
    package = "langgraph-checkpoint-postgres"
    on_s3 = False

    @classmethod
    def missing(cls) -> str:
        return super().missing() or ("" if server_available() else "no PostgreSQL server is installed here")

    async def open(self) -> None:
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver  # type: ignore[import-not-found,unused-ignore]

        url = self.stack.enter_context(postgres_url(self.scratch))
        self.saver = await self.stack.enter_async_context(AsyncPostgresSaver.from_conn_string(url))
        await self.saver.setup()


CONTESTANTS: list[type[Contestant]] = [
    Library,
    LibraryWithHint,
    LibrarySaver,
    Bare,
    ObjectStorage,
    TigrisSync,
    TigrisAsync,
    Sqlite,
    Postgres,
]


def run_of(thread: str) -> UUID:
    """The run that represents a thread."""
    return uuid5(NAMESPACE_URL, thread)


def _installed(package: str) -> bool:
    try:
        version(package)
    except ModuleNotFoundError:
        return False
    return True
