"""What every test can ask for: a moto server on loopback, a bucket of its own in it, and stores on either side."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import hypothesis
import pytest

from s3_checkpoint import MemoryStore, S3Settings
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint._transports import open_store
from s3_checkpoint.object_store import ObjectStore, pages
from s3_checkpoint.testing import LocalS3, PrefixedStore, local_s3

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    # A shell starts its background jobs so; the commands that tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

TRANSPORTS = ("aiobotocore", "obstore")
# The same examples in every run, so that main stays green; make test ARGS=--hypothesis-profile=search looks for others.
# No deadline: an example's time says how busy the machine is.
hypothesis.settings.register_profile("search", deadline=None)
hypothesis.settings.register_profile("the same", deadline=None, derandomize=True)
hypothesis.settings.load_profile("the same")

CREDENTIALS = {"access_key_id": "testing", "secret_access_key": "testing"}


def pytest_collection() -> None:
    """What is imported to find the tests stays: looking for garbage in it takes 0.4 s a process, and finds none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Spares the garbage collector what is there as long as the tests run: modules, and the tests themselves.

    It took a quarter of the suite's time to look at them again and again.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees neither the developer's AWS configuration nor the instance metadata service.

    But for one on a real bucket: its credentials, region and endpoint are the developer's.
    """
    if request.node.get_closest_marker("bucket"):
        return
    for name in list(os.environ):
        if name.startswith(("AWS_", "S3_CHECKPOINT_")) and not name.startswith("S3_CHECKPOINT_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture(scope="session")
def local() -> Iterator[LocalS3]:
    """An S3 that lives as long as the test session, on a free loopback port."""
    with local_s3() as s3:
        yield s3


@pytest.fixture(scope="session")
def moto_url(local: LocalS3) -> str:
    """Where the S3 of the test session answers; moto's other services do too."""
    return local.endpoint_url


@pytest.fixture
def new_settings(local: LocalS3) -> Iterator[Callable[..., S3Settings]]:
    """Makes settings for a new, empty bucket on the moto server; the bucket goes with the test."""
    made: list[str] = []

    def new_bucket(**options: Any) -> S3Settings:
        settings = local.new_bucket(**options)
        made.append(settings.bucket)
        return settings

    yield new_bucket
    if made:
        local.forget(*made)


@pytest.fixture
def settings(new_settings: Callable[..., S3Settings]) -> S3Settings:
    """A new, empty bucket on the moto server."""
    return new_settings()


@pytest.fixture(params=TRANSPORTS)
def settings_by_transport(request: pytest.FixtureRequest, settings: S3Settings) -> S3Settings:
    """The same, for each transport in turn."""
    return settings.model_copy(update={"transport": request.param})


@pytest.fixture
async def s3_store(settings: S3Settings) -> AsyncIterator[S3ObjectStore]:
    """An open store on the bucket of `settings`."""
    async with client_for(settings) as client:
        yield S3ObjectStore(client, settings)


STORES = [pytest.param("memory"), pytest.param("moto"), pytest.param("moto-obstore")]
REAL_BUCKET, REAL_ENDPOINT = os.environ.get("S3_CHECKPOINT_TEST_BUCKET"), os.environ.get("S3_CHECKPOINT_TEST_ENDPOINT")
if REAL_BUCKET:
    STORES += [pytest.param(name, marks=pytest.mark.bucket) for name in ("bucket", "bucket-obstore")]


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    """An empty object store: in memory, on the moto server by either transport, on a real bucket where one is named."""
    where, _, transport = request.param.partition("-")
    if where == "memory":
        yield MemoryStore()
        return
    if where == "moto":
        async with open_store(request.getfixturevalue("new_settings")(transport=transport or "aiobotocore")) as opened:
            yield opened
        return
    settings = S3Settings.resolve(REAL_BUCKET, endpoint_url=REAL_ENDPOINT or None)
    settings = settings.model_copy(update={"transport": transport or "aiobotocore"})
    async with open_store(settings) as opened, _part_of(opened, f"s3-checkpoint-tests/{uuid4()}/") as part:
        yield part


@asynccontextmanager
async def _part_of(store: ObjectStore, prefix: str) -> AsyncIterator[ObjectStore]:
    """An empty store in a bucket that is in use; nothing is left of it, and nothing else is seen or changed."""
    part = PrefixedStore(store, prefix)
    try:
        yield part
    finally:
        left = [key async for page in pages(part, "") for key in page.keys]
        await part.delete(left)
