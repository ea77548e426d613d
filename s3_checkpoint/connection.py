"""Settings in, an open checkpointer out: one `async with`, one client."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from difflib import get_close_matches
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypedDict, Unpack, overload

from s3_checkpoint._concurrency.gc_pause import collector_paused
from s3_checkpoint._transports import open_store
from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.errors import InvalidArgumentError, LifecycleError
from s3_checkpoint.models import Migration, StateT
from s3_checkpoint.object_store import ObjectStore, check_store
from s3_checkpoint.request_events import OnRequest
from s3_checkpoint.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client


class CheckpointerOptions(TypedDict, total=False):
    """The options of `SyncS3Checkpointer`, and of `connect`."""

    store: ObjectStore | None
    """A store to use instead of a bucket, and not closed: `MemoryStore()` in tests. Of the settings, what describes the
    objects applies to it (`prefix`, `compression`, `max_state_bytes`, …); without settings, their defaults, whatever
    the environment says."""
    schema_version: int
    """1 or more; written with every state."""
    migrations: Mapping[int, Migration] | None
    """Lead from each older version to the next: `{1: f, 2: g}`, each a function from the older JSON value to the
    newer."""
    on_request: OnRequest | None
    """Called after each request, in the task that made it, with a `RequestEvent`: operation, key, bytes, duration,
    attempts, outcome. What it raises is logged and goes no further. Not with `store`."""
    session: object | None
    """An `aioboto3.Session` or a session of aiobotocore, to make the client from: its profile, role, region and
    credentials hold. It stays as it is. Not with `store` or `client`."""


class ConnectOptions(CheckpointerOptions, total=False):
    """The options of `connect`."""

    client: S3Client | None
    """An open aiobotocore or aioboto3 S3 client to use instead of making one; it is not closed. Not with `store`."""


class Connection(Generic[StateT]):
    """What `connect` returns: enter it with `async with` to get the checkpointer. Once left, it can be entered again.

    Opening makes the client: once per process, not per call. Closing it ends every checkpointer made from it.
    """

    def __init__(self, state_type: Any, settings: S3Settings | None, options: ConnectOptions) -> None:
        self._state_type = state_type
        self._settings = settings
        self._options = options
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> S3Checkpointer[StateT]:
        if self._stack is not None:
            raise LifecycleError("this connection is open already; call connect(...) again for another one")
        self._stack = AsyncExitStack()  # set at once: opening waits, and another task may enter in that time
        try:
            self._stack, checkpointer = await self._open()
        except BaseException:
            self._stack = None
            raise
        return checkpointer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.__aexit__(kind, error, trace)

    async def _open(self) -> tuple[AsyncExitStack, S3Checkpointer[StateT]]:
        async with AsyncExitStack() as stack:
            with collector_paused():
                store = self._options.get("store")
                if store is None:
                    settings = S3Settings.resolve(self._settings)
                    options = self._options
                    opening = open_store(
                        settings, options.get("client"), options.get("session"), on_request=options.get("on_request")
                    )
                    store = await stack.enter_async_context(opening)
                checkpointer = self._checkpointer(store)
            return stack.pop_all(), checkpointer

    def _checkpointer(self, store: ObjectStore) -> S3Checkpointer[StateT]:
        versions: dict[str, Any] = {
            name: self._options[name] for name in ("schema_version", "migrations") if name in self._options
        }
        settings = self._settings
        if settings is None:
            return S3Checkpointer(self._state_type, store, **versions)
        return S3Checkpointer(
            self._state_type,
            store,
            prefix=settings.prefix,
            compression=settings.compression,
            max_state_bytes=settings.max_state_bytes,
            conditional_writes=settings.conditional_writes,
            inline_tasks=settings.inline_tasks,
            bodies_encrypted=settings.kms_key_id is not None,
            snapshot_objects=settings.snapshot_objects,
            **versions,
        )

    if not TYPE_CHECKING:  # a type checker says of these that they are not there

        def __getattr__(self, name: str) -> NoReturn:
            if not hasattr(S3Checkpointer, name):
                raise AttributeError(name)
            raise LifecycleError("not open yet; write `async with connect(...) as checkpointer:` and use that")

        def __enter__(self) -> NoReturn:
            raise LifecycleError("it is opened by `async with`; where there is no event loop, use SyncS3Checkpointer")

        def __exit__(self, *_: object) -> None: ...


@overload
def connect(
    state_type: type[StateT], settings: S3Settings | str | None = None, **options: Unpack[ConnectOptions]
) -> Connection[StateT]: ...
@overload
def connect(
    state_type: Any, settings: S3Settings | str | None = None, **options: Unpack[ConnectOptions]
) -> Connection[Any]: ...
def connect(
    state_type: Any, settings: S3Settings | str | None = None, **options: Unpack[ConnectOptions]
) -> Connection[Any]:
    """A checkpointer for states of `state_type`, to be opened with `async with`.

    Requests:
        None, now or on opening.

    Args:
        state_type: Anything pydantic validates: a `BaseModel`, dataclass, `TypedDict`, `dict[str, JsonValue]`.
        settings: `S3Settings`, a bucket's name, or `s3://bucket[/prefix]`. Default: from the environment
            (`S3_CHECKPOINT_BUCKET`, …).
        options: Those of `ConnectOptions`.

    Returns:
        A connection: `async with` makes the open checkpointer of it.

    Raises:
        ConfigurationError: Settings are out of bounds, or no bucket is named; on opening, no client can be made (no
            such profile, a session of another kind, a missing extra).
        InvalidArgumentError: Options that exclude each other, or something else in the place of `settings`; on opening,
            a schema version, migrations or a state type that cannot be.
    """
    check_options("connect", options, ConnectOptions.__optional_keys__)
    return Connection(state_type, settings_of(settings, options), options)


def check_options(call: str, options: Mapping[str, object], known: frozenset[str]) -> None:
    """Raises `TypeError` for an option that is not `known`, as any call with an unknown keyword does."""
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            if name in S3Settings.model_fields:
                hint = f"; it is a setting: S3Settings(..., {name}=...)"
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{hint}")


def settings_of(settings: S3Settings | str | None, options: CheckpointerOptions) -> S3Settings | None:
    """The settings to follow; None where a store is given and nothing else. Raises as `connect` does."""
    if options.get("session") is not None and options.get("client") is not None:
        raise InvalidArgumentError(
            "session", "given", "does not go with `client`: it is for a client that is made here"
        )
    if options.get("store") is None:
        return S3Settings.resolve(settings)
    check_store(options["store"])
    for name in ("client", "session", "on_request"):
        if options.get(name) is not None:
            raise InvalidArgumentError(name, "given", "does not go with a store: it is for the requests to a bucket")
    return None if settings is None else S3Settings.resolve(settings)
