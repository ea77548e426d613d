"""A thread copied inside the store, the oldest checkpoint first: what is cut short is the thread as it was earlier.

Each checkpoint is copied after its writes and its large values, and only then the next one. The values get names of
this copy's own, as those of a put do, so that no removal of an earlier copy can meet them; the copied checkpoint's key
has these names, and its record, which is copied as it is, the old ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._format.thread_keys import (
    NO_RUN,
    Head,
    NamespaceKeys,
    ThreadKeys,
    WritesName,
    is_hashed,
    object_name,
    with_values,
)
from s3_checkpoint.errors import StateDecodingError, StoreError
from s3_checkpoint.langgraph.grace import Seen
from s3_checkpoint.langgraph.remnants import is_remnant
from s3_checkpoint.langgraph.thread_listing import ListedCheckpoint, thread_checkpoints
from s3_checkpoint.langgraph.thread_store import GoneError, ThreadStore
from s3_checkpoint.object_store import ObjectAttributes

_AT_ONCE = 64
"""Checkpoints whose writes and values are copied together, ahead of them."""
_LISTINGS = 10
"""Times the source is listed, since something listed was gone: pruned, say, or put again."""


async def copy_thread(threads: ThreadStore, source_id: str, target_id: str) -> None:
    """See `S3Saver.copy_thread`; 1 GET more for each write of a checkpoint that was put twice within a second.

    Nothing is downloaded. Made again, it copies all of it again.
    """
    source, target = (ThreadKeys.of(threads.prefix, thread_id) for thread_id in (source_id, target_id))
    if source == target:
        return
    copy = _Copy(threads, target)
    left_out: set[tuple[NamespaceKeys, str]] = set()
    broken: tuple[str, StateDecodingError] | None = None
    gone = ""
    for listing in range(_LISTINGS):
        copy.look_again()
        listed = (await thread_checkpoints(threads.objects, threads.prefix, source.root))[::-1]
        if listing and not any(checkpoint.heads for checkpoint in listed):
            break
        listed = [
            one for one in listed if (one.keys, one.id) not in left_out and (broken is None or one.id < broken[0])
        ]
        try:
            if listed:
                await _put_finders(threads, listed, target, target_id)
                await copy.all(listed)
        except GoneError as error:
            if str(error) != gone:  # removed since it was listed, as far as is known
                gone = str(error)
                continue
            for one in listed:
                if gone in {one.keys.value(value) for head in one.last_heads for value in head.values}:
                    if await is_remnant(threads.objects, threads.read_head, one, gone, threads.grace.period):
                        left_out.add((one.keys, one.id))
                    else:
                        broken = one.id, threads.incomplete(gone)
                        break
        else:
            if broken is not None:
                raise broken[1]
            return
    raise StoreError("CopyObject", threads.objects.bucket, gone, "the thread was deleted while it was copied")


async def _put_finders(
    threads: ThreadStore, listed: Sequence[ListedCheckpoint], target: ThreadKeys, target_id: str
) -> None:
    """Writes what leads to the target's checkpoints, before them."""
    finders = {
        NamespaceKeys(threads.prefix, target.segment, checkpoint.keys.segment).run(run): b""
        for checkpoint in listed
        for run in checkpoint.runs - {NO_RUN}
    }
    if is_hashed(target.segment):
        finders[target.id] = target_id.encode()
    plain = ObjectAttributes("text/plain; charset=utf-8")
    await gather_bounded(threads.objects.put(key, text, plain, mode="overwrite") for key, text in finders.items())


class _Copy:
    """One copy of a thread; knows what of it has been made. Raises `GoneError` where something is not there."""

    def __init__(self, threads: ThreadStore, target: ThreadKeys) -> None:
        self._threads = threads
        self._target = target
        self._heads: set[str] = set()
        """Keys of the checkpoints that have been copied."""
        self._values: dict[tuple[NamespaceKeys, str], tuple[str, Seen]] = {}
        """Of values that have been copied: the name of the copy, and when it was made."""

    def look_again(self) -> None:
        """A checkpoint listed from now on is copied only with values that the source still has.

        Else a checkpoint that a put left behind while its thread was deleted, and which readers of the source pass over
        because its values are gone, would be whole in the target, without its ancestors.
        """
        self._values.clear()

    async def all(self, ascending: Sequence[ListedCheckpoint]) -> None:
        """Copies the checkpoints, as many as one batch holds with what belongs to them ahead of them."""
        for start in range(0, len(ascending), _AT_ONCE):
            batch = ascending[start : start + _AT_ONCE]
            heads = [(one, await self._head(one)) for one in batch if one.heads]
            new = [(one, head) for one, head in heads if one.directory + head.name not in self._heads]
            await gather_bounded(
                self._copy_object(one.directory + name, self._keys(one.keys).directory(one.id) + name)
                for one in batch
                for name in one.names
                if WritesName.parse(name)
            )
            await self._copy_values((one.keys, value) for one, head in new for value in head.values)
            for one, head in new:
                await self._copy_head(one, head)

    async def _copy_head(self, one: ListedCheckpoint, head: Head) -> None:
        await self._copy_values((one.keys, value) for value in head.values)
        names = {value: self._values[one.keys, value][0] for value in head.values}
        source = one.directory + head.name
        await self._copy_object(source, self._keys(one.keys).directory(one.id) + with_values(head.name, names))
        self._heads.add(source)

    async def _head(self, one: ListedCheckpoint) -> Head:
        """Of the heads of a checkpoint the one that counts."""
        heads = one.last_heads
        if len(heads) == 1:
            return heads[0]
        key, _ = await self._threads.read_head(one)
        return next(head for head in heads if key.endswith(f"/{head.name}"))

    async def _copy_values(self, values: Iterable[tuple[NamespaceKeys, str]]) -> None:
        """Those that have not been copied so lately that a checkpoint may rely on it."""
        holds = self._threads.grace.still_holds
        missing = [one for one in dict.fromkeys(values) if one not in self._values or not holds(self._values[one][1])]

        async def copy(keys: NamespaceKeys, value: str) -> None:
            seen, name = self._threads.grace.look(), object_name(value, self._threads.new_id())
            await self._copy_object(keys.value(value), self._keys(keys).value(name))
            self._values[keys, value] = name, seen

        await gather_bounded(copy(*one) for one in missing)

    async def _copy_object(self, source: str, target: str) -> None:
        if not await self._threads.objects.copy(source, target):
            raise GoneError(source)

    def _keys(self, source: NamespaceKeys) -> NamespaceKeys:
        return NamespaceKeys(source.prefix, self._target.segment, source.segment)
