"""Leases: one worker at a time on a run or a thread, so that no work is done twice at once.

    from s3_checkpoint.lease import lease

    async with lease(checkpointer, run_id, ttl_s=30, purpose="nightly") as held:
        ...                             # renewed in the background; another worker gets LeaseHeldError
        if held.lost.is_set(): ...      # by then this task is being cancelled

For LangGraph `saver.lease(thread_id)`, and `SyncS3Checkpointer.lease(run_id)`: both also with a plain `with`.

**It saves work and keeps nothing right.** A worker that is suspended does not see its lease run out, and continues for
a moment when it wakes. What keeps a run right is `commit`: of two workers at one step, one wins, lease or not. Where a
side effect must know its order, hand `held.epoch` along: it grows with every holding.

Time is the store's: a lease has expired when its age by the store's clock is over its time to live. The clocks of the
workers play no part, however wrong they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, TypeAlias
from uuid import UUID

from s3_checkpoint._format.keys import check_run_id, run_keys
from s3_checkpoint._leases.keeper import Keeper, Terms
from s3_checkpoint._leases.lease_object import LeaseObject
from s3_checkpoint._leases.record import MAX_TTL_S, MIN_TTL_S, check_text, check_ttl
from s3_checkpoint.checkpointer import S3Checkpointer, check_is_open
from s3_checkpoint.errors import CheckpointError, ConfigurationError, InvalidArgumentError, LifecycleError
from s3_checkpoint.object_store import ObjectStore

TTL_S = 30.0
"""Seconds that a lease outlives its holder, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that this task holds."""

    holder: str
    purpose: str
    epoch: int
    """How often the lease has been taken, this time included. A deleted run or thread begins again at 1."""
    lost: asyncio.Event = field(default_factory=asyncio.Event, compare=False)
    """Set when the lease is held no more, though the block has not ended; the block's task is cancelled then."""


@dataclass(frozen=True, slots=True)
class SyncHeld:
    """A lease that this thread holds."""

    holder: str
    purpose: str
    epoch: int
    """See `Held.epoch`."""
    lost: threading.Event = field(default_factory=threading.Event, compare=False)
    """Set when the lease is held no more, though the block has not ended. Nothing can stop a thread: look at it."""


Reach: TypeAlias = Callable[[Callable[[ObjectStore], Coroutine[Any, Any, Any]]], Awaitable[Any]]
"""Awaits what a function of the store gives, in the event loop that the store belongs to."""
SyncReach: TypeAlias = Callable[[Callable[[ObjectStore], Coroutine[Any, Any, Any]]], Any]
"""As `Reach`, blocking the calling thread."""


class Lease:
    """To be entered with `async with`, once: the block holds the lease.

    Requests:
        To take it 1 GET and 1 PUT, and the first time in a process 1 PUT that is refused, together with the GET; if
        another worker holds it, 1 GET. 1 PUT for each renewal, three within `ttl_s`; 1 PUT to give it back. A transport
        that does not tell the store's `Date` takes 1 PUT and 1 HEAD more to see whether a lease has expired.

    Raises:
        LeaseHeldError: On entering, another worker holds it; when `seconds_left` are over, it has expired or was
            renewed. On leaving, it was lost: taken over, removed with its run, or not renewed in time.
        ConfigurationError: On entering, the store has no `If-Match`, or `conditional_writes` is off.
        StoreUnavailableError: No answer. On entering, the lease may have been taken all the same, for `ttl_s`; on
            leaving, it was lost, because no renewal was answered.
    """

    def __init__(self, reach: Reach, lease_of: Callable[[ObjectStore], LeaseObject], terms: Terms) -> None:
        self._reach = reach
        self._terms = terms
        self._keeper = Keeper(lease_of, terms, self._on_lost)
        self._held: Held | None = None
        self._over = False
        self._why_lost: CheckpointError | None = None

    async def __aenter__(self) -> Held:
        task = asyncio.current_task()
        if self._held is not None or self._over or task is None:
            raise LifecycleError("a lease is entered once, in a task: make another one")
        self._task, self._loop, self._cancelling = task, asyncio.get_running_loop(), task.cancelling()
        epoch = await self._reach(self._keeper.start)
        self._held = Held(self._terms.holder, self._terms.purpose, epoch)
        return self._held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if self._why_lost is not None:
            cancelled_by_others = self._task.uncancel() > self._cancelling
            if not cancelled_by_others:
                # If the block ended before the cancellation reached it, it comes at the next await.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
        await self._reach(self._keeper.stop)
        if self._why_lost is not None and (
            kind is None or (kind is asyncio.CancelledError and not cancelled_by_others)
        ):
            raise self._why_lost from self._why_lost.__cause__

    def _on_lost(self, why: CheckpointError) -> None:
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._lose, why)

    def _lose(self, why: CheckpointError) -> None:
        if self._held is not None and not self._over:
            self._why_lost = why
            self._held.lost.set()
            self._task.cancel()


class SyncLease:
    """As `Lease`, for a plain `with` in any thread. When it is lost, `held.lost` is set, and leaving raises why."""

    def __init__(self, reach: SyncReach, lease_of: Callable[[ObjectStore], LeaseObject], terms: Terms) -> None:
        self._reach = reach
        self._terms = terms
        self._keeper = Keeper(lease_of, terms, self._on_lost)
        self._lost = threading.Event()
        self._entered = False
        self._why_lost: CheckpointError | None = None

    def __enter__(self) -> SyncHeld:
        if self._entered:
            raise LifecycleError("a lease is entered once: make another one")
        self._entered = True
        epoch = self._reach(self._keeper.start)
        return SyncHeld(self._terms.holder, self._terms.purpose, epoch, self._lost)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reach(self._keeper.stop)
        if self._why_lost is not None and kind is None:
            raise self._why_lost

    def _on_lost(self, why: CheckpointError) -> None:
        self._why_lost = why
        self._lost.set()


class EitherLease:
    """A lease for `with` and for `async with`, of a store that every thread and every event loop may use."""

    def __init__(
        self, reach: Reach, sync_reach: SyncReach, lease_of: Callable[[ObjectStore], LeaseObject], terms: Terms
    ) -> None:
        self._async = Lease(reach, lease_of, terms)
        self._sync = SyncLease(sync_reach, lease_of, terms)

    async def __aenter__(self) -> Held:
        """See `Lease`."""
        return await self._async.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._async.__aexit__(kind, error, trace)

    def __enter__(self) -> SyncHeld:
        """See `SyncLease`."""
        return self._sync.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sync.__exit__(kind, error, trace)


def lease(
    checkpointer: S3Checkpointer[Any],
    run_id: UUID | str,
    ttl_s: float = TTL_S,
    *,
    purpose: str = "",
    holder: str | None = None,
    at_most_s: float | None = None,
) -> Lease:
    """A lease on a run, to be entered with `async with`: inside the block no other worker gets it. No request yet.

    Requests:
        Those of `Lease`.

    Args:
        checkpointer: Where the run is stored. Its namespace does not matter: a run has one lease.
        run_id: The run; a UUID or its text. It need not have steps.
        ttl_s: Seconds that the lease outlives its holder, 1 … 86,400; it is renewed three times in that time. A rival
            waits for this long after a crash, and 2 to 3 seconds more, since S3 tells its time in whole seconds.
        purpose: What for, for people: at most 200 characters. It is in the `LeaseHeldError` of rivals.
        holder: Who, for people: at most 200 characters. Default: this machine's name and the process id.
        at_most_s: Seconds after which it is not renewed any more and so counts as lost, 1 or more: the time left of a
            Lambda invocation, say. Default: no bound.

    Returns:
        A `Lease`; entering it gives a `Held`.

    Raises:
        InvalidArgumentError: An argument is out of bounds.
        ConfigurationError: `conditional_writes` is off.
    """
    check_is_open(checkpointer)
    check_conditional_writes(checkpointer.conditional_writes, checkpointer.objects.bucket)
    terms = terms_of(ttl_s, purpose=purpose, holder=holder, at_most_s=at_most_s)
    store, commits = checkpointer.objects.store, checkpointer.commits
    key = run_keys(checkpointer.prefix, check_run_id(run_id)).lease
    lease_of = partial(LeaseObject, key=key, new_id=commits.new_id, monotonic=commits.now)
    return Lease(lambda function: function(store), lease_of, terms)


def terms_of(ttl_s: float, *, purpose: str, holder: str | None, at_most_s: float | None) -> Terms:
    """What is asked for, checked; `InvalidArgumentError` for what is out of bounds."""
    if at_most_s is not None and not (isinstance(at_most_s, (int, float)) and at_most_s >= MIN_TTL_S):
        raise InvalidArgumentError("at_most_s", repr(at_most_s)[:80], f"must be {MIN_TTL_S:.0f} second or more")
    who = f"{platform.node()}:{os.getpid()}" if holder is None else holder
    bound = None if at_most_s is None or at_most_s > MAX_TTL_S else float(at_most_s)
    return Terms(check_text("holder", who), check_text("purpose", purpose), check_ttl("ttl_s", ttl_s), bound)


def check_conditional_writes(conditional_writes: bool, bucket: str) -> None:
    """Raises `ConfigurationError` where no lease can be had."""
    if not conditional_writes:
        raise ConfigurationError(
            "leases need a store that honours If-None-Match and If-Match, and conditional_writes=False says this one "
            "does not",
            bucket,
        )
