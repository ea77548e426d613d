"""What delta channels are rebuilt from, copied along: so that a long chain of ancestors is read with a few GETs.

A delta channel's value is spread over the pending writes of all ancestors since its last snapshot. Checkpoint number
`n` of a chain holds copies of what its 2^k nearest ancestors wrote, where 2^k is the greatest power of two that divides
`n`. A reader goes from checkpoint 100 (copies of 99 … 96) to 96 (95 … 64) and to 64 (63 … 0): one object for each bit
that is set in `n`, and which ones they are, the keys tell. Each write is copied about log2(n)/2 times, compressed.

Copies change nothing but the number of requests: a reader compares each with the listing, and reads the ancestor itself
where that shows another ETag or other writes; an ancestor that is gone is gone. A process copies what it has in its
cache; where that has a gap, there are fewer copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3_checkpoint._format.thread_keys import MAX_COVERS, NamespaceKeys, WritesName, parse_head
from s3_checkpoint.langgraph.envelope import AncestorCopy, CheckpointRecord, WritesRecord
from s3_checkpoint.langgraph.thread_listing import ListedCheckpoint

if TYPE_CHECKING:
    from s3_checkpoint.langgraph.thread_store import ThreadStore

MAX_COPIED_BYTES = 1024**2
"""Of the writes that one checkpoint copies: beyond that, bytes take the time, not requests."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a checkpoint to be put is in its chain, and what it copies of its ancestors."""

    depth: int = 0
    copies: tuple[AncestorCopy, ...] = ()


async def lineage(threads: ThreadStore, *, keys: NamespaceKeys, parent_id: str, channels: AbstractSet[str]) -> Lineage:
    """The lineage of a child of this parent, of what the cache holds. No request."""
    if not threads.conditional_writes:  # writes may be replaced under the same name, which a listing does not show
        return Lineage()
    parent = _known(threads, keys, parent_id)
    if parent is None:
        return Lineage(depth=1 if threads.cache.is_on else 0)
    depth = parent.record.depth + 1
    wanted = min(depth & -depth, MAX_COVERS)
    if wanted == 1 and len(parent.writes) <= 1:
        return Lineage(depth)  # reading the parent itself takes no more requests
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
    return Lineage(depth, tuple(copies))


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
