"""What LIST pages tell of a thread: its checkpoints, newest first, each with the names of everything to read for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from s3_checkpoint._format.thread_keys import (
    Head,
    NamespaceKeys,
    WritesName,
    parse_head,
    parse_namespace,
)
from s3_checkpoint.object_store import PAGE_KEYS, ListedObject, ObjectStore, pages

FIRST_PAGE_KEYS = 200
"""Keys asked for to find the newest checkpoint: it, and its pending writes, are at the front."""


@dataclass(slots=True)
class ListedCheckpoint:
    """The objects under one checkpoint id; without `heads`, writes that arrived before their checkpoint."""

    keys: NamespaceKeys
    id: str
    heads: list[Head] = field(default_factory=list)
    """One; several where the id was put again and refers to other large values: of these the last one put counts."""
    times: list[datetime] = field(default_factory=list)
    """When each of `heads` was put."""
    writes: dict[tuple[str, str], WritesName] = field(default_factory=dict)
    """The highest slot per task and kind: it holds what those below hold."""
    names: list[str] = field(default_factory=list)
    """All names, whatever they are: what there is to delete."""
    etags: dict[str, str] = field(default_factory=dict)
    """The ETags of all of them, where the store tells them."""

    @property
    def directory(self) -> str:
        """Keys are this and a name."""
        return self.keys.directory(self.id)

    @property
    def last_heads(self) -> list[Head]:
        """The one put last; several, if they were within the second that the store's clock tells."""
        return [head for head, time in zip(self.heads, self.times, strict=True) if time == self.last_modified]

    @property
    def last_modified(self) -> datetime | None:
        """When the checkpoint was put last; None without `heads`."""
        return max(self.times, default=None)

    @property
    def head_keys(self) -> list[str]:
        """The keys that make it visible: while one of them is there, all it refers to must be."""
        return [self.directory + head.name for head in self.heads]

    @property
    def other_keys(self) -> list[str]:
        """The keys of its writes, and of whatever else is there."""
        heads = {head.name for head in self.heads}
        return [self.directory + name for name in self.names if name not in heads]

    @property
    def values(self) -> list[str]:
        """The names of the large values referred to."""
        return list(dict.fromkeys(value for head in self.heads for value in head.values))

    @property
    def runs(self) -> set[str]:
        """The runs that made it, as in keys."""
        return {head.run for head in self.heads}

    def add(self, name: str, entry: ListedObject) -> None:
        """Takes in one more name found under the id."""
        self.names.append(name)
        self.etags[name] = entry.etag
        if (head := parse_head(name)) is not None:
            self.heads.append(head)
            self.times.append(entry.last_modified)
        elif (writes := WritesName.parse(name)) is not None:
            other = self.writes.get((writes.task, writes.kind))
            if other is None or other.slot < writes.slot:
                self.writes[writes.task, writes.kind] = writes


async def all_objects(store: ObjectStore, prefix: str) -> list[ListedObject]:
    """What is under `prefix`. 1 LIST per 1,000 keys."""
    return [entry async for page in pages(store, prefix) for entry in page.objects]


async def checkpoints(
    store: ObjectStore, keys: NamespaceKeys, *, start_after: str = "", page_keys: int = PAGE_KEYS
) -> AsyncGenerator[ListedCheckpoint]:
    """The checkpoints of one namespace, newest first, from behind `start_after`; listed only as far as iterated.

    1 LIST for the first `page_keys` keys, then 1 per 1,000. A directory bucket, listing in no order, is listed whole.
    """
    if not store.ordered:
        found = sorted(entry for entry in await all_objects(store, keys.root) if entry.key > start_after)
        for listed in ListedNamespace.of(keys, found).checkpoints:
            yield listed
        return
    current: ListedCheckpoint | None = None
    async for page in pages(store, keys.root, start_after=start_after, first_limit=page_keys):
        beyond = False
        for entry in page.objects:
            parsed = keys.parse(entry.key)
            if parsed is None:
                # Checkpoints begin with a hexadecimal digit; what follows them are the large values.
                beyond = entry.key >= f"{keys.root}g"
                if beyond:
                    break
                continue
            checkpoint_id, name = parsed
            if current is None or current.id != checkpoint_id:
                if current is not None:
                    yield current
                current = ListedCheckpoint(keys, checkpoint_id)
            current.add(name, entry)
        if beyond:
            break
    if current is not None:
        yield current


async def newest_checkpoint(
    store: ObjectStore, keys: NamespaceKeys, *, without: Collection[str] = ()
) -> ListedCheckpoint | None:
    """The newest checkpoint of a namespace, those with the ids `without` aside; None if there is none. 1 LIST."""
    async with aclosing(checkpoints(store, keys, page_keys=FIRST_PAGE_KEYS)) as found:
        return await anext((one async for one in found if one.heads and one.id not in without), None)


async def one_checkpoint(store: ObjectStore, keys: NamespaceKeys, checkpoint_id: str) -> ListedCheckpoint | None:
    """The objects under one id, or None if there are none. 1 LIST (per 1,000 of them)."""
    listed = ListedCheckpoint(keys, checkpoint_id)
    directory = listed.directory
    for entry in await all_objects(store, directory):
        listed.add(entry.key[len(directory) :], entry)
    return listed if listed.names else None


async def thread_checkpoints(store: ObjectStore, prefix: str, root: str) -> list[ListedCheckpoint]:
    """The checkpoints of all namespaces under `root`, of one thread or all, newest id first. 1 LIST per 1,000 keys."""
    namespaces = by_namespace(prefix, await all_objects(store, root))
    found = [listed for namespace in namespaces for listed in namespace.checkpoints]
    return sorted(found, key=lambda listed: listed.id, reverse=True)


@dataclass(frozen=True, slots=True)
class ListedNamespace:
    """All objects of one namespace of a thread."""

    keys: NamespaceKeys
    objects: list[ListedObject]
    checkpoints: list[ListedCheckpoint]
    """Newest first."""
    values: dict[str, ListedObject]
    """The large values, by name."""

    @classmethod
    def of(cls, keys: NamespaceKeys, objects: list[ListedObject]) -> ListedNamespace:
        """What the objects are."""
        found: dict[str, ListedCheckpoint] = {}
        values: dict[str, ListedObject] = {}
        for entry in objects:
            if (parsed := keys.parse(entry.key)) is not None:
                checkpoint_id, name = parsed
                if checkpoint_id not in found:
                    found[checkpoint_id] = ListedCheckpoint(keys, checkpoint_id)
                found[checkpoint_id].add(name, entry)
            elif (value := keys.parse_value(entry.key)) is not None:
                values[value] = entry
        newest_first = sorted(found.values(), key=lambda checkpoint: checkpoint.id, reverse=True)
        return cls(keys, objects, newest_first, values)


def by_namespace(prefix: str, found: Iterable[ListedObject]) -> list[ListedNamespace]:
    """What is in each namespace of each thread; objects that belong to none are left out."""
    namespaces: dict[NamespaceKeys, list[ListedObject]] = {}
    for entry in found:
        if (keys := parse_namespace(prefix, entry.key)) is not None:
            namespaces.setdefault(keys, []).append(entry)
    return [ListedNamespace.of(keys, objects) for keys, objects in namespaces.items()]
