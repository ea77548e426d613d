"""A store that counts: what was sent, in how many round trips, how much at once:

    store = Counting(MemoryStore())
    async with connect(Research, store=store) as checkpointer:
        await checkpointer.commit(run_id, 0, state, tasks)
        assert store.taken() == {"LIST": 1, "PUT": 2}

A request that a transport repeats counts once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from s3_checkpoint.object_store import PAGE_KEYS, ObjectStore
from s3_checkpoint.testing.wrappers import Request, Send, StoreWrapper, T, Verb

SHORT: Final[dict[Verb, str]] = {
    "GetObject": "GET",
    "HeadObject": "HEAD",
    "PutObject": "PUT",
    "ListObjectsV2": "LIST",
    "DeleteObjects": "DELETE",
    "CopyObject": "COPY",
}
"""What `Counting.requests` calls them."""


class Counting(StoreWrapper):
    """Passes every request on. Those sent before any of them is answered are one round trip."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.requests: Counter[str] = Counter()
        """By short verb, since the last `reset`."""
        self.sent: list[Request] = []
        """The same, one by one, in order."""
        self.rounds: int = 0
        """Round trips, since the last `reset`."""
        self.in_flight: int = 0
        self.most_in_flight: int = 0
        """The most requests that were on their way at once."""
        self._round: asyncio.Future[None] | None = None

    def reset(self) -> None:
        """Counts from zero again."""
        self.requests.clear()
        self.sent.clear()
        self.rounds = 0

    def taken(self) -> dict[str, int]:
        """The requests since the last time this was asked."""
        requests = dict(self.requests)
        self.reset()
        return requests

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`; each batch of 1,000 counts."""
        for start in range(0, len(keys), PAGE_KEYS):
            await super().delete(keys[start : start + PAGE_KEYS])

    async def around(self, request: Request, send: Send[T]) -> T:
        """Counts the request, and sends it when all of its round trip have been made."""
        self.requests[SHORT[request.verb]] += 1
        self.sent.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self._round is None:
                self.rounds += 1
                self._round = asyncio.ensure_future(self._gather())
            await asyncio.shield(self._round)
            return await send()
        finally:
            self.in_flight -= 1

    async def _gather(self) -> None:
        seen = quiet = 0
        while quiet < 12:  # turns of the loop, in which calls that depend on no answer have been made
            quiet = quiet + 1 if len(self.sent) == seen else 0
            seen = len(self.sent)
            await asyncio.sleep(0)
        self._round = None
