"""The checkpoints of a thread, newest first, read in chunks."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._format.thread_keys import ThreadKeys, threads_prefix
from s3_checkpoint.errors import StateDecodingError
from s3_checkpoint.langgraph.records import CheckpointRecord
from s3_checkpoint.langgraph.thread_listing import (
    ListedCheckpoint,
    checkpoints,
    one_checkpoint,
    thread_checkpoints,
)
from s3_checkpoint.langgraph.thread_store import GoneError, StoredCheckpoint, ThreadStore

_logger = logging.getLogger("s3_checkpoint.langgraph")

FIRST_CHUNK, LARGEST_CHUNK = 8, 128
"""Checkpoints read at once: as many as are wanted, or few at first and twice as many each time."""
UNASKED_CHUNK = 32
"""The same, where nobody says how many are wanted and each comes with its large values: a bound on memory."""


class History:
    """The checkpoints that match, newest first, in chunks read at once. Belongs to the store's event loop.

    `namespace` None: all of them. `thread_id` None: all threads; then what cannot be read is left out. `keep`: which
    checkpoints to read whole. Requests: those of `S3Saver.list`.
    """

    def __init__(
        self,
        thread_id: str | None,
        namespace: str | None,
        *,
        checkpoint_id: str | None = None,
        before: str | None = None,
        keep: Callable[[str, CheckpointRecord], bool] | None = None,
        limit: int | None = None,
    ) -> None:
        self._asked_for = thread_id
        self._namespace = namespace
        self._checkpoint_id = checkpoint_id
        self._before = before
        self._keep = keep
        self._left: float = math.inf if limit is None else limit
        self._chunk = FIRST_CHUNK
        self._found: AsyncGenerator[ListedCheckpoint] | None = None
        self._read_ahead: deque[StoredCheckpoint | None] = deque()
        """What of a chunk is beyond the limit, and takes the place of what turns out to be broken."""
        self._thread_ids: dict[str, str] = {}

    async def next_chunk(self, threads: ThreadStore) -> list[tuple[str, StoredCheckpoint]]:
        """The next ones, each with its thread id; empty when there are no more."""
        if self._found is None:
            self._found = self._listed(threads)
        while self._left > 0:
            if not self._read_ahead:
                chunk = await self._next_listed(self._found)
                if not chunk:
                    break
                self._read_ahead.extend(await gather_bounded(self._read_unless_broken(threads, one) for one in chunk))
            found: list[tuple[str, StoredCheckpoint]] = []
            while self._read_ahead and self._left > 0:
                if (stored := self._read_ahead.popleft()) is not None:
                    found += await self._with_thread_id(threads, stored)
            if found:
                return found
        await self._found.aclose()
        return []

    def leave_out(self, error: StateDecodingError) -> None:
        """To be called for one handed out that cannot be decoded. Raises `error` where its thread was asked for."""
        self._pass_over(error)
        self._left += 1

    def _pass_over(self, error: StateDecodingError) -> None:
        if self._asked_for is not None:
            raise error
        _logger.warning("left out of the listing of all threads, since it cannot be read: key=%s", ascii(error.key))

    async def _read_unless_broken(self, threads: ThreadStore, listed: ListedCheckpoint) -> StoredCheckpoint | None:
        try:
            return await self._read(threads, listed)
        except StateDecodingError as error:
            self._pass_over(error)
            return None

    async def _with_thread_id(
        self, threads: ThreadStore, stored: StoredCheckpoint
    ) -> list[tuple[str, StoredCheckpoint]]:
        segment = stored.keys.thread
        try:
            thread_id = self._asked_for or self._thread_ids.get(segment) or await threads.thread_id(stored.keys)
        except StateDecodingError as error:
            self._pass_over(error)
            return []
        self._thread_ids[segment] = thread_id
        self._left -= 1
        return [(thread_id, stored)]

    async def _next_listed(self, found: AsyncGenerator[ListedCheckpoint]) -> list[ListedCheckpoint]:
        size = self._chunk
        if self._left < math.inf and self._keep is None:
            size = min(int(self._left), LARGEST_CHUNK)
        else:
            self._chunk = min(self._chunk * 2, UNASKED_CHUNK)
        chunk: list[ListedCheckpoint] = []
        async for listed in found:
            chunk.append(listed)
            if len(chunk) == size:
                break
        return chunk

    async def _read(self, threads: ThreadStore, listed: ListedCheckpoint) -> StoredCheckpoint | None:
        try:
            if self._keep is None:
                return await threads.read(listed)
            key, record = await threads.read_head(listed)
            return await threads.complete(listed, key, record) if self._keep(key, record) else None
        except GoneError:
            # Deleted or put again since it was listed. Which of the two, a second look tells.
            stored = await threads.find(listed.keys, listed.id)
            return stored if stored and (self._keep is None or self._keep(stored.key, stored.record)) else None

    async def _listed(self, threads: ThreadStore) -> AsyncGenerator[ListedCheckpoint]:
        store, before = threads.objects, self._before
        thread = None if self._asked_for is None else ThreadKeys.of(threads.prefix, self._asked_for)
        if thread is not None and self._namespace is not None:
            keys = thread.namespace(self._namespace)
            if self._checkpoint_id is not None:
                found = await one_checkpoint(store, keys, self._checkpoint_id)
                if found is not None and found.heads and (before is None or found.id < before):
                    yield found
                return
            start_after = keys.after(before) if before is not None else ""
            async with aclosing(checkpoints(store, keys, start_after=start_after)) as found_in_order:
                async for listed in found_in_order:
                    if listed.heads:
                        yield listed
            return
        root = thread.root if thread else threads_prefix(threads.prefix)
        for listed in await thread_checkpoints(store, threads.prefix, root):
            if listed.heads and (before is None or listed.id < before) and self._checkpoint_id in (None, listed.id):
                yield listed
