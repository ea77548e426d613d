"""Session stores on every object store there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from s3_checkpoint.claude import S3SessionStore
from s3_checkpoint.object_store import ObjectStore

NewStore = Callable[..., S3SessionStore]


@pytest.fixture
def new_sessions(store: ObjectStore) -> NewStore:
    """Another process that uses the same bucket."""

    def make(**options: Any) -> S3SessionStore:
        return S3SessionStore(store, **options)

    return make


@pytest.fixture
def sessions(new_sessions: NewStore) -> S3SessionStore:
    return new_sessions()
