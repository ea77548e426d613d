"""What may be removed of a run, and in which order, so that no crash and no commit in progress can spoil what stays.

    object                        prune removes it if it is older than `grace`, and …
    state                         retention lets the step go; never the newest
    snapshot of a step that goes  always, after the state
    snapshot of a step that stays another snapshot is there too, and the state names that one (1 HEAD)
    snapshot without a state      the state has not come since the listing (1 HEAD)
    snapshot of `save_active`     its step goes; or has no state, and a later step is there

First the floor: an empty object whose key says up to which step states go. Then states, in requests of their own, the
oldest first; a state that the store refuses to remove ends it. Then snapshots, then floors that a later one covers.
`delete` removes everything in the same order until a LIST shows nothing more, except a young snapshot that a commit in
progress may be about to name. Why: docs/design/0004-removal.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from s3_checkpoint._concurrency.gather import ordered_map
from s3_checkpoint._format.keys import RunKeys, decode_segment
from s3_checkpoint._format.metadata import ObjectMetadata
from s3_checkpoint._runs.grace import is_young
from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.models import StepInfo
from s3_checkpoint.object_store import PAGE_KEYS, ListedObject, ObjectAttributes, ObjectStore, pages

HEADS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept. With both rules given, a step goes only if both let it go. The newest step never goes.

    Steps go from the oldest on: where one stays, all behind it stay. So a step that is there, and that no `prune` has
    taken from a listing yet, shows that none of those behind it has been pruned.
    """

    keep_last: int | None = None
    """Steps kept, counted from the newest: 1 …"""
    older_than: timedelta | None = None
    """Only steps stored longer ago than this go: zero or more."""

    def __post_init__(self) -> None:
        if self.keep_last is None and self.older_than is None:
            raise InvalidArgumentError("keep_last or older_than", "None", "must be given")
        if self.keep_last is not None and (type(self.keep_last) is not int or self.keep_last < 1):
            raise InvalidArgumentError("keep_last", repr(self.keep_last)[:80], "must be an int of 1 or more")
        if self.older_than is not None and (
            not isinstance(self.older_than, timedelta) or self.older_than < timedelta(0)
        ):
            raise InvalidArgumentError("older_than", repr(self.older_than)[:80], "must be a timedelta of zero or more")

    def split(
        self, states: Sequence[StepInfo], now: datetime, grace: timedelta
    ) -> tuple[list[StepInfo], list[StepInfo], int]:
        """`states`, ascending, as those kept and those that go; and how many of the kept only `grace` keeps.

        Those that only an earlier step keeps, because it is young, count as kept by `grace` too.
        """
        safe = len(states) - (self.keep_last or 1)
        kept: list[StepInfo] = []
        gone: list[StepInfo] = []
        young = 0
        for index, state in enumerate(states):
            age = now - state.last_modified
            if index >= safe or (self.older_than is not None and age < self.older_than):
                kept.append(state)
            elif kept or (grace and age < grace):
                kept.append(state)
                young += 1
            else:
                gone.append(state)
        return kept, gone, young


@dataclass(slots=True)
class NamespaceListing:
    """The objects of one namespace of a run, as a listing shows them."""

    keys: RunKeys
    states: dict[int, ListedObject] = field(default_factory=dict)
    saved: dict[int, ListedObject] = field(default_factory=dict)
    """Snapshots of `save_active`, by step."""
    committed: dict[int, list[tuple[str, ListedObject]]] = field(default_factory=dict)
    """Snapshots of commits with their write ids, by step."""
    floors: dict[int, ListedObject] = field(default_factory=dict)


@dataclass(slots=True)
class RunListing:
    """Everything that is listed under a run."""

    run: RunKeys
    namespaces: dict[str, NamespaceListing] = field(default_factory=dict)
    """The root (`""`) first, where it has any object."""
    others: list[ListedObject] = field(default_factory=list)
    """Objects that are not of this layout."""
    bytes: int = 0

    def add(self, listed: ListedObject) -> None:
        """Takes in one entry of the listing."""
        self.bytes += listed.size
        keys = self.run.of_namespace(listed.key)
        if keys is None:
            self.others.append(listed)
            return
        name = keys.namespace
        if name not in self.namespaces:
            self.namespaces[name] = NamespaceListing(keys)
        found = self.namespaces[name]
        if (step := keys.parse_state(listed.key)) is not None:
            found.states[step] = listed
        elif (parsed := keys.parse_active(listed.key)) is not None:
            step, write_id = parsed
            if write_id is None:
                found.saved[step] = listed
            else:
                found.committed.setdefault(step, []).append((write_id, listed))
        elif (step := keys.parse_floor(listed.key)) is not None:
            found.floors[step] = listed
        else:
            self.others.append(listed)

    def steps(self) -> set[int]:
        """The run's own steps, those of namespaces not included."""
        return set(self.namespaces[""].states) if "" in self.namespaces else set()

    def entries(self) -> frozenset[ListedObject]:
        """All objects that are listed."""
        found = set(self.others)
        for listing in self.namespaces.values():
            found.update(listing.states.values(), listing.saved.values(), listing.floors.values())
            found.update(listed for snapshots in listing.committed.values() for _, listed in snapshots)
        return frozenset(found)

    def state_keys(self) -> list[str]:
        """The keys of all states in the order in which `delete` removes them: the run's own last, its newest last."""
        namespaces = [listing for name, listing in self.namespaces.items() if name]
        own = [self.namespaces[""]] if "" in self.namespaces else []
        return [listing.states[step].key for listing in namespaces + own for step in sorted(listing.states)]


async def list_run(store: ObjectStore, run: RunKeys) -> RunListing:
    """All objects of the run. 1 LIST per 1,000.

    Snapshots are listed before states, as their keys order: the state of a commit that ended before the listing began
    is never missed where its snapshot is seen.
    """
    listing = RunListing(run)
    async for listed in objects_under(store, run.run):
        listing.add(listed)
    return listing


async def objects_under(store: ObjectStore, prefix: str) -> AsyncIterator[ListedObject]:
    """Every object under `prefix`. 1 LIST per 1,000."""
    async for page in pages(store, prefix):
        for listed in page.objects:
            yield listed


@dataclass(slots=True)
class Removal:
    """What one namespace of a run loses."""

    keys: RunKeys
    kept: int = 0
    young: int = 0
    """Of the kept, steps that only the grace period keeps."""
    steps: list[int] = field(default_factory=list)
    state_keys: list[str] = field(default_factory=list)
    snapshot_keys: list[str] = field(default_factory=list)
    floor_keys: list[str] = field(default_factory=list)
    """Floors that a later one covers."""
    new_floor: int | None = None
    """What is to be written before any state goes; None if a floor covers all that go."""
    bytes: int = 0


async def plan_removal(
    store: ObjectStore, listing: NamespaceListing, retention: Retention, *, now: datetime, grace: timedelta
) -> Removal:
    """What `retention` lets go of a listed namespace; nothing is written.

    1 HEAD for each step that stays with two snapshots or more, one of them older than `grace`, and for each snapshot
    older than `grace` without a state.
    """
    keys, states = listing.keys, listing.states
    infos = [StepInfo(step, states[step].size, states[step].last_modified) for step in sorted(states)]
    kept, gone, young = retention.split(infos, now, grace)
    removal = Removal(keys, len(kept), young, [state.step for state in gone])
    removal.state_keys = [states[step].key for step in removal.steps]
    removal.bytes = sum(state.size for state in gone)
    floor = max([*listing.floors, *removal.steps[-1:]], default=None)
    removal.new_floor = floor if floor not in listing.floors else None
    removal.floor_keys = [listed.key for step, listed in listing.floors.items() if step != floor]

    def goes(listed: ListedObject) -> None:
        removal.snapshot_keys.append(listed.key)
        removal.bytes += listed.size

    gone_steps, newest = set(removal.steps), infos[-1].step if infos else -1
    unsure: dict[int, list[tuple[str, ListedObject]]] = {}
    for step, snapshots in listing.committed.items():
        old = [found for found in snapshots if not is_young(found[1], now, grace)]
        if step in gone_steps:
            for _, listed in old:
                goes(listed)
        elif old and (step not in states or len(snapshots) > 1):
            unsure[step] = old  # only the state itself can tell
    for step, listed in listing.saved.items():
        if not is_young(listed, now, grace) and (step in gone_steps or (step not in states and step < newest)):
            goes(listed)

    async def head_of(step: int) -> tuple[int, ObjectMetadata | None]:
        head = await store.head(keys.state(step))
        return step, ObjectMetadata.of(head) if head else None

    async with ordered_map(head_of, unsure, ahead=HEADS_AT_ONCE) as heads:
        async for step, metadata in heads:
            if (metadata is None) == (step in states):
                continue  # it has come or gone since the listing: the next call tells
            for write_id, listed in unsure[step]:
                if metadata is None or write_id != metadata.active:
                    goes(listed)
    return removal


async def remove(store: ObjectStore, removal: Removal) -> None:
    """Removes what was planned. 1 PUT if states go that no floor covers; 1 DELETE per 1,000 states, then snapshots."""
    if removal.new_floor is not None:
        await store.put(removal.keys.floor(removal.new_floor), b"", FLOOR_ATTRIBUTES, mode="overwrite")
    await delete_in_order(store, removal.state_keys)
    await delete_in_order(store, removal.snapshot_keys)
    await delete_in_order(store, removal.floor_keys)


FLOOR_ATTRIBUTES = ObjectAttributes(content_type="application/json", metadata=ObjectMetadata().build())


async def delete_in_order(store: ObjectStore, keys: Sequence[str]) -> None:
    """Removes `keys`, each thousand after the one before it is gone. 1 DELETE per 1,000."""
    for start in range(0, len(keys), PAGE_KEYS):
        await store.delete(keys[start : start + PAGE_KEYS])


@dataclass(slots=True)
class Deletion:
    """What one round of `delete` removes of a run, in its order, and what it leaves."""

    state_keys: list[str]
    other_keys: list[str]
    left: int
    """Young snapshots that a commit in progress may come to name."""


async def plan_deletion(store: ObjectStore, listing: RunListing, *, now: datetime, grace: timedelta) -> Deletion:
    """What of a listed run can be removed now; nothing is written.

    1 HEAD for each snapshot of a commit younger than `grace`.
    """
    others = [listed.key for listed in listing.others]
    young: list[str] = []
    for namespace in listing.namespaces.values():
        others += [listed.key for listed in (*namespace.saved.values(), *namespace.floors.values())]
        for snapshots in namespace.committed.values():
            for _, listed in snapshots:
                (young if is_young(listed, now, grace) else others).append(listed.key)

    async def removable(key: str) -> tuple[str, bool]:
        head = await store.head(key)
        return key, head is None or bool(ObjectMetadata.of(head).copy)

    left = 0
    async with ordered_map(removable, young, ahead=HEADS_AT_ONCE) as answers:
        async for key, goes in answers:
            left += not goes
            if goes:
                others.append(key)
    return Deletion(listing.state_keys(), others, left)


async def namespaces_of(store: ObjectStore, keys: RunKeys) -> list[str]:
    """The namespaces of the run, the root (`""`) first. 1 LIST per 1,000 namespaces, at least 1."""
    found = [""]
    async for page in pages(store, keys.namespaces, delimiter="/"):
        names = (decode_segment(prefix[len(keys.namespaces) : -1]) for prefix in page.prefixes)
        found += [name for name in names if name]
    return found
