"""The SDK's own conformance suite, whole."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from s3_checkpoint.claude import S3SessionStore
from s3_checkpoint.object_store import ObjectStore


@pytest.mark.parametrize("compression", [None, "gzip"])
async def test_every_contract_of_the_sdk_is_kept(store: ObjectStore, compression: Any) -> None:
    """No method is left out; each contract begins with an empty prefix."""
    from claude_agent_sdk.testing import run_session_store_conformance

    numbers = count()

    await run_session_store_conformance(
        lambda: S3SessionStore(store, prefix=f"contract-{next(numbers)}", compression=compression)
    )

    assert next(numbers) > 10
