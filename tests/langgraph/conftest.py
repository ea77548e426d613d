"""Savers for the tests of the LangGraph saver: on a memory store, and on the moto server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver


@pytest.fixture(params=["memory", "moto"])
def new_saver(request: pytest.FixtureRequest) -> Iterator[Callable[[], S3Saver]]:
    """Makes savers that see nothing of each other, open."""
    source = MemoryStore() if request.param == "memory" else request.getfixturevalue("settings")
    with ExitStack() as stack:
        yield lambda: stack.enter_context(S3Saver(source, prefix=f"app/{uuid4()}"))


@pytest.fixture
def saver(new_saver: Callable[[], S3Saver]) -> S3Saver:
    """A saver on an empty store, open."""
    return new_saver()
