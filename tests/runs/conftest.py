"""A store for tests that prune and delete whatever they find: never a real bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from s3_checkpoint import MemoryStore, S3Settings
from s3_checkpoint._transports import open_store
from s3_checkpoint.object_store import ObjectStore


@pytest.fixture(params=["memory", "aiobotocore", "obstore"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    """An empty store. Never a real bucket: these tests prune and delete whatever they find."""
    if request.param == "memory":
        yield MemoryStore()
        return
    settings: S3Settings = request.getfixturevalue("settings")
    async with open_store(settings.model_copy(update={"transport": request.param})) as opened:
        yield opened
