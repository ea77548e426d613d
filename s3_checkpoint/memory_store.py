"""A true object store in a dict, with S3's semantics: for tests, ours and those of applications."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from s3_checkpoint.object_store import (
    PAGE_KEYS,
    Match,
    ObjectAttributes,
    ObjectHead,
    ObjectTooLargeError,
    Page,
    PutMode,
    Refused,
    StoredObject,
    Written,
    utc_now,
)


class MemoryStore:
    """Keeps objects for as long as it lives; each call takes effect at once, after yielding to other tasks once."""

    def __init__(self, *, bucket: str = "memory", ordered: bool = True, now: Callable[[], datetime] = utc_now) -> None:
        self._bucket = bucket
        self._ordered = ordered
        self._now = now
        self._objects: dict[str, StoredObject] = {}
        self._keys: list[bytes] = []

    @property
    def bucket(self) -> str:
        """The name given, for messages."""
        return self._bucket

    @property
    def ordered(self) -> bool:
        """False makes it list as a directory bucket does: in no order, with no `start_after`."""
        return self._ordered

    @property
    def loop(self) -> None:
        """It belongs to no event loop."""
        return None

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """See `ObjectStore.get`."""
        await asyncio.sleep(0)
        stored = self._objects.get(key)
        if stored is not None and stored.head.size > max_bytes:
            raise ObjectTooLargeError(self._bucket, key, stored.head.size, max_bytes)
        return replace(stored, head=replace(stored.head, date=self._now())) if stored else None

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`."""
        await asyncio.sleep(0)
        stored = self._objects.get(key)
        return replace(stored.head, date=self._now()) if stored else None

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        """See `ObjectStore.put`."""
        await asyncio.sleep(0)
        present = self._objects.get(key)
        if mode == "create" and present:
            return Refused("PreconditionFailed")
        if isinstance(mode, Match) and (present is None or present.head.etag != mode.etag):
            return Refused("PreconditionFailed" if present else "NoSuchKey")
        return Written(self._store(key, body, attributes))

    async def list(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str | None = None,
        delimiter: str = "",
        limit: int = PAGE_KEYS,
    ) -> Page:
        """See `ObjectStore.list`."""
        await asyncio.sleep(0)
        head = prefix.encode()
        after = (token or (start_after if self._ordered else "")).encode()
        start = max(bisect_left(self._keys, head), bisect_right(self._keys, after))
        keys: list[str] = []
        prefixes: list[str] = []
        last = ""
        for index in range(start, len(self._keys)):
            if not self._keys[index].startswith(head):
                break
            key = self._keys[index].decode()
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            group = key[: cut + len(delimiter)] if cut >= 0 else ""
            if group and group in (last, token):
                continue
            if len(keys) + len(prefixes) == limit:
                return self._page(keys, prefixes, last)
            if group:
                prefixes.append(group)
                last = group
            else:
                keys.append(key)
                last = key
        return self._page(keys, prefixes)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        await asyncio.sleep(0)
        for key in keys:
            if self._objects.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key.encode())]

    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        """See `ObjectStore.copy`."""
        await asyncio.sleep(0)
        stored = self._objects.get(source)
        if stored is None:
            return False
        self._store(target, stored.body, attributes or stored.head.attributes)
        return True

    def _store(self, key: str, body: bytes, attributes: ObjectAttributes) -> str:
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        if key not in self._objects:
            raw = key.encode()
            self._keys.insert(bisect_left(self._keys, raw), raw)
        attributes = replace(attributes, metadata=dict(attributes.metadata))
        self._objects[key] = StoredObject(body, ObjectHead(attributes, etag, len(body), self._now()))
        return etag

    def _page(self, keys: Sequence[str], prefixes: Sequence[str], token: str | None = None) -> Page:
        if not self._ordered:  # a directory bucket promises no order: code that relies on one fails on the reverse
            keys = keys[::-1]
        heads = [self._objects[key].head for key in keys]
        etags = [head.etag.strip('"') for head in heads]
        return Page(keys, [head.size for head in heads], [head.last_modified for head in heads], etags, prefixes, token)
