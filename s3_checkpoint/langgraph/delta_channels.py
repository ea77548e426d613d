"""Delta channels: a value that is spread over the pending writes of all ancestors since its last snapshot.

`DeltaChain` reads what such a value is rebuilt from: the writes since the nearest stored value, and that value, found
by `Ancestors`, the walk from a checkpoint to its parent and on.

So that a long chain is read with a few GETs, checkpoint number `n` of a chain holds copies of what its 2^k nearest
ancestors wrote, where 2^k is the greatest power of two that divides `n` (`Lineage`). A reader goes from checkpoint 100
(copies of 99 … 96) to 96 (95 … 64) and to 64 (63 … 0): one object for each bit that is set in `n`, and which ones they
are, the keys tell. Each write is copied about log2(n)/2 times, compressed.

Copies change nothing but the number of requests: a reader compares each with the listing, and reads the ancestor itself
where that shows another ETag or other writes; an ancestor that is gone is gone. A process copies what it has in its
cache; where that has a gap, there are fewer copies.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._format.thread_keys import (
    MAX_COVERS,
    NamespaceKeys,
    ThreadKeys,
    WritesName,
    channel_segment,
    parse_head,
)
from s3_checkpoint.errors import StateDecodingError
from s3_checkpoint.langgraph.place import Place
from s3_checkpoint.langgraph.records import AncestorCopy, CheckpointRecord, WritesRecord
from s3_checkpoint.langgraph.thread_listing import ListedCheckpoint, checkpoints, one_checkpoint
from s3_checkpoint.langgraph.thread_store import GoneError, ThreadStore, as_named

MAX_COPIED_BYTES = 1024**2
"""Of the writes that one checkpoint copies: beyond that, bytes take the time, not requests."""
FIRST_READ, LARGEST_READ = 16, 128
"""Checkpoints read at once: few at first, and twice as many each time."""


@dataclass(frozen=True, slots=True)
class DeltaChain:
    """The ancestors of a checkpoint, nearest first, as far back as needed, and the values found there."""

    ancestors: Sequence[Ancestor]
    values: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of the payloads of values and writes."""
        rows = (row for ancestor in self.ancestors for record in ancestor.writes for row in record.rows)
        return sum(map(len, self.values.values())) + sum(len(row.payload[1]) for row in rows)

    @classmethod
    async def read(cls, threads: ThreadStore, place: Place, channels: Sequence[str]) -> DeltaChain:
        """Walks until every channel has met a stored value. Requests: those of `S3Saver.get_delta_channel_history`."""
        keys = ThreadKeys.of(threads.prefix, place.thread_id).namespace(place.namespace)
        chain: list[Ancestor] = []
        values: dict[str, bytes] = {}
        missing = set(channels)
        ancestors = Ancestors(threads, keys, place.checkpoint_id, map(channel_segment, channels))
        async with aclosing(ancestors.walk()) as walk:
            async for ancestor in walk:
                chain.append(ancestor)
                record = ancestor.record
                names = [record.values[channel].name for channel in sorted(missing & record.values.keys())]
                values |= {name: ancestors.values[name] for name in names if name in ancestors.values}
                try:
                    values |= await threads.read_values(ancestor.listed, [name for name in names if name not in values])
                except GoneError as error:
                    raise threads.incomplete(str(error)) from None
                missing -= record.inline.keys() | record.values.keys()
        return cls(chain, values)


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A checkpoint on the way from a target to the root, with its pending writes; or a descendant's copy of both.

    A copy has of `record` the large values of delta channels alone, and of `writes` those to delta channels.
    """

    listed: ListedCheckpoint
    key: str
    record: CheckpointRecord
    writes: tuple[WritesRecord, ...]


class Ancestors:
    """The ancestors of one checkpoint, nearest first.

    The listing that shows the target shows its ancestors next, since they have lesser ids; and their keys tell which of
    them hold copies of what others wrote, and where snapshots are. So 1 LIST per 1,000 keys, and then what a chain
    without forks needs is read at once. Checkpoints of other branches may be read too, and are left out.
    """

    def __init__(
        self,
        threads: ThreadStore,
        keys: NamespaceKeys,
        checkpoint_id: str | None,
        channels: Iterable[str],
        *,
        listed: AsyncGenerator[ListedCheckpoint] | None = None,
    ) -> None:
        """Of the checkpoint with this id, or of the newest.

        Args:
            threads: Where to read.
            keys: The namespace.
            checkpoint_id: None: of the newest.
            channels: The segments of the delta channels in question.
            listed: All checkpoints of the namespace from the target on, where they have been listed; else they are.
        """
        self._threads = threads
        self._keys = keys
        self._target = checkpoint_id
        self._missing = set(channels)
        self._complete = listed is not None
        start_after = keys.directory(checkpoint_id) if checkpoint_id else ""
        self._unlisted = listed or checkpoints(threads.objects, keys, start_after=start_after)
        self._listed: list[ListedCheckpoint] = []
        self._places: dict[str, int] = {}
        self._size = FIRST_READ
        self._heads: dict[str, tuple[str, CheckpointRecord]] = {}
        self._writes: dict[str, tuple[WritesRecord, ...]] = {}
        self.values: dict[str, bytes] = {}
        """Snapshots that were read ahead, by name."""

    async def walk(self) -> AsyncGenerator[Ancestor]:
        """Nearest first, as long as a channel has not met a value. An ancestor that is not there ends the walk."""
        async with aclosing(self._unlisted):
            target = await self._at(0)
            if target is None or self._target not in (None, target.id):
                return
            copies: dict[str, AncestorCopy] = {}
            seen = {target.id}
            at, record = target, await self._head(target)
            parent = record.parent if record else None
            while self._missing and parent is not None and parent not in seen:
                if parent not in copies:
                    # What the last one carries: nothing, if it is a copy itself; then its own object has to be read.
                    record = await self._head(at)
                    copies = {copy.id: copy for copy in record.copies} if record else {}
                listed = await self._find(parent)
                if listed is None:
                    return
                ancestor = self._copied(listed, copies.get(parent)) or await self._read(listed)
                if ancestor is None:
                    return
                yield ancestor
                found = ancestor.record
                self._missing -= {channel_segment(channel) for channel in (*found.inline, *found.values)}
                seen.add(parent)
                at, parent = listed, found.parent

    def _copied(self, listed: ListedCheckpoint, copy: AncestorCopy | None) -> Ancestor | None:
        """The copy of a listed checkpoint; None if it does not say enough, or is not what is there now."""
        if (
            copy is None
            or not self._missing <= {channel_segment(channel) for channel in copy.channels}
            or not self._missing.isdisjoint(channel_segment(channel) for channel in copy.inline)
            or not is_current(copy, listed)
        ):
            return None
        head = listed.last_heads[0]
        nothing = ("null", b"")
        values = as_named(copy.seeds, head.values)
        record = CheckpointRecord(copy.id, self._keys.segment, copy.parent, 0, nothing, nothing, values=values)
        writes = tuple(writes for _, writes in copy.writes)
        return Ancestor(listed, listed.directory + head.name, record, writes)

    async def _read(self, listed: ListedCheckpoint) -> Ancestor | None:
        if listed.id not in self._heads or listed.id not in self._writes:
            await self._read_ahead(listed, with_writes=True)
        try:
            key, record = self._heads.get(listed.id) or await self._threads.read_head(listed)
            writes = self._writes.get(listed.id)
            return Ancestor(listed, key, record, await self._threads.read_writes(listed) if writes is None else writes)
        except GoneError:
            return None

    async def _head(self, listed: ListedCheckpoint) -> CheckpointRecord | None:
        if listed.id not in self._heads:
            await self._read_ahead(listed, with_writes=False)
        try:
            self._heads[listed.id] = self._heads.get(listed.id) or await self._threads.read_head(listed)
        except GoneError:
            return None
        return self._heads[listed.id][1]

    async def _read_ahead(self, listed: ListedCheckpoint, *, with_writes: bool) -> None:
        """Reads, at once, what the walk from here on needs, as far as keys tell; errors are left to the walk."""
        heads, writes, snapshots = await self._needed(listed, with_writes=with_writes)
        self._size = min(self._size * 2, LARGEST_READ)

        async def head(one: ListedCheckpoint) -> None:
            self._heads[one.id] = await self._threads.read_head(one)

        async def of_head(one: ListedCheckpoint) -> None:
            self._writes[one.id] = await self._threads.read_writes(one)

        async def snapshot(one: ListedCheckpoint, name: str) -> None:
            self.values |= await self._threads.read_values(one, [name])

        reads = [*map(head, heads), *map(of_head, writes), *(snapshot(one, name) for one, name in snapshots)]
        await gather_bounded(_unless_it_fails(read) for read in reads)

    async def _needed(
        self, listed: ListedCheckpoint, *, with_writes: bool
    ) -> tuple[list[ListedCheckpoint], list[ListedCheckpoint], list[tuple[ListedCheckpoint, str]]]:
        """Checkpoints whose own objects, and whose writes, are needed; and the snapshots that end the walk."""
        heads: list[ListedCheckpoint] = []
        writes: list[ListedCheckpoint] = []
        snapshots: list[tuple[ListedCheckpoint, str]] = []
        place = self._places.get(listed.id)
        if place is None:
            return [listed], [listed] if with_writes else [], []
        missing = set(self._missing)

        def meet(one: ListedCheckpoint) -> None:
            found = one.last_heads[0].snapshots
            snapshots.extend((one, found[channel]) for channel in sorted(missing & found.keys()))
            missing.difference_update(found)

        at: ListedCheckpoint | None = listed
        if place:
            meet(listed)
        while at is not None:
            if at.id not in self._heads:
                heads.append(at)
            if with_writes and at.id not in self._writes:
                writes.append(at)
            if not missing or len(heads) >= self._size:
                break
            covers = at.last_heads[0].covers
            for one in range(place + 1, place + max(covers, 1) + 1):
                if missing and (covered := await self._at(one)) is not None:
                    meet(covered)
            place += max(covers, 1)
            with_writes = not covers
            at = await self._at(place)
            if covers and (not missing or (at is not None and not at.last_heads[0].needs_ancestors)):
                break
        return heads, writes, [(one, name) for one, name in snapshots if name not in self.values]

    async def _at(self, place: int) -> ListedCheckpoint | None:
        """The checkpoint at this place of the listing, which is continued as far as needed; None behind the last."""
        while len(self._listed) <= place and (listed := await anext(self._unlisted, None)) is not None:
            if listed.heads:
                self._places[listed.id] = len(self._listed)
                self._listed.append(listed)
        return self._listed[place] if place < len(self._listed) else None

    async def _find(self, checkpoint_id: str) -> ListedCheckpoint | None:
        while checkpoint_id not in self._places and (not self._listed or self._listed[-1].id > checkpoint_id):
            if await self._at(len(self._listed)) is None:
                break
        if (place := self._places.get(checkpoint_id)) is not None:
            return self._listed[place]
        if self._complete:
            return None
        listed = await one_checkpoint(self._threads.objects, self._keys, checkpoint_id)
        return listed if listed is not None and listed.heads else None


async def _unless_it_fails(read: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(GoneError, StateDecodingError):
        await read


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a checkpoint to be put is in its chain, and what it copies of its ancestors."""

    depth: int = 0
    copies: tuple[AncestorCopy, ...] = ()

    @classmethod
    async def of(
        cls, threads: ThreadStore, *, keys: NamespaceKeys, parent_id: str, channels: AbstractSet[str]
    ) -> Lineage:
        """The lineage of a child of this parent, of what the cache holds. No request."""
        if not threads.conditional_writes:  # writes may be replaced under the same name, which a listing does not show
            return cls()
        parent = _known(threads, keys, parent_id)
        if parent is None:
            return cls(depth=1 if threads.cache.is_on else 0)
        depth = parent.record.depth + 1
        wanted = min(depth & -depth, MAX_COVERS)
        if wanted == 1 and len(parent.writes) <= 1:
            return cls(depth)  # reading the parent itself takes no more requests
        copies: list[AncestorCopy] = []
        carried: dict[str, AncestorCopy] = {}
        missing, left = set(channels), MAX_COPIED_BYTES
        next_id: str | None = parent_id
        while next_id is not None and missing and len(copies) < wanted:
            if copies and next_id not in carried and (last := _known(threads, keys, copies[-1].id)):
                carried = {copy.id: copy for copy in last.record.copies}
            known = None if next_id in carried else _known(threads, keys, next_id)
            copy = known.copy(frozenset(missing)) if known else carried.get(next_id)
            if copy is None or not missing <= copy.channels or copy.size > left:
                break
            copies.append(copy)
            left -= copy.size
            missing -= copy.seeds.keys() | copy.inline
            next_id = copy.parent
        return cls(depth, tuple(copies))


@dataclass(frozen=True, slots=True)
class _Known:
    """A checkpoint in the cache, with the writes that are."""

    record: CheckpointRecord
    etag: str
    writes: Mapping[str, tuple[WritesName, WritesRecord]]

    def copy(self, channels: frozenset[str]) -> AncestorCopy:
        writes = [
            (name.slot, WritesRecord(found.task_id, tuple(row for row in found.rows if row.channel in channels)))
            for name, found in self.writes.values()
        ]
        record = self.record
        return AncestorCopy(
            record.id,
            record.parent,
            self.etag,
            channels,
            {channel: ref for channel, ref in record.values.items() if channel in channels},
            channels & record.inline.keys(),
            tuple(writes),
        )


def _known(threads: ThreadStore, keys: NamespaceKeys, checkpoint_id: str) -> _Known | None:
    """The checkpoint that was put or read last under this id, if the cache holds it."""
    head: tuple[str, CheckpointRecord] | None = None
    writes: dict[str, tuple[WritesName, WritesRecord]] = {}
    for name, (etag, content) in threads.cache.folder(keys.directory(checkpoint_id)).items():
        if isinstance(content, CheckpointRecord) and parse_head(name):
            head = etag, content
        elif isinstance(content, WritesRecord) and (parsed := WritesName.parse(name)) and parsed.kind == "r":
            other = writes.get(parsed.task)
            if other is None or other[0].slot < parsed.slot:
                writes[parsed.task] = parsed, content
    return None if head is None else _Known(head[1], head[0], writes)


def is_current(copy: AncestorCopy, listed: ListedCheckpoint) -> bool:
    """Whether reading the listed checkpoint and its writes would give what was copied."""
    heads = listed.last_heads
    if len(heads) != 1 or listed.etags.get(heads[0].name) != copy.etag:
        return False
    there = {name.task: name.slot for name in listed.writes.values() if name.kind == "r"}
    return there == {WritesName.first(record.task_id, "r").task: slot for slot, record in copy.writes}
