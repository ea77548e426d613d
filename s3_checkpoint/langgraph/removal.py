"""Whole threads and runs: deleted and pruned, beside workers. Decided by listings alone, but for delta channels.

Everywhere the same order, so that whatever cuts a call short or refuses a key leaves what can be seen whole: first the
checkpoints, in requests of their own; then their writes; then the values that they alone referred to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime

from s3_checkpoint._concurrency.gather import each, gather_bounded
from s3_checkpoint._format.thread_keys import (
    NO_RUN,
    NamespaceKeys,
    ThreadKeys,
    channel_segment,
    parse_run_entry,
    run_prefix,
)
from s3_checkpoint.errors import StoreUnavailableError
from s3_checkpoint.langgraph.delta_channels import Ancestors
from s3_checkpoint.langgraph.grace import in_flight, sweep
from s3_checkpoint.langgraph.records import CheckpointRecord
from s3_checkpoint.langgraph.thread_listing import ListedCheckpoint, ListedNamespace, all_objects, by_namespace
from s3_checkpoint.langgraph.thread_store import GoneError, ThreadStore
from s3_checkpoint.object_store import ListedObject, pages

DELETE_ROUNDS = 100
"""How often a deletion lists again while something is left."""
Unseeded = Callable[[str, CheckpointRecord], frozenset[str]]
"""The delta channels of a checkpoint that have no value of their own in it."""


async def delete_thread(threads: ThreadStore, thread_id: str) -> None:
    """See `S3Saver.delete_thread`: removes also the run entries that lead to it, until a listing shows nothing.

    A value younger than the grace period that no checkpoint has referred to may belong to a put in flight, and stays.
    """
    keys = ThreadKeys.of(threads.prefix, thread_id)
    named: set[str] = set()
    for _ in range(DELETE_ROUNDS):
        listed_at = threads.grace.now()
        found = await all_objects(threads.objects, keys.root)
        heads: list[str] = []
        entries: set[str] = set()
        values: list[ListedObject] = []
        for namespace in by_namespace(threads.prefix, found):
            for checkpoint in namespace.checkpoints:
                heads += checkpoint.head_keys
                entries |= {namespace.keys.run(run) for run in checkpoint.runs - {NO_RUN}}
                named |= {namespace.keys.value(value) for value in checkpoint.values}
            values += namespace.values.values()
        # Entries first: they are known by the checkpoints alone, and a call that is made again must find them.
        await _delete(threads, sorted(entries))
        await _delete(threads, heads)
        spared = await in_flight(threads.objects, threads.grace, values, named, listed_at)
        rest = sorted({entry.key for entry in found} - {*heads, *spared})
        await _delete(threads, rest)
        if not heads and not rest:
            return
    raise _never_ends(threads, keys.root)


async def delete_for_runs(threads: ThreadStore, runs: Sequence[str]) -> None:
    """See `S3Saver.delete_for_runs`: until listings show none; the entries last, so that it can be made again."""
    namespaces: dict[NamespaceKeys, None] = {}

    async def find(run: str) -> list[str]:
        prefix, entries = run_prefix(threads.prefix, run), []
        for key in [key async for page in pages(threads.objects, prefix) for key in page.keys]:
            if (keys := parse_run_entry(threads.prefix, run, key)) is not None:
                namespaces[keys] = None
                entries.append(key)
        return entries

    async def clear(keys: NamespaceKeys) -> bool:
        listed_at = threads.grace.now()
        namespace = ListedNamespace.of(keys, await all_objects(threads.objects, keys.root))
        doomed = [checkpoint for checkpoint in namespace.checkpoints if not checkpoint.runs.isdisjoint(runs)]
        if doomed:
            await remove_checkpoints(threads, namespace, doomed, listed_at, keep_entries=runs)
        return bool(doomed)

    for _ in range(DELETE_ROUNDS):
        entries = [entry for of_run in await gather_bounded(find(run) for run in runs) for entry in of_run]
        cleared = await gather_bounded(clear(keys) for keys in list(namespaces))
        await _delete(threads, entries)
        if not entries and not any(cleared):
            return
    raise _never_ends(threads, threads.prefix)


def _never_ends(threads: ThreadStore, key: str) -> StoreUnavailableError:
    detail = "workers continue to write; stop them. Or the store does not remove what it says it does: see `doctor`"
    return StoreUnavailableError("delete", threads.objects.bucket, key, outcome_unknown=True, detail=detail)


async def prune_thread(threads: ThreadStore, thread_id: str, unseeded: Unseeded) -> None:
    """See `S3Saver.prune`: keeps the newest whole checkpoint of each namespace, and what that is rebuilt from.

    Writes that wait for a checkpoint still to come stay, and so do newer checkpoints that refer to values which are not
    there: the last one that can be read is never removed.
    """
    keys = ThreadKeys.of(threads.prefix, thread_id)
    listed_at = threads.grace.now()
    found = await all_objects(threads.objects, keys.root)

    async def prune(namespace: ListedNamespace) -> None:
        listed = namespace.checkpoints
        latest = next((one for one in listed if one.heads and is_whole(one, namespace.values)), None)
        doomed: list[ListedCheckpoint] = []
        if latest is not None:
            kept = {checkpoint.id for checkpoint in listed if checkpoint.id >= latest.id}
            kept |= await needed_ancestors(threads, listed, latest, unseeded)
            doomed = [checkpoint for checkpoint in listed if checkpoint.id not in kept]
        await remove_checkpoints(threads, namespace, doomed, listed_at)

    await gather_bounded(map(prune, by_namespace(threads.prefix, found)))


def is_whole(checkpoint: ListedCheckpoint, values: Iterable[str]) -> bool:
    """Whether all values that the checkpoint refers to are listed."""
    return {value for head in checkpoint.last_heads for value in head.values} <= set(values)


async def needed_ancestors(
    threads: ThreadStore, listed: Sequence[ListedCheckpoint], latest: ListedCheckpoint, unseeded: Unseeded
) -> set[str]:
    """The ancestors back to the one where the last delta channel has its seed, or to the root.

    A delta channel is one that the newest checkpoint counts as such, or that has a snapshot in any checkpoint.
    """
    known = {channel for checkpoint in listed for head in checkpoint.heads for channel in head.snapshots}
    here = {channel for head in latest.heads for channel in head.snapshots}
    if known <= here and not any(head.needs_ancestors for head in latest.heads):
        return set()
    try:
        key, record = await threads.read_head(latest)
    except GoneError:
        return set()
    missing = known | {channel_segment(channel) for channel in unseeded(key, record)}
    missing -= {channel_segment(channel) for channel in (*record.inline, *record.values)}
    older = each(checkpoint for checkpoint in listed if checkpoint.id <= latest.id)
    ancestors = Ancestors(threads, latest.keys, latest.id, missing, listed=older)
    async with aclosing(ancestors.walk()) as walk:
        return {ancestor.listed.id async for ancestor in walk}


async def remove_checkpoints(
    threads: ThreadStore,
    namespace: ListedNamespace,
    doomed: Sequence[ListedCheckpoint],
    listed_at: datetime,
    *,
    keep_entries: Sequence[str] = (),
) -> None:
    """Deletes checkpoints of one namespace, then their writes, then what no other checkpoint needs.

    The oldest go first, so that a call cut short leaves a shorter history; with delta channels the newest, since those
    are rebuilt from older ones.
    """
    keys, gone = namespace.keys, {checkpoint.id for checkpoint in doomed}
    stay = [checkpoint for checkpoint in namespace.checkpoints if checkpoint.id not in gone]
    ordered = list(doomed if any(h.needs_ancestors for one in doomed for h in one.heads) else reversed(doomed))
    await _delete(threads, [key for checkpoint in ordered for key in checkpoint.head_keys])

    runs = {NO_RUN, *keep_entries, *(run for checkpoint in stay for run in checkpoint.runs)}
    entries = {keys.run(run) for checkpoint in doomed for run in checkpoint.runs if run not in runs}
    used = {value for checkpoint in stay for value in checkpoint.values}
    unused = [entry for name, entry in namespace.values.items() if name not in used]
    orphaned = {keys.value(name) for checkpoint in doomed for name in checkpoint.values}
    others = [key for checkpoint in ordered for key in checkpoint.other_keys]
    await _delete(threads, [*others, *sorted(entries)])
    await _delete(threads, await sweep(threads.objects, threads.grace, unused, orphaned, listed_at))


async def _delete(threads: ThreadStore, keys: Sequence[str]) -> None:
    if keys:
        threads.forget()
        await threads.objects.delete(keys)
