"""Opening and closing a saver: by `with`, by `async with`, or by `setup` and `close`."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from s3_checkpoint._format.thread_keys import threads_prefix
from s3_checkpoint.langgraph.home import Home
from s3_checkpoint.langgraph.thread_store import ThreadStore


class Lifecycle:
    """What has a home that is opened before use. Copies share it: one is open when the other is."""

    _home: Home

    def setup(self) -> None:
        """Opens the client if it is not, and checks that the bucket answers. 1 LIST. Can be repeated."""
        self._home.open()
        self._home.call(self._check)

    async def asetup(self) -> None:
        """See `setup`."""
        await self._home.aopen()
        await self._home.acall(self._check)

    def close(self) -> None:
        """Closes what the saver opened, and ends its thread. No request. It and its copies are of no use after."""
        self._home.close()

    async def aclose(self) -> None:
        """See `close`."""
        await self._home.aclose()

    def __enter__(self) -> Self:
        self._home.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._home.aopen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @staticmethod
    async def _check(threads: ThreadStore) -> None:
        await threads.objects.list(threads_prefix(threads.prefix), limit=1)
