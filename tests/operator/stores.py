"""A store that lets calls take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from s3_checkpoint.object_store import ObjectStore
from tests.faults import Request, Send, T, Wrapper


class Turns(Wrapper):
    """Holds every call until it is chosen: `choose(n)` says which of the n that wait goes next."""

    def __init__(self, store: ObjectStore, choose: Callable[[int], int]) -> None:
        super().__init__(store)
        self._choose = choose
        self._waiting: list[asyncio.Future[None]] = []

    async def around(self, request: Request, send: Send[T]) -> T:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn
        return await send()

    async def play(
        self, *work: Coroutine[Any, Any, object], after_each: Callable[[], Coroutine[Any, Any, None]]
    ) -> list[object]:
        """Runs `work` to its end, one call at a time, with `after_each` between them; gives results or exceptions."""
        tasks = [asyncio.ensure_future(one) for one in work]
        while True:
            for _ in range(12):  # until whoever can go on has come to its next call
                await asyncio.sleep(0)
            if not self._waiting:
                break
            self._waiting.pop(self._choose(len(self._waiting))).set_result(None)
            for _ in range(4):
                await asyncio.sleep(0)
            await after_each()
        return list(await asyncio.gather(*tasks, return_exceptions=True))


class EverySchedule:
    """Chooses so that, over successive plays, every order of calls comes up exactly once."""

    def __init__(self) -> None:
        self._path: list[list[int]] = []
        self._at = 0
        self.played = 0

    def __call__(self, count: int) -> int:
        if self._at == len(self._path):
            self._path.append([0, count])
        chosen = self._path[self._at][0]
        self._at += 1
        return chosen

    def next(self) -> bool:
        """Moves to the next order; False when there is none."""
        self.played += 1
        self._at = 0
        while self._path and self._path[-1][0] + 1 == self._path[-1][1]:
            self._path.pop()
        if not self._path:
            return False
        self._path[-1][0] += 1
        return True
