"""Which objects of a run are no longer needed, and removing them in an order that no crash and no commit can spoil.

A commit writes its active snapshot first and the state that names it second. In between, the snapshot looks like an
orphan, and its step may be removed meanwhile, so that the commit still succeeds. Hence:

    the snapshot's step …            a committed snapshot goes if …
    is above the newest step         never: its commit is under way, or will be tried again
    is kept                          its state does not name it, and it is older than the grace period
    goes with this call              its state names it (it goes after its state), or it is older than the grace period
    is below the newest, not there   it is older than the grace period

The grace period outlasts any commit by far (all attempts of both its requests end within minutes). States go first, the
oldest first, and snapshots only after them: whatever interrupts that leaves a run whose kept steps are whole, and the
next call removes the rest. Keys that are not of this layout are never touched by `prune`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.keys import RunKeys, decode_segment
from s3_checkpoint.models import StepInfo
from s3_checkpoint.object_store import PAGE_KEYS, ListedObject, ObjectStore
from s3_checkpoint.read_ahead import ReadAhead, each

GRACE = timedelta(hours=1)
"""How old a snapshot that nothing names must be before it counts as left behind by a crash."""
HEADS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept. With both rules given, a step goes only if both let it go. The newest step never goes."""

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

    def split(self, states: Sequence[StepInfo], now: datetime) -> tuple[list[StepInfo], list[StepInfo]]:
        """`states`, ascending, as those kept and those that go."""
        safe = len(states) - (self.keep_last or 1)
        kept: list[StepInfo] = []
        gone: list[StepInfo] = []
        for index, state in enumerate(states):
            young = self.older_than is not None and now - state.last_modified < self.older_than
            (kept if index >= safe or young else gone).append(state)
        return kept, gone


@dataclass(slots=True)
class Removal:
    """What one namespace of a run loses."""

    kept: int = 0
    steps: list[int] = field(default_factory=list)
    state_keys: list[str] = field(default_factory=list)
    snapshot_keys: list[str] = field(default_factory=list)
    bytes: int = 0

    def add_snapshot(self, snapshot: ListedObject) -> None:
        """Adds a snapshot to what goes."""
        self.snapshot_keys.append(snapshot.key)
        self.bytes += snapshot.size


async def objects_under(store: ObjectStore, prefix: str) -> AsyncIterator[ListedObject]:
    """Every object under `prefix`. 1 request per 1,000."""
    token: str | None = None
    while True:
        page = await store.list(prefix, token=token)
        for listed in page.objects:
            yield listed
        token = page.next_token
        if token is None:
            return


async def namespaces_of(store: ObjectStore, keys: RunKeys) -> list[str]:
    """The namespaces of the run, the root (`""`) first. 1 request per 1,000 namespaces, at least 1."""
    found = [""]
    token: str | None = None
    while True:
        page = await store.list(keys.namespaces, token=token, delimiter="/")
        for prefix in page.prefixes:
            name = decode_segment(prefix[len(keys.namespaces) : -1])
            if name:
                found.append(name)
        token = page.next_token
        if token is None:
            return found


async def plan_removal(
    store: ObjectStore, keys: RunKeys, retention: Retention, *, now: datetime, grace: timedelta
) -> Removal:
    """What `retention` lets go in the namespace of `keys`; nothing is written.

    n/1000 requests for the states and for the snapshots each; 1 more for each kept step with a committed snapshot older
    than `grace`, and for each step that goes with a younger one.
    """
    states = sorted(
        [
            StepInfo(step, listed.size, listed.last_modified)
            async for listed in objects_under(store, keys.steps)
            if (step := keys.parse_state(listed.key)) is not None
        ],
        key=lambda state: state.step,
    )
    if not states:
        return Removal()
    newest = states[-1].step
    kept, gone = retention.split(states, now)
    removal = Removal(
        kept=len(kept),
        steps=[state.step for state in gone],
        state_keys=[keys.state(state.step) for state in gone],
        bytes=sum(state.size for state in gone),
    )
    kept_steps, gone_steps = {state.step for state in kept}, set(removal.steps)
    unsure: dict[int, list[tuple[str, ListedObject]]] = {}
    async for listed in objects_under(store, keys.actives):
        parsed = keys.parse_active(listed.key)
        if parsed is None or parsed[0] > newest:
            continue
        step, write_id = parsed
        old = now - listed.last_modified >= grace
        goes, stays = step in gone_steps, step in kept_steps
        if write_id is not None and ((goes and not old) or (stays and old)):
            unsure.setdefault(step, []).append((write_id, listed))  # only its state can tell
        elif goes or (old and not stays):
            removal.add_snapshot(listed)

    async def named_by(step: int) -> tuple[int, str | None, bool]:
        head = await store.head(keys.state(step))
        return step, head.attributes.metadata.get("active") if head else None, head is not None

    async with aclosing(ReadAhead(each(unsure), named_by, ahead=HEADS_AT_ONCE)) as heads:
        async for step, named, present in heads:
            for write_id, listed in unsure[step]:
                if present and (write_id == named) == (step in gone_steps):
                    removal.add_snapshot(listed)
    return removal


async def remove(store: ObjectStore, removal: Removal) -> None:
    """Removes what was planned: states, oldest first, then snapshots. 1 request per 1,000 objects of each."""
    await delete_in_order(store, removal.state_keys)
    await delete_in_order(store, removal.snapshot_keys)


async def delete_in_order(store: ObjectStore, keys: Sequence[str]) -> None:
    """Removes `keys`, each thousand after the one before it is gone. 1 request per 1,000."""
    for start in range(0, len(keys), PAGE_KEYS):
        await store.delete(keys[start : start + PAGE_KEYS])


async def objects_of_run(store: ObjectStore, keys: RunKeys) -> list[ListedObject]:
    """Everything under the run, in the order in which it can be removed. 1 request per 1,000 objects.

    States go first and the run's own last among them, the oldest first: as long as anything of the run can be resumed,
    it is its newest step, whole.
    """

    def turn(listed: ListedObject) -> tuple[bool, bool, bytes]:
        own = keys.parse_state(listed.key) is not None
        return not is_state(keys, listed.key), own, listed.key.encode()

    return sorted([listed async for listed in objects_under(store, keys.run)], key=turn)


def is_state(keys: RunKeys, key: str) -> bool:
    """Whether a state of the run stands at `key`, its own or that of a namespace."""
    if key.startswith(keys.namespaces):
        segment, _, rest = key[len(keys.namespaces) :].partition("/")
        return rest.startswith("steps/") and decode_segment(segment) is not None
    return keys.parse_state(key) is not None
