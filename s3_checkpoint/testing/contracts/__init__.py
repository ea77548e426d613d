"""Test classes to inherit from: what an object store, or a checkpointer, must do for the rest to hold:

    class TestMyStore(ObjectStoreContract):
        @pytest_asyncio.fixture
        async def store(self):
            async with my_empty_store() as store:
                yield store

A store that passes keeps the promises of `commit` and `resume`; what it cannot do is said by the hooks. Needs pytest
and pytest-asyncio, of the extra `testing`.
"""

import pytest

for _name in ("checkpointer", "object_store"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")  # so that a failing assert shows its values

from s3_checkpoint.testing.contracts.checkpointer import CheckpointerContract  # noqa: E402
from s3_checkpoint.testing.contracts.object_store import ObjectStoreContract  # noqa: E402

__all__ = ["CheckpointerContract", "ObjectStoreContract"]
