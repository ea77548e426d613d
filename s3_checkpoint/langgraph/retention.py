"""Which checkpoints of a thread a retention rule lets go, and their removal. What delta channels are made of stays.

Decided by listings alone, but for delta channels. A namespace of a subgraph's call (`node:task`) goes whole once the
checkpoint of the root that made the call is gone: a root checkpoint and the calls made from it have ids in the order of
time, so a namespace goes when its newest id is less than that of the oldest root checkpoint that is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from s3_checkpoint._concurrency.gather import gather_bounded
from s3_checkpoint._format.thread_keys import ThreadKeys, parse_segment
from s3_checkpoint._runs.retention import Retention
from s3_checkpoint.langgraph.removal import Unseeded, is_whole, needed_ancestors, remove_checkpoints
from s3_checkpoint.langgraph.thread_listing import ListedCheckpoint, ListedNamespace, all_objects, by_namespace
from s3_checkpoint.langgraph.thread_store import GoneError, ThreadStore
from s3_checkpoint.langgraph.thread_views import PrunedThread
from s3_checkpoint.object_store import ListedObject

_CALL = ":"
"""In the name of every namespace of a subgraph that ends with the call; a stateful one outlives its calls."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What goes and what stays of one namespace."""

    namespace: ListedNamespace
    doomed: list[ListedCheckpoint]
    kept_by_rule: list[ListedCheckpoint]

    @property
    def is_whole(self) -> bool:
        """Whether none of its checkpoints stays."""
        return bool(self.doomed) and all(not one.heads or one in self.doomed for one in self.namespace.checkpoints)

    def removed(self) -> list[ListedObject]:
        """The objects of the checkpoints that go, and the values that only they refer to."""
        gone = {one.id for one in self.doomed}
        used = {value for one in self.namespace.checkpoints if one.id not in gone for value in one.values}
        keys = {one.directory + name for one in self.doomed for name in one.names}
        keys |= {self.namespace.keys.value(value) for one in self.doomed for value in one.values if value not in used}
        return [listed for listed in self.namespace.objects if listed.key in keys]


async def prune_thread(
    threads: ThreadStore, thread_id: str, retention: Retention, unseeded: Unseeded, *, now: datetime, dry_run: bool
) -> PrunedThread:
    """See `ThreadAdmin.prune`; 1 GET more per namespace of a call whose name is too long for its key."""
    keys = ThreadKeys.of(threads.prefix, thread_id)
    listed_at = threads.grace.now()
    namespaces = by_namespace(threads.prefix, await all_objects(threads.objects, keys.root))
    root = keys.namespace("")
    plans = [await _plan(threads, namespace, retention, unseeded, now) for namespace in namespaces]
    kept_of_root = [one.id for plan in plans if plan.namespace.keys == root for one in plan.kept_by_rule]
    if kept_of_root:
        for plan in plans:
            if plan.namespace.keys != root and await _ended_before(threads, plan.namespace, min(kept_of_root)):
                plan.doomed[:] = plan.namespace.checkpoints
    if not dry_run:
        await gather_bounded(remove_checkpoints(threads, plan.namespace, plan.doomed, listed_at) for plan in plans)
    removed = [one for plan in plans for one in plan.removed()]
    doomed = sum(bool(one.heads) for plan in plans for one in plan.doomed)
    return PrunedThread(
        thread_id=thread_id,
        checkpoints=doomed,
        kept=sum(bool(one.heads) for plan in plans for one in plan.namespace.checkpoints) - doomed,
        namespaces=sum(plan.is_whole for plan in plans),
        objects=len(removed),
        bytes=sum(one.size for one in removed),
        dry_run=dry_run,
    )


async def _plan(
    threads: ThreadStore, namespace: ListedNamespace, retention: Retention, unseeded: Unseeded, now: datetime
) -> _Plan:
    listed = namespace.checkpoints
    whole = [one for one in listed if one.heads and is_whole(one, namespace.values)]
    if not whole:
        return _Plan(namespace, [], [])
    stay = _by_rule(whole, retention, now)
    # What is newer than the newest whole one waits for its checkpoint, or has lost a value: it is not history.
    kept = {one.id for one in stay} | {one.id for one in listed if one.id > whole[0].id}
    kept |= await _needed(threads, listed, stay, unseeded)
    return _Plan(namespace, [one for one in listed if one.id not in kept], stay)


def _by_rule(whole: Sequence[ListedCheckpoint], retention: Retention, now: datetime) -> list[ListedCheckpoint]:
    """Those that stay, newest first; the newest always does."""
    least, span = retention.keep_last or 1, retention.older_than

    def is_young(one: ListedCheckpoint) -> bool:
        return span is not None and one.last_modified is not None and now - one.last_modified < span

    return [one for number, one in enumerate(whole) if number < least or is_young(one)]


async def _needed(
    threads: ThreadStore, listed: Sequence[ListedCheckpoint], stay: Sequence[ListedCheckpoint], unseeded: Unseeded
) -> set[str]:
    """The ancestors that the delta channels of the kept checkpoints are rebuilt from.

    Those of a checkpoint whose parent stays are the parent's: so only the others are followed.
    """
    heads = [head for one in listed for head in one.heads]
    if not any(head.needs_ancestors or head.snapshots for head in heads):
        return set()
    kept = {one.id for one in stay}
    parents = await gather_bounded(_parent(threads, one) for one in stay)
    first = [one for one, parent in zip(stay, parents, strict=True) if parent not in kept]
    found = await gather_bounded(needed_ancestors(threads, listed, one, unseeded) for one in first)
    return set().union(*found)


async def _parent(threads: ThreadStore, one: ListedCheckpoint) -> str | None:
    try:
        return (await threads.read_head(one))[1].parent
    except GoneError:
        return None


async def _ended_before(threads: ThreadStore, namespace: ListedNamespace, oldest: str) -> bool:
    """Whether the namespace is that of a call which a root checkpoint made that goes."""
    heads = [one for one in namespace.checkpoints if one.heads]
    if not heads or namespace.checkpoints[0].id >= oldest:
        return False
    name = parse_segment(namespace.keys.segment)
    if name is None:
        try:
            name = (await threads.read_head(heads[0]))[1].namespace
        except GoneError:
            return False
    return _CALL in name.rpartition("|")[2]
