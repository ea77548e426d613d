"""Keeps one lease for as long as its block runs: takes it, renews it in the background, gives it back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from s3_checkpoint._leases.lease_object import Holding, LeaseObject
from s3_checkpoint.errors import CheckpointError, StoreUnavailableError
from s3_checkpoint.object_store import ObjectStore

logger = logging.getLogger("s3_checkpoint.lease")

RENEWALS = 3
"""Times that a lease is renewed within its time to live, so that two of them may fail."""
RELEASE_S = 5.0
"""Seconds that giving a lease back may take; it runs out by itself."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked for."""

    holder: str
    purpose: str
    ttl_s: float
    at_most_s: float | None
    """Seconds from taking it after which it is not renewed any more."""


class Keeper:
    """One holding of a lease. Its methods run in the store's event loop; `on_lost` is called there."""

    def __init__(
        self, lease_of: Callable[[ObjectStore], LeaseObject], terms: Terms, on_lost: Callable[[CheckpointError], None]
    ) -> None:
        self._lease_of = lease_of
        self._terms = terms
        self._on_lost = on_lost
        self._lease: LeaseObject | None = None
        self._holding: Holding | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def start(self, store: ObjectStore) -> int:
        """The lease is held, and renewed from now on; gives its epoch. Requests and errors of `LeaseObject.take`."""
        self._lease = lease = self._lease_of(store)
        terms = self._terms
        end = None if terms.at_most_s is None else lease.now() + terms.at_most_s
        ttl_s = terms.ttl_s if terms.at_most_s is None else min(terms.ttl_s, terms.at_most_s)
        self._holding = await lease.take(terms.holder, terms.purpose, ttl_s)
        self._renewing = asyncio.get_running_loop().create_task(self._renew(lease, end))
        return self._holding.record.epoch

    async def stop(self, _store: ObjectStore) -> None:
        """Nothing is renewed any more, and the lease is given back, unless it is lost: 1 PUT.

        A release that fails is logged: the lease runs out by itself.
        """
        if self._renewing is None:
            return
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        holding, self._holding = self._holding, None
        if holding is None or self._lease is None:
            return
        try:
            async with asyncio.timeout(min(RELEASE_S, holding.record.ttl_s)):
                await self._lease.release(holding)
        except (CheckpointError, TimeoutError) as error:
            code = error.code if isinstance(error, CheckpointError) else "timed-out"
            extra = {"holder": self._terms.holder, "code": code}
            logger.warning("the lease was not given back; it runs out in %.0f s", holding.record.ttl_s, extra=extra)

    async def _renew(self, lease: LeaseObject, end: float | None) -> None:
        lost: CheckpointError | None = None
        while lost is None and self._holding is not None:
            holding = self._holding
            last = end is not None and holding.until >= end
            pause = holding.record.ttl_s / RENEWALS
            # By the clock of this process, which says how long ago a write was sent, and nothing about the store.
            await asyncio.sleep(max(0.0, (holding.until if last else holding.sent + pause) - lease.now()))
            if last:
                lost = lease.lost("it was held for as long as `at_most_s` allows")
                continue
            try:
                lost = await self._renew_once(lease, end, pause)
            except Exception as error:  # noqa: BLE001 - a fault of ours or of a store: the holder must hear of it
                lost = lease.lost(f"internal: renewing it failed with {type(error).__name__}")
                lost.__cause__ = error
        if lost is not None:
            self._holding = None
            self._on_lost(lost)

    async def _renew_once(self, lease: LeaseObject, end: float | None, pause: float) -> CheckpointError | None:
        """None once it is renewed; else why it is lost. Asks again and again until its time to live is over."""
        holding = self._holding
        assert holding is not None  # noqa: S101 - it is until this says otherwise
        while True:
            now = lease.now()
            ttl_s = self._terms.ttl_s if end is None else min(self._terms.ttl_s, end - now)
            try:
                async with asyncio.timeout(max(0.0, holding.until - now)):
                    self._holding = await lease.renew(holding, ttl_s)
            except TimeoutError:
                return lease.lost("no renewal was answered in time")
            except StoreUnavailableError as error:
                if lease.now() + pause / 2 >= holding.until:
                    return error
                await asyncio.sleep(pause / 2)
            except CheckpointError as error:
                return error
            else:
                return None
