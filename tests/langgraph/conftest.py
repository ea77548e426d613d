"""Savers and stores for the tests of LangGraph's interfaces: on a memory store, and on the moto server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from s3_checkpoint import MemoryStore, S3Settings
from s3_checkpoint._concurrency.loop_thread import LoopThread
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint._transports import open_store
from s3_checkpoint.langgraph import S3Saver, S3Store
from s3_checkpoint.object_store import ObjectStore
from tests.conftest import CREDENTIALS


@pytest.fixture(scope="session")
def shared_settings(moto_url: str) -> S3Settings:
    """One bucket for all the savers here; each has a prefix of its own."""
    settings = S3Settings.model_validate(
        {"bucket": f"savers-{uuid4().hex}", "endpoint_url": moto_url, "region_name": "us-east-1", **CREDENTIALS}
    )
    urlopen(Request(f"{moto_url}/{settings.bucket}", method="PUT")).close()
    return settings


@pytest.fixture(scope="session")
def moto_store(shared_settings: S3Settings) -> Iterator[S3ObjectStore]:
    """One open store, in a loop of its own: making a client takes longer than most tests here."""
    home, client = LoopThread("moto-store"), AsyncExitStack()

    async def make() -> S3ObjectStore:
        return S3ObjectStore(await client.enter_async_context(client_for(shared_settings)), shared_settings)

    yield home.run(make())
    home.run(client.aclose())
    home.close()


@pytest.fixture(scope="session")
def obstore_store(shared_settings: S3Settings) -> Iterator[ObjectStore]:
    """The same by the other transport."""
    home, opened = LoopThread("obstore-store"), AsyncExitStack()
    settings = shared_settings.model_copy(update={"transport": "obstore"})

    async def make() -> ObjectStore:
        return await opened.enter_async_context(open_store(settings))

    yield home.run(make())
    home.run(opened.aclose())
    home.close()


@pytest.fixture(params=["memory", "moto", pytest.param("obstore", marks=pytest.mark.long)])
def new_saver(request: pytest.FixtureRequest) -> Iterator[Callable[[], S3Saver]]:
    """Makes savers that see nothing of each other, open."""
    store = MemoryStore() if request.param == "memory" else request.getfixturevalue(f"{request.param}_store")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(S3Saver(store, prefix=f"app/{uuid4()}"))


@pytest.fixture
def saver(new_saver: Callable[[], S3Saver]) -> S3Saver:
    """A saver on an empty store, open."""
    return new_saver()


@pytest.fixture(params=["memory", "moto", "obstore"])
def memories(request: pytest.FixtureRequest) -> Iterator[S3Store]:
    """An empty store of items, open."""
    store = MemoryStore() if request.param == "memory" else request.getfixturevalue(f"{request.param}_store")
    with S3Store(store, prefix=f"app/{uuid4()}") as memories:
        yield memories
