"""The checkpointer for code without an event loop: the same calls, each of which blocks until it is done.

One loop in a daemon thread carries out the calls of all threads, with one client. Nothing is opened before the first
call, so a facade can be a module global:

    checkpointer = SyncS3Checkpointer(Research)         # S3_CHECKPOINT_BUCKET=…

    def handler(event, context):
        checkpoint = checkpointer.resume(event["run_id"])

It works where a loop runs already (Jupyter), and after a fork: the child opens a client of its own.
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar, Unpack, cast
from uuid import UUID

from s3_checkpoint._concurrency.open_once import OpenOnce
from s3_checkpoint._format.keys import RunKeys, check_run_id, run_keys
from s3_checkpoint._leases.lease_object import LeaseObject
from s3_checkpoint._runs.grace import GRACE
from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.connection import CheckpointerOptions, Connection, ConnectOptions, check_options, settings_of
from s3_checkpoint.lease import TTL_S, SyncLease, check_conditional_writes, terms_of
from s3_checkpoint.models import ActiveSnapshot, Checkpoint, Overtaken, StateT
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.run_admin import RUNS_AT_ONCE, RunAdmin
from s3_checkpoint.run_models import HistoryEntry, Pruned, PrunedRuns, RunActivity, RunStatus, RunUsage
from s3_checkpoint.settings import S3Settings

T = TypeVar("T")
ClassT = TypeVar("ClassT")


def _documented_by(*twins: type[Any]) -> Callable[[type[ClassT]], type[ClassT]]:
    """Gives each public method the docstring of its async twin, so that there is only one to keep true."""

    def document(ours: type[ClassT]) -> type[ClassT]:
        for name, member in vars(ours).items():
            twin = next((vars(twin)[name] for twin in twins if name in vars(twin)), None)
            if twin is not None and not name.startswith("_"):
                member.__doc__ = twin.__doc__
        return ours

    return document


@_documented_by(S3Checkpointer, RunAdmin)
class SyncS3Checkpointer(Generic[StateT]):
    """Every call of `S3Checkpointer` and of `RunAdmin`, blocking; from any thread, and as many threads as you like.

    Arguments are those of `connect`, but for `client`: a client belongs to an event loop, and this has one of its own.
    Nothing is opened before the first call. A call from within its own loop (an async function handed to `run`, a
    `prune_all` callback) raises `LifecycleError`, as does every call after `close`.
    """

    def __init__(
        self,
        state_type: type[StateT],
        settings: S3Settings | str | None = None,
        **options: Unpack[CheckpointerOptions],
    ) -> None:
        check_options(type(self).__name__, options, CheckpointerOptions.__optional_keys__)
        resolved = settings_of(settings, options)
        self._prefix = resolved.prefix if resolved else ""
        self._namespace = ""
        store = options.get("store")
        self._opening: OpenOnce[S3Checkpointer[StateT]] = OpenOnce(
            lambda: Connection(state_type, resolved, cast("ConnectOptions", options)),
            loop=None if store is None else store.loop,
        )

    def __enter__(self) -> SyncS3Checkpointer[StateT]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The client is closed and the thread has ended, for this checkpointer and all made from it. No request.

        Closing twice, or unused, does nothing. Calls in flight end with `LifecycleError`.
        """
        self._opening.close()

    def run(self, function: Callable[[S3Checkpointer[StateT]], Coroutine[Any, Any, T]]) -> T:
        """What `function`, called with the async checkpointer in its loop, returns: for what is only there as async.

        `checkpointer.run(lambda checkpointer: run_superstep(checkpointer, graph, run_id))`
        """
        return self._opening.call(lambda checkpointer: function(checkpointer.with_namespace(self._namespace)))

    def _iterate(self, start: Callable[[RunAdmin[StateT]], AsyncIterator[T]]) -> Iterator[T]:
        return self._opening.iterate(lambda checkpointer: start(RunAdmin(checkpointer.with_namespace(self._namespace))))

    @property
    def namespace(self) -> str:
        """See `S3Checkpointer.namespace`."""
        return self._namespace

    def with_namespace(self, namespace: str) -> SyncS3Checkpointer[StateT]:
        """See `S3Checkpointer.with_namespace`."""
        RunKeys(self._prefix, UUID(int=0), namespace)
        other: SyncS3Checkpointer[StateT] = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _namespace=namespace)
        return other

    def save(self, run_id: UUID | str, step: int, state: StateT) -> None:
        """See `S3Checkpointer.save`."""
        self.run(lambda checkpointer: checkpointer.save(run_id, step, state))

    def load(self, run_id: UUID | str, step: int | None = None) -> StateT | None:
        """See `S3Checkpointer.load`."""
        return self.run(lambda checkpointer: checkpointer.load(run_id, step))

    def save_active(self, run_id: UUID | str, step: int, active: Sequence[ActiveSnapshot]) -> None:
        """See `S3Checkpointer.save_active`."""
        self.run(lambda checkpointer: checkpointer.save_active(run_id, step, active))

    def load_active(self, run_id: UUID | str, step: int) -> builtins.list[ActiveSnapshot]:
        """See `S3Checkpointer.load_active`."""
        return self.run(lambda checkpointer: checkpointer.load_active(run_id, step))

    def list(self, run_id: UUID | str) -> builtins.list[int]:
        """See `S3Checkpointer.list`."""
        return self.run(lambda checkpointer: checkpointer.list(run_id))

    def commit(self, run_id: UUID | str, step: int, state: StateT, active: Sequence[ActiveSnapshot]) -> None:
        """See `S3Checkpointer.commit`."""
        self.run(lambda checkpointer: checkpointer.commit(run_id, step, state, active))

    def commit_or_confirm(self, run_id: UUID | str, step: int, state: StateT, active: Sequence[ActiveSnapshot]) -> bool:
        """See `S3Checkpointer.commit_or_confirm`."""
        return self.run(lambda checkpointer: checkpointer.commit_or_confirm(run_id, step, state, active))

    def resume(self, run_id: UUID | str, *, known_step: int | None = None) -> Checkpoint[StateT] | None:
        """See `S3Checkpointer.resume`."""
        return self.run(lambda checkpointer: checkpointer.resume(run_id, known_step=known_step))

    def resume_at(self, run_id: UUID | str, step: int) -> Checkpoint[StateT] | Overtaken | None:
        """See `S3Checkpointer.resume_at`."""
        return self.run(lambda checkpointer: checkpointer.resume_at(run_id, step))

    def lease(
        self,
        run_id: UUID | str,
        ttl_s: float = TTL_S,
        *,
        purpose: str = "",
        holder: str | None = None,
        at_most_s: float | None = None,
    ) -> SyncLease:
        """A lease on a run, to be entered with `with`; requests, arguments and errors are those of `lease.lease`.

        It is renewed in the loop of this checkpointer, whatever the block does. Nothing can stop a thread: when the
        lease is lost, `held.lost` is set, and leaving the block raises `LeaseHeldError`.
        """
        terms = terms_of(ttl_s, purpose=purpose, holder=holder, at_most_s=at_most_s)

        def reach(function: Callable[[ObjectStore], Coroutine[Any, Any, T]]) -> T:
            async def on_its_store(checkpointer: S3Checkpointer[StateT]) -> T:
                check_conditional_writes(checkpointer.conditional_writes, checkpointer.objects.bucket)
                return await function(checkpointer.objects.store)

            return self.run(on_its_store)

        key = run_keys(self._prefix, check_run_id(run_id)).lease
        return SyncLease(reach, partial(LeaseObject, key=key), terms)

    def runs(self) -> Iterator[UUID]:
        """See `RunAdmin.runs`."""
        return self._iterate(lambda admin: admin.runs())

    def activity(
        self,
        *,
        waiting_on: Collection[str] = (),
        status: RunStatus | str | None = None,
        node: str | None = None,
        since: datetime | None = None,
    ) -> Iterator[RunActivity]:
        """See `RunAdmin.activity`."""
        return self._iterate(lambda admin: admin.activity(waiting_on=waiting_on, status=status, node=node, since=since))

    def activity_of(self, run_id: UUID | str, *, waiting_on: Collection[str] = ()) -> RunActivity:
        """See `RunAdmin.activity_of`."""
        return self.run(lambda checkpointer: RunAdmin(checkpointer).activity_of(run_id, waiting_on=waiting_on))

    def history(self, run_id: UUID | str) -> Iterator[HistoryEntry[StateT]]:
        """See `RunAdmin.history`."""
        return self._iterate(lambda admin: admin.history(run_id))

    def fork(self, run_id: UUID | str, step: int, new_run_id: UUID | str | None = None) -> UUID:
        """See `RunAdmin.fork`."""
        return self.run(lambda checkpointer: RunAdmin(checkpointer).fork(run_id, step, new_run_id))

    def prune(
        self,
        run_id: UUID | str,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        dry_run: bool = False,
        grace: timedelta = GRACE,
    ) -> Pruned:
        """See `RunAdmin.prune`."""
        return self.run(
            lambda checkpointer: RunAdmin(checkpointer).prune(
                run_id, keep_last=keep_last, older_than=older_than, dry_run=dry_run, grace=grace
            )
        )

    def prune_all(
        self,
        *,
        keep_last: int | None = None,
        older_than: timedelta | None = None,
        dry_run: bool = False,
        grace: timedelta = GRACE,
        runs_at_once: int = RUNS_AT_ONCE,
        on_run: Callable[[Pruned], None] | None = None,
    ) -> PrunedRuns:
        """See `RunAdmin.prune_all`."""
        return self.run(
            lambda checkpointer: RunAdmin(checkpointer).prune_all(
                keep_last=keep_last,
                older_than=older_than,
                dry_run=dry_run,
                grace=grace,
                runs_at_once=runs_at_once,
                on_run=on_run,
            )
        )

    def pruned_up_to(self, run_id: UUID | str) -> int | None:
        """See `RunAdmin.pruned_up_to`."""
        return self.run(lambda checkpointer: RunAdmin(checkpointer).pruned_up_to(run_id))

    def delete(self, run_id: UUID | str, *, dry_run: bool = False, grace: timedelta = GRACE) -> Pruned:
        """See `RunAdmin.delete`."""
        return self.run(lambda checkpointer: RunAdmin(checkpointer).delete(run_id, dry_run=dry_run, grace=grace))

    def usage(self) -> Iterator[RunUsage]:
        """See `RunAdmin.usage`."""
        return self._iterate(lambda admin: admin.usage())
