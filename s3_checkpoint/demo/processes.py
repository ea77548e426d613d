"""The processes of the demonstration: none outlives it, however it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from s3_checkpoint.settings import S3Settings
from s3_checkpoint.superstep_queue import SuperstepQueue

BUCKET = "s3-checkpoint-demo"
QUEUE_VISIBILITY_S = 2
"""How long the queue hides a message that a worker has taken: after that, a killed worker's comes again."""


def environment(settings: S3Settings) -> dict[str, str]:
    """The environment that gives a worker these settings; the queue's credentials are never the bucket's."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("S3_CHECKPOINT_")}
    variables |= settings.environment()
    if settings.access_key_id is not None:
        variables |= {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo"}
        variables.pop("AWS_PROFILE", None)
    return variables


@asynccontextmanager
async def process(module: str, *arguments: str, env: dict[str, str] | None = None) -> AsyncIterator[Any]:
    """A Python process that runs `module`, and has ended on leaving.

    It has a session of its own, so Ctrl-C does not reach it: it ends when its standard input does, or is killed.
    """
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()  # reads what is left and closes the pipes


@asynccontextmanager
async def server() -> AsyncIterator[str]:
    """The URL of an S3 and SQS in a process of its own."""
    async with process("s3_checkpoint.demo.server") as running:
        url = (await running.stdout.readline()).decode().strip()
        if not url:
            raise RuntimeError("the local S3 and SQS server did not start; its own words are above")
        yield url


def local_settings(url: str) -> S3Settings:
    """Settings for a bucket on the server at `url`; what else is set in the environment stays."""
    return S3Settings.model_validate(
        {
            "bucket": BUCKET,
            "endpoint_url": url,
            "region_name": "us-east-1",
            "access_key_id": "demo",
            "secret_access_key": "demo",
            "session_token": None,
            "profile_name": None,
            "expected_bucket_owner": None,
            "kms_key_id": None,
        }
    )


@asynccontextmanager
async def local_queue(url: str) -> AsyncIterator[tuple[SuperstepQueue, str]]:
    """A new queue on the server at `url`, and its own URL."""
    from aiobotocore.session import AioSession

    session = AioSession()
    session.set_credentials("demo", "demo")  # it takes any
    async with session.create_client("sqs", region_name="us-east-1", endpoint_url=url) as client:
        answer = await client.create_queue(
            QueueName=f"s3-checkpoint-demo-{uuid4().hex}", Attributes={"VisibilityTimeout": str(QUEUE_VISIBILITY_S)}
        )
        yield SuperstepQueue(client, answer["QueueUrl"]), answer["QueueUrl"]
