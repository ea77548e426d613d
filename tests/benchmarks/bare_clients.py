"""The SDK's client used bare, as `put_object` and `get_object`: what this library's calls are held against."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiobotocore.config import AioConfig
from botocore.handlers import add_expect_header

BUCKET = "bench"


class BareClient:
    """An open client: stores and reads bytes, and nothing else."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def put(self, key: str, body: bytes) -> None:
        """1 PUT."""
        await self._client.put_object(Bucket=BUCKET, Key=key, Body=body)

    async def get(self, key: str) -> bytes:
        """1 GET."""
        answer = await self._client.get_object(Bucket=BUCKET, Key=key)
        async with answer["Body"] as stream:
            return bytes(await stream.read())


@asynccontextmanager
async def default_client(url: str, **config: Any) -> AsyncIterator[Any]:
    """aioboto3's client as it comes, but for 64 connections."""
    import aioboto3

    settings = AioConfig(max_pool_connections=64, **config)
    async with aioboto3.Session().client("s3", endpoint_url=url, region_name="us-east-1", config=settings) as client:
        yield client


@asynccontextmanager
async def tuned_client(url: str) -> AsyncIterator[Any]:
    """aioboto3's client with what is known to help, done by hand and without a line of this library.

    No `Expect` before a PUT, endpoint rules worked out once, a fixed user agent, and, as this library has it for stores
    that are not AWS, no checksums but where required.
    """
    required = dict.fromkeys(("request_checksum_calculation", "response_checksum_validation"), "when_required")
    async with default_client(url, user_agent="tuned", **required) as client:
        client.meta.events.unregister("before-call.s3", add_expect_header)
        provider = client._ruleset_resolver._provider
        resolve = provider.resolve_endpoint
        provider.resolve_endpoint = lambda **parameters: resolve(
            **{name: value for name, value in parameters.items() if name not in ("Key", "Prefix", "CopySource")}
        )
        yield client
