"""The command line on a bucket of the moto server: a class to call it, and the fixtures that tests of it share."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import boto3
import pytest
from typer.testing import CliRunner, Result

from s3_checkpoint import ActiveSnapshot, RunAdmin, S3Settings, connect
from s3_checkpoint.cli.app import build

FIRST = UUID("aaaa0000-0000-4000-8000-000000000001")
FORK = UUID("aaaa1111-0000-4000-8000-000000000002")
SAVED = UUID("bbbb0000-0000-4000-8000-000000000003")
NODES = ("plan", "search", "write")


class Cli:
    """The command line in this process, against a bucket of the moto server; stdout is a pipe."""

    def __init__(self, bucket: str, endpoint_url: str, transport: str = "aiobotocore") -> None:
        self.bucket = bucket
        self.env = {
            "S3_CHECKPOINT_BUCKET": bucket,
            "S3_CHECKPOINT_ENDPOINT_URL": endpoint_url,
            "S3_CHECKPOINT_REGION_NAME": "us-east-1",
            "S3_CHECKPOINT_TRANSPORT": transport,
            "S3_CHECKPOINT_MAX_ATTEMPTS": "1",
            "S3_CHECKPOINT_CONNECT_TIMEOUT_S": "120",  # a busy machine connects and answers late
            "S3_CHECKPOINT_READ_TIMEOUT_S": "120",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __call__(self, *arguments: str, stdin: str = "", **env: str) -> Result:
        return CliRunner().invoke(build(), list(arguments), input=stdin, env=self.env | env)

    def on(self, transport: str) -> Cli:
        """The same bucket by another transport; `obstore` opens in a fraction of the CPU time."""
        return Cli(self.bucket, self.env["S3_CHECKPOINT_ENDPOINT_URL"], transport)

    def settings(self) -> S3Settings:
        """The same bucket, for calls."""
        return S3Settings.model_validate(
            {
                "bucket": self.bucket,
                "endpoint_url": self.env["S3_CHECKPOINT_ENDPOINT_URL"],
                "region_name": "us-east-1",
                "access_key_id": "testing",
                "secret_access_key": "testing",
            }
        )

    def json(self, *arguments: str) -> Any:
        """What the command writes with `--output json`, read back; the command must succeed."""
        result = self(*arguments, "--output", "json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)


def new_bucket(moto_url: str) -> Cli:
    client = boto3.client(
        "s3",
        endpoint_url=moto_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    bucket = f"cli-{uuid4().hex}"
    client.create_bucket(Bucket=bucket)
    client.close()
    return Cli(bucket, moto_url)


def with_three_runs(cli: Cli) -> Cli:
    """Twelve committed steps with a gap, a fork of them, and one saved step."""

    async def fill() -> None:
        async with connect(dict[str, Any], cli.settings(), schema_version=3) as checkpointer:
            for step in (*range(7), *range(11, 16)):
                state = {"question": "why", "notes": [f"note <{n}>" for n in range(step)], "final": step == 15}
                tasks = [ActiveSnapshot(node_name=NODES[step % 3], payload={"section": step})]
                await checkpointer.commit(FIRST, step, state, tasks)
            await RunAdmin(checkpointer).fork(FIRST, 3, FORK)
            await checkpointer.commit(FORK, 1, {"question": "why", "notes": ["other"]}, [])
            await checkpointer.save(SAVED, 0, {"only": "state"})

    asyncio.run(fill())
    return cli


@pytest.fixture
def cli(moto_url: str, request: pytest.FixtureRequest) -> Cli:
    """The command line on a new, empty bucket; by the module's `TRANSPORT`, if it names one."""
    return new_bucket(moto_url).on(_transport(request))


@pytest.fixture(scope="module")
def three_runs(moto_url: str, request: pytest.FixtureRequest) -> Cli:
    """The command line on a bucket with three runs, which the module's tests share and do not change."""
    return with_three_runs(new_bucket(moto_url)).on(_transport(request))


@pytest.fixture
def own_runs(moto_url: str, request: pytest.FixtureRequest) -> Cli:
    """The same, for one test alone."""
    return with_three_runs(new_bucket(moto_url)).on(_transport(request))


def _transport(request: pytest.FixtureRequest) -> str:
    return getattr(request.module, "TRANSPORT", "aiobotocore")
