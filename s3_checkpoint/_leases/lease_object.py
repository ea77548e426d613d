"""A lease as an object in the store: what taking, renewing and giving it back send, and what the answers mean.

**Who may take it.** GET first. Nothing there: PUT with `If-None-Match: *`. Released, or expired: PUT with `If-Match` of
what was read, and an epoch one higher. Else it is held: `LeaseHeldError`. Renewals and the release are PUTs with
`If-Match`, so each write replaces exactly the one that its writer knows of, and of two that take over one succeeds.

**Expired** is a record whose age by the store's clock (`Date` of the answer less `Last-Modified` of the object) is its
time to live and `SLACK` more. Clocks of processes play no part: one that is an hour off takes nothing over early. The
holder measures its own time from before it sends a write, by a clock that nobody sets, so it gives up before anybody
can take over.

**Refusals** are never believed unread: the object is read back. Our own write id there: success.

**If-Match.** A store that ignores it would let two hold one lease. The first lease that a process takes in a store
sends one PUT, together with the GET, with an ETag that no object has: answered with anything but a refusal, it ends in
`ConfigurationError`.

Source: "Add preconditions to S3 operations with conditional requests", Amazon S3 user guide.
"""

from __future__ import annotations

import asyncio
import random
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, NamedTuple

from s3_checkpoint._concurrency.gather import both
from s3_checkpoint._format.keys import new_write_id
from s3_checkpoint._leases.record import MAX_RECORD_BYTES, LeaseRecord
from s3_checkpoint.errors import ConfigurationError, LeaseHeldError, StateDecodingError, StoreUnavailableError
from s3_checkpoint.object_store import (
    Match,
    ObjectAttributes,
    ObjectHead,
    ObjectStore,
    PutMode,
    Refused,
    Written,
    time_of_writing,
)

SLACK = timedelta(seconds=2)
"""`Date` and `Last-Modified` are cut to whole seconds, and servers of one store may differ by a little."""
ATTEMPTS = 8
"""Writes of one call that may be refused though nothing forbids them: by a 409, or by a rival that gave way again."""
NO_ETAG: Final = Match('"00000000000000000000000000000000"')
_ATTRIBUTES = ObjectAttributes()

_honours_if_match: weakref.WeakSet[ObjectStore] = weakref.WeakSet()
"""The stores that have refused a PUT with an ETag that no object has."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease that is held: the record last written, and its ETag."""

    record: LeaseRecord
    etag: str
    sent: float
    """When that write was sent, by the holder's monotonic clock; the store counts from then or later."""

    @property
    def until(self) -> float:
        """When the holder must give up, by the same clock."""
        return self.sent + self.record.ttl_s


class _Found(NamedTuple):
    record: LeaseRecord
    head: ObjectHead


class LeaseObject:
    """One key. `new_id`, `sleep`, `jitter` and `monotonic` are those of the checkpointer."""

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        *,
        new_id: Callable[[], str] = new_write_id,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._key = key
        self._new_id = new_id
        self._sleep = sleep
        self._jitter = jitter
        self.now = monotonic

    async def take(self, holder: str, purpose: str, ttl_s: float) -> Holding:
        """The lease is held. 1 GET and 1 PUT; the first time in a process and store, 1 refused PUT with the GET.

        Raises `LeaseHeldError` if another holds it, or was faster; `ConfigurationError` on a store without `If-Match`.
        """
        draft = LeaseRecord(self._new_id(), "", 1, holder, purpose, ttl_s)
        tried: dict[str, Holding] = {}
        for attempt in range(ATTEMPTS):
            found = await self._first_look() if not attempt else await self._read()
            if found is not None and found.record.write_id in tried:
                mine = tried[found.record.write_id]
                if self.now() < mine.until:
                    return replace(mine, etag=found.head.etag)
            elif found is not None and not found.record.released:
                await self._check_expired(found)
            epoch = found.record.epoch + 1 if found else 1
            record = replace(draft, write_id=self._new_id(), epoch=epoch)
            mine = tried[record.write_id] = Holding(record, "", self.now())
            answer = await self._put(record, Match(found.head.etag) if found else "create")
            if isinstance(answer, Written) and self.now() < mine.until:
                return replace(mine, etag=answer.etag)
            if isinstance(answer, Refused) and not answer.was_there:
                await self._sleep(0.05 * 2**attempt * (0.5 + self._jitter()))
        raise self._never_settled()

    async def renew(self, holding: Holding, ttl_s: float) -> Holding:
        """The lease is held for `ttl_s` from now. 1 PUT; refused, 1 GET more.

        Raises `LeaseHeldError` if it is lost: another has taken it over, or its object is gone.
        """
        return await self._replace(holding, ttl_s, released=False)

    async def release(self, holding: Holding) -> None:
        """The next to ask gets it. 1 PUT; refused, 1 GET more. A lease that is lost is left as it is."""
        try:
            await self._replace(holding, holding.record.ttl_s, released=True)
        except LeaseHeldError:
            return

    async def _replace(self, holding: Holding, ttl_s: float, *, released: bool) -> Holding:
        record = replace(holding.record, write_id=self._new_id(), ttl_s=ttl_s, released=released)
        etag = holding.etag
        for attempt in range(ATTEMPTS):
            sent = self.now()
            answer = await self._put(record, Match(etag))
            if isinstance(answer, Written):
                return Holding(record, answer.etag, sent)
            found = await self._read()
            if found is None:
                raise self.lost("its object was removed")
            if found.record.write_id == record.write_id:
                return Holding(record, found.head.etag, sent)
            if found.record.lease != record.lease:
                raise self._held(found, "the lease is lost: it was taken over", found.record.ttl_s)
            # A renewal whose answer never came has landed, or the store had another write of the key in hand.
            etag = found.head.etag
            if not answer.was_there:
                await self._sleep(0.05 * 2**attempt * (0.5 + self._jitter()))
        raise self._never_settled()

    async def _put(self, record: LeaseRecord, mode: PutMode) -> Written | Refused:
        """As `ObjectStore.put`; where no answer came, what is read back tells, if it can."""
        try:
            return await self._store.put(self._key, record.build(), _ATTRIBUTES, mode=mode)
        except StoreUnavailableError as error:
            if not error.outcome_unknown:
                raise
            found = await self._read()
            if found is None or found.record.write_id != record.write_id:
                raise
            return Written(found.head.etag)

    async def _first_look(self) -> _Found | None:
        if self._store in _honours_if_match:
            return await self._read()
        probe = LeaseRecord("probe", "probe", 1, "", "", 1, released=True).build()
        found, answer = await both(self._read(), self._store.put(self._key, probe, _ATTRIBUTES, mode=NO_ETAG))
        if isinstance(answer, Written):
            raise ConfigurationError(
                "leases need a store that honours If-Match, and this one ignores it (`s3-checkpoint doctor` tells "
                "more); work without them: commit keeps runs right by itself",
                self._store.bucket,
            )
        _honours_if_match.add(self._store)
        return found

    async def _read(self) -> _Found | None:
        stored = await self._store.get(self._key, max_bytes=MAX_RECORD_BYTES)
        if stored is None:
            return None
        try:
            record = LeaseRecord.parse(stored.body)
        except ValueError as error:
            raise StateDecodingError(self._store.bucket, self._key, str(error)) from error
        return _Found(record, stored.head)

    async def _check_expired(self, found: _Found) -> None:
        """Returns if the lease may be taken over; else raises `LeaseHeldError`."""
        clock_key = f"{self._key.removesuffix('.json')}-clock.json"
        now = found.head.date or await time_of_writing(self._store, clock_key)
        left = found.head.last_modified + timedelta(seconds=found.record.ttl_s) + SLACK - now
        if left > timedelta(0):
            raise self._held(found, "", left.total_seconds())

    def lost(self, why: str) -> LeaseHeldError:
        """The error of a holder who must stop, though no other holder is known."""
        return LeaseHeldError(self._store.bucket, self._key, "", "", 0.0, f"the lease is lost: {why}")

    def _held(self, found: _Found, detail: str, seconds_left: float) -> LeaseHeldError:
        record = found.record
        return LeaseHeldError(self._store.bucket, self._key, record.holder, record.purpose, seconds_left, detail)

    def _never_settled(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            "PutObject",
            self._store.bucket,
            self._key,
            outcome_unknown=True,
            detail=f"{ATTEMPTS} writes of the lease were refused, and nobody holds it",
        )
