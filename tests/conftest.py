"""What every test can ask for: a moto server on loopback, a bucket of its own in it, and stores on either side."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from s3_checkpoint import MemoryStore, S3Settings
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint._transports import open_store
from s3_checkpoint.demo.server import OneS3RequestAtATime
from s3_checkpoint.object_store import ObjectStore

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    # A shell starts its background jobs so; the commands that tests start and interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

TRANSPORTS = ("aiobotocore", "obstore")
CREDENTIALS = {"access_key_id": "testing", "secret_access_key": "testing"}


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A test sees neither the developer's AWS configuration nor the instance metadata service."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "S3_CHECKPOINT_")) and not name.startswith("S3_CHECKPOINT_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """An S3 that lives as long as the test session, on a free loopback port."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = OneS3RequestAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture
def new_settings(moto_url: str) -> Callable[..., S3Settings]:
    """Makes settings for a new, empty bucket on the moto server."""

    def make(**fields: object) -> S3Settings:
        bucket = f"test-{uuid4().hex}"
        client = boto3.client(
            "s3",
            endpoint_url=moto_url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket=bucket)
        client.close()
        values = {"bucket": bucket, "endpoint_url": moto_url, "region_name": "us-east-1", **CREDENTIALS, **fields}
        return S3Settings.model_validate(values)

    return make


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


def _real_bucket() -> S3Settings:
    endpoint = os.environ.get("S3_CHECKPOINT_TEST_ENDPOINT") or None
    prefix = f"s3-checkpoint-tests/{uuid4()}"
    return S3Settings(bucket=os.environ["S3_CHECKPOINT_TEST_BUCKET"], prefix=prefix, endpoint_url=endpoint)


STORES = [pytest.param("memory"), pytest.param("moto"), pytest.param("moto-obstore")]
if os.environ.get("S3_CHECKPOINT_TEST_BUCKET"):
    STORES += [pytest.param(name, marks=pytest.mark.bucket) for name in ("bucket", "bucket-obstore")]


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    """An empty object store: in memory, on the moto server by either transport, on a real bucket where one is named."""
    if request.param == "memory":
        yield MemoryStore()
        return
    where, _, transport = request.param.partition("-")
    settings = request.getfixturevalue("settings") if where == "moto" else _real_bucket()
    async with open_store(settings.model_copy(update={"transport": transport or "aiobotocore"})) as opened:
        yield opened
