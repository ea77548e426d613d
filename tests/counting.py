"""The one counter of requests for stores of any kind: what was sent, in how many round trips, how much at once.

What leaves the SDK, its own repeats included, is counted by `tests/s3/sdk_requests.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from s3_checkpoint.object_store import PAGE_KEYS, ObjectStore
from tests.faults import Request, Send, T, Verb, Wrapper

SHORT: dict[Verb, str] = {
    "GetObject": "GET",
    "HeadObject": "HEAD",
    "PutObject": "PUT",
    "ListObjectsV2": "LIST",
    "DeleteObjects": "DELETE",
    "CopyObject": "COPY",
}


class Counting(Wrapper):
    """Passes every request on. Those sent before any of them is answered are one round trip."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.requests: Counter[str] = Counter()
        """By short verb, since the last `reset`."""
        self.sent: list[Request] = []
        """The same, one by one, in order."""
        self.rounds = 0
        self.in_flight = self.most_in_flight = 0
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
        for start in range(0, len(keys), PAGE_KEYS):
            await super().delete(keys[start : start + PAGE_KEYS])

    async def around(self, request: Request, send: Send[T]) -> T:
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
