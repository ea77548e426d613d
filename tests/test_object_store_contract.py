"""The contract of `ObjectStore`, kept by every store there is: in memory, on the moto server, on a real bucket."""

from __future__ import annotations

import pytest

from s3_checkpoint import ConfigurationError, MemoryStore
from s3_checkpoint._obstore.store import ObstoreObjectStore
from s3_checkpoint.object_store import ObjectAttributes, ObjectStore
from s3_checkpoint.testing import PrefixedStore, StoreWrapper
from s3_checkpoint.testing.contracts import ObjectStoreContract


def _is_obstore(store: ObjectStore) -> bool:
    return isinstance(store.store if isinstance(store, PrefixedStore) else store, ObstoreObjectStore)


class TestObjectStores(ObjectStoreContract):
    """Of the fixture `store`."""

    def tells_the_time(self, store: ObjectStore) -> bool:
        """obstore hands on no header of an answer but the object's own."""
        return not _is_obstore(store)

    def takes_control_characters(self, store: ObjectStore) -> bool:
        """obstore cannot send them."""
        return not _is_obstore(store)

    @pytest.mark.parametrize("name", ["a\x01b", "a\tb"])
    async def test_obstore_refuses_a_key_that_it_cannot_send(self, store: ObjectStore, name: str) -> None:
        """And names the transport that can."""
        if not _is_obstore(store):
            pytest.skip("of obstore")

        with pytest.raises(ConfigurationError, match="aiobotocore"):
            await store.put(name, b"", ObjectAttributes(), mode="overwrite")
        with pytest.raises(ConfigurationError, match="aiobotocore"):
            await store.delete([name])


class TestWrappedStore(ObjectStoreContract):
    """A wrapper without a fault is a store like the one within."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        return StoreWrapper(MemoryStore())


class TestPrefixedStore(ObjectStoreContract):
    """A part of a store that holds other things too is an empty store."""

    @pytest.fixture
    async def store(self) -> ObjectStore:
        within = MemoryStore()
        for key in ("a", "p/0", "race", "zz/a", "part/", "part"):
            await within.put(key, b"of another user", ObjectAttributes(), mode="create")
        return PrefixedStore(within, "part/")
