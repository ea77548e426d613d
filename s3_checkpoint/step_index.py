"""Which steps a run has, by prefix listing alone: the latest, and all of them."""

from __future__ import annotations

from s3_checkpoint.keys import RunKeys
from s3_checkpoint.models import StepInfo
from s3_checkpoint.object_store import ObjectStore


class StepIndex:
    """Finds steps. Knows only the store's protocol."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def seen(self, run: RunKeys, step: int) -> None:
        """Remembers that the run has had this step, as a place to start the next search for the latest."""

    async def latest(self, run: RunKeys) -> int | None:
        """The greatest step of the run, or None if it has none."""
        return max(await self.steps(run), default=None)

    async def steps(self, run: RunKeys) -> list[int]:
        """All steps of the run, ascending. n/1000 LISTs."""
        return [info.step for info in await self.infos(run)]

    async def infos(self, run: RunKeys) -> list[StepInfo]:
        """All steps of the run with size and time, ascending. n/1000 LISTs."""
        found: list[StepInfo] = []
        token: str | None = None
        while True:
            page = await self._store.list(run.steps, token=token)
            for line in page.objects:
                step = run.parse_state(line.key)
                if step is not None:
                    found.append(StepInfo(step, line.size, line.last_modified))
            token = page.next_token
            if token is None:
                return sorted(found, key=lambda info: info.step)
