"""Objects that this process has written or read, so that what has not changed since is not asked for again.

An object is taken from here only if the store has just shown that it is the same: a LIST gave the ETag under which it
is kept. Large values are the exception: their keys are never written again, so they need no ETag, and are trusted for
as long as a put trusts them (`grace`).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

CACHE_BYTES = 32 * 1024**2
"""By default, what a process keeps of the objects that it has written or read."""
OVERHEAD_BYTES = 1024
"""Counted for each object besides its body: keys, and the Python objects that it is decoded to."""


class _Entry(NamedTuple):
    etag: str
    content: Any
    size: int


class ObjectCache:
    """Decoded objects by folder, name and ETag. Belongs to the store's event loop.

    A folder holds what belongs to one checkpoint. Folders that have not been used for longest go first.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._folders: OrderedDict[str, dict[str, _Entry]] = OrderedDict()

    @property
    def is_on(self) -> bool:
        """Whether it keeps anything."""
        return self._max_bytes > 0

    def get(self, folder: str, name: str, etag: str) -> Any:
        """The object, if it is known under this ETag; else None."""
        entry = self._folders.get(folder, {}).get(name)
        if entry is None or entry.etag != etag:
            return None
        self._folders.move_to_end(folder)
        return entry.content

    def put(self, folder: str, name: str, etag: str, content: Any, size: int) -> None:
        """Keeps an object of `size` bytes. Without an ETag, or larger than the cache, it is not kept."""
        self._drop(folder, name)
        size += OVERHEAD_BYTES
        if not etag or size > self._max_bytes:
            return
        # A dict keeps the order in which names came: the last one is what was put or read last.
        self._folders.setdefault(folder, {})[name] = _Entry(etag, content, size)
        self._folders.move_to_end(folder)
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, oldest = self._folders.popitem(last=False)
            self._bytes -= sum(entry.size for entry in oldest.values())

    def folder(self, folder: str) -> dict[str, tuple[str, Any]]:
        """ETag and content of all that is known of a folder, by name, in the order in which they came."""
        return {name: (entry.etag, entry.content) for name, entry in self._folders.get(folder, {}).items()}

    def _drop(self, folder: str, name: str) -> None:
        entries = self._folders.get(folder, {})
        if (entry := entries.pop(name, None)) is not None:
            self._bytes -= entry.size
            if not entries:
                del self._folders[folder]
