"""Fixtures of the operator's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from s3_checkpoint import MemoryStore
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.s3_client import client_for
from s3_checkpoint.s3_store import S3ObjectStore


@pytest.fixture(params=["memory", "moto"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    """An empty store. Never a real bucket: these tests prune and delete whatever they find."""
    if request.param == "memory":
        yield MemoryStore()
        return
    settings = request.getfixturevalue("settings")
    async with client_for(settings) as client:
        yield S3ObjectStore(client, settings)
