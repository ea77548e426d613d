"""The contract of `Checkpointer`, kept by ours on every store there is, and by a third party's with three calls."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from s3_checkpoint import Checkpointer, S3Checkpointer
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.testing.contracts import CheckpointerContract
from tests.states import Counter


class TestS3Checkpointer(CheckpointerContract):
    """On the fixture `store`."""

    def state(self, n: int) -> Counter:
        """A model instead of plain JSON."""
        return Counter(n=n)

    @pytest.fixture
    def checkpointer(self, store: ObjectStore) -> Checkpointer[Counter]:
        return S3Checkpointer(Counter, store)


class ThreeCalls(Checkpointer[Any]):
    """A third party's: states as text in a dict."""

    def __init__(self) -> None:
        self._runs: dict[UUID, dict[int, str]] = {}

    async def save(self, run_id: UUID | str, step: int, state: Any) -> None:
        self._runs.setdefault(UUID(str(run_id)), {})[step] = repr(state)

    async def load(self, run_id: UUID | str, step: int | None = None) -> Any:
        steps = self._runs.get(UUID(str(run_id)), {})
        text = steps.get(max(steps, default=0) if step is None else step)
        return None if text is None else eval(text)

    async def list(self, run_id: UUID | str) -> list[int]:
        return sorted(self._runs.get(UUID(str(run_id)), {}))


class TestThreeCalls(CheckpointerContract):
    """The defaults of `Checkpointer` do the rest."""

    keeps_active_tasks = False
    commits_once = False

    @pytest.fixture
    def checkpointer(self) -> Checkpointer[Any]:
        return ThreeCalls()
