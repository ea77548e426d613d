"""A store for tests that prune and delete whatever they find: never a real bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from s3_checkpoint import MemoryStore
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.object_store import ObjectStore


@pytest.fixture(params=["memory", "moto"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    """An empty store. Never a real bucket: these tests prune and delete whatever they find."""
    if request.param == "memory":
        yield MemoryStore()
        return
    settings = request.getfixturevalue("settings")
    async with client_for(settings) as client:
        yield S3ObjectStore(client, settings)
