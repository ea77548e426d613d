"""Whole threads and runs: deleted, copied, pruned. Decided by key names alone, but for delta channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from s3_checkpoint.errors import StoreError
from s3_checkpoint.langgraph.envelope import CheckpointRecord
from s3_checkpoint.langgraph.thread_listing import ListedCheckpoint, all_keys, group
from s3_checkpoint.langgraph.thread_store import GoneError, ThreadStore
from s3_checkpoint.langgraph.together import together
from s3_checkpoint.object_store import PAGE_KEYS, ObjectAttributes
from s3_checkpoint.thread_keys import (
    NO_RUN,
    NamespaceKeys,
    ThreadKeys,
    channel_segment,
    is_hashed,
    parse_head,
    parse_namespace,
    parse_run_entry,
    run_prefix,
)

Unseeded = Callable[[str, CheckpointRecord], frozenset[str]]
"""The delta channels of a checkpoint that have no value of their own in it."""


async def delete_thread(threads: ThreadStore, thread_id: str) -> None:
    """Removes everything of a thread, and the run entries that lead to it. 1 LIST and 1 DELETE per 1,000 objects."""
    keys = ThreadKeys.of(threads.prefix, thread_id)
    doomed: list[str] = []
    entries: set[str] = set()
    async for page in all_keys(threads.objects, keys.root):
        for key in page:
            doomed.append(key)
            namespace = parse_namespace(threads.prefix, key)
            if namespace is not None and (entry := _run_entry(namespace, key)) is not None:
                entries.add(entry)
        while len(doomed) >= PAGE_KEYS:
            await _delete(threads, doomed[:PAGE_KEYS])
            del doomed[:PAGE_KEYS]
    await _delete(threads, [*doomed, *sorted(entries)])


async def delete_for_runs(threads: ThreadStore, runs: Sequence[str]) -> None:
    """Removes the checkpoints of these runs, with their writes and the values nobody else refers to.

    1 LIST per run for its entries; per namespace they have checkpoints in, 1 LIST per 1,000 keys and 1 DELETE per
    1,000 objects removed; 1 DELETE for the entries, last, so that an interrupted call can be made again.
    """
    entries: dict[str, NamespaceKeys] = {}

    async def find(run: str) -> None:
        async for page in all_keys(threads.objects, run_prefix(threads.prefix, run)):
            for key in page:
                if (keys := parse_run_entry(threads.prefix, run, key)) is not None:
                    entries[key] = keys

    async def clear(keys: NamespaceKeys) -> None:
        found = [key async for page in all_keys(threads.objects, keys.root) for key in page]
        listed = _sorted(keys, found)
        await _remove(threads, listed, [checkpoint for checkpoint in listed if not checkpoint.runs.isdisjoint(runs)])

    await together(find(run) for run in runs)
    await together(clear(keys) for keys in dict.fromkeys(entries.values()))
    await _delete(threads, entries)


async def copy_thread(threads: ThreadStore, source_id: str, target_id: str) -> None:
    """Copies every object of a thread inside the store; nothing is downloaded. The source stays as it is.

    1 LIST per 1,000 objects, 1 COPY each, the checkpoints last; 1 PUT per run in each namespace, and for a target id
    whose segment is hashed. Raises `StoreError` if the source is deleted meanwhile.
    """
    source, target = (ThreadKeys.of(threads.prefix, thread_id) for thread_id in (source_id, target_id))
    if source == target:
        return
    parts: list[str] = []
    heads: list[str] = []
    finders: dict[str, bytes] = {}
    async for page in all_keys(threads.objects, source.root):
        for key in page:
            namespace = parse_namespace(threads.prefix, key)
            if namespace is None:
                continue  # the source's own id
            (heads if parse_head(key.rpartition("/")[2]) else parts).append(key)
            copied = NamespaceKeys(threads.prefix, target.segment, namespace.segment)
            if (entry := _run_entry(copied, key)) is not None:
                finders[entry] = b""
    if not heads and not parts:
        return
    if is_hashed(target.segment):
        finders[target.id] = target_id.encode()

    async def copy(key: str) -> None:
        if not await threads.objects.copy(key, target.root + key[len(source.root) :]):
            raise StoreError("CopyObject", threads.objects.bucket, key, "the thread was deleted while it was copied")

    plain = ObjectAttributes("text/plain; charset=utf-8")
    await together(threads.objects.put(key, text, plain, mode="overwrite") for key, text in finders.items())
    await together(copy(key) for key in parts)
    await together(copy(key) for key in heads)


async def prune_thread(threads: ThreadStore, thread_id: str, unseeded: Unseeded) -> None:
    """Keeps the newest checkpoint of each namespace, and those ancestors that its delta channels are rebuilt from.

    1 LIST and 1 DELETE per 1,000 objects; where delta channels are used, 1 GET per checkpoint kept. Writes that wait
    for a checkpoint still to come stay. Values go only with the last checkpoint that refers to them.
    """
    keys = ThreadKeys.of(threads.prefix, thread_id)
    namespaces: dict[NamespaceKeys, list[str]] = {}
    async for page in all_keys(threads.objects, keys.root):
        for key in page:
            if (namespace := parse_namespace(threads.prefix, key)) is not None:
                namespaces.setdefault(namespace, []).append(key)

    async def prune(namespace: NamespaceKeys, members: list[str]) -> None:
        listed = _sorted(namespace, members)
        latest = next((checkpoint for checkpoint in listed if checkpoint.heads), None)
        if latest is None:
            return
        kept = {latest.id, *(checkpoint.id for checkpoint in listed if checkpoint.id > latest.id)}
        kept |= await _chain(threads, listed, latest, unseeded)
        await _remove(threads, listed, [checkpoint for checkpoint in listed if checkpoint.id not in kept])

    await together(prune(namespace, members) for namespace, members in namespaces.items())


async def _chain(
    threads: ThreadStore, listed: Sequence[ListedCheckpoint], latest: ListedCheckpoint, unseeded: Unseeded
) -> set[str]:
    """The ancestors back to the one where the last delta channel has its seed, or to the root.

    A delta channel is one that the newest checkpoint counts as such, or that has a snapshot in any checkpoint.
    """
    known = {channel for checkpoint in listed for head in checkpoint.heads for channel in head.snapshots}
    here = {channel for head in latest.heads for channel in head.snapshots}
    if known <= here and not any(head.needs_ancestors for head in latest.heads):
        return set()
    by_id = {checkpoint.id: checkpoint for checkpoint in listed}
    chain: set[str] = set()
    found = await _head(threads, latest)
    missing = known | {channel_segment(channel) for channel in unseeded(*found)} if found else set()
    while found is not None:
        record = found[1]
        missing -= {channel_segment(channel) for channel in (*record.inline, *record.values)}
        ancestor = by_id.get(record.parent or "")
        if not missing or ancestor is None or not ancestor.heads or ancestor.id in chain:
            break
        chain.add(ancestor.id)
        found = await _head(threads, ancestor)
    return chain


async def _head(threads: ThreadStore, listed: ListedCheckpoint) -> tuple[str, CheckpointRecord] | None:
    try:
        return await threads.read_head(listed)
    except GoneError:
        return None


def _sorted(keys: NamespaceKeys, members: Iterable[str]) -> list[ListedCheckpoint]:
    return sorted(group(keys, members), key=lambda checkpoint: checkpoint.id, reverse=True)


async def _remove(threads: ThreadStore, listed: Sequence[ListedCheckpoint], doomed: Sequence[ListedCheckpoint]) -> None:
    """Deletes checkpoints of one namespace, oldest first, then the values and run entries that no other one needs.

    A value that nothing listed refers to stays: its checkpoint may be on its way.
    """
    gone = {checkpoint.id for checkpoint in doomed}
    stay = [checkpoint for checkpoint in listed if checkpoint.id not in gone]
    used = {value for checkpoint in stay for value in checkpoint.values}
    runs = {NO_RUN, *(run for checkpoint in stay for run in checkpoint.runs)}
    orphans = {
        checkpoint.keys.value(value) for checkpoint in doomed for value in checkpoint.values if value not in used
    }
    entries = {checkpoint.keys.run(run) for checkpoint in doomed for run in checkpoint.runs if run not in runs}
    objects = [key for checkpoint in reversed(doomed) for key in checkpoint.object_keys]
    await _delete(threads, [*objects, *sorted(orphans), *sorted(entries)])


async def _delete(threads: ThreadStore, keys: Iterable[str]) -> None:
    batch = list(keys)
    if batch:
        threads.forget()
        await threads.objects.delete(batch)


def _run_entry(namespace: NamespaceKeys, key: str) -> str | None:
    """The run entry that leads to the checkpoint whose key this is; None for other keys, and without a run."""
    head = parse_head(key.rpartition("/")[2])
    return namespace.run(head.run) if head is not None and head.run != NO_RUN else None
