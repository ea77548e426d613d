"""Settings in, an open checkpointer out: one `async with`, one client."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, overload

from s3_checkpoint._concurrency.offload import collector_paused
from s3_checkpoint._format.codec import Migration
from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.errors import LifecycleError
from s3_checkpoint.models import StateT
from s3_checkpoint.request_events import OnRequest
from s3_checkpoint.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client


class Connection(Generic[StateT]):
    """What `connect` gives: enter it with `async with` to get the checkpointer. Once left, it can be entered again."""

    def __init__(
        self,
        state_type: Any,
        settings: S3Settings,
        client: S3Client | None,
        schema_version: int,
        migrations: Mapping[int, Migration] | None,
        on_request: OnRequest | None = None,
    ) -> None:
        self._state_type = state_type
        self._settings = settings
        self._client = client
        self._schema_version = schema_version
        self._migrations = migrations
        self._on_request = on_request
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> S3Checkpointer[StateT]:
        if self._stack is not None:
            raise LifecycleError("this connection is open already; call connect(...) again for another one")
        self._stack = AsyncExitStack()  # taken at once: opening may wait, and others may come meanwhile
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
        settings = self._settings
        async with AsyncExitStack() as stack:
            with collector_paused():
                # The SDK takes a quarter of a second to import; whoever only constructs does not wait for it.
                from s3_checkpoint._s3.client import client_for
                from s3_checkpoint._s3.store import S3ObjectStore

                client = self._client
                if client is None:
                    client = await stack.enter_async_context(client_for(settings))
                store = S3ObjectStore(client, settings, self._on_request)
                stack.callback(store.close)
                checkpointer: S3Checkpointer[StateT] = S3Checkpointer(
                    self._state_type,
                    store,
                    prefix=settings.prefix,
                    schema_version=self._schema_version,
                    migrations=self._migrations,
                    compression=settings.compression,
                    max_state_bytes=settings.max_state_bytes,
                    conditional_writes=settings.conditional_writes,
                    inline_tasks=settings.inline_tasks,
                    bodies_encrypted=settings.kms_key_id is not None,
                    snapshot_objects=settings.snapshot_objects,
                )
            return stack.pop_all(), checkpointer

    def __getattr__(self, name: str) -> NoReturn:
        if not hasattr(S3Checkpointer, name):
            raise AttributeError(name)
        raise LifecycleError("not open yet; write `async with connect(...) as checkpointer:` and use that")


@overload
def connect(
    state_type: type[StateT],
    settings: S3Settings | None = None,
    *,
    client: S3Client | None = None,
    schema_version: int = 1,
    migrations: Mapping[int, Migration] | None = None,
    on_request: OnRequest | None = None,
) -> Connection[StateT]: ...
@overload
def connect(
    state_type: Any,
    settings: S3Settings | None = None,
    *,
    client: S3Client | None = None,
    schema_version: int = 1,
    migrations: Mapping[int, Migration] | None = None,
    on_request: OnRequest | None = None,
) -> Connection[Any]: ...
def connect(
    state_type: Any,
    settings: S3Settings | None = None,
    *,
    client: S3Client | None = None,
    schema_version: int = 1,
    migrations: Mapping[int, Migration] | None = None,
    on_request: OnRequest | None = None,
) -> Connection[Any]:
    """A checkpointer for states of `state_type`, to be opened with `async with`. No request is made, now or on opening.

    `state_type` is anything pydantic validates: a `BaseModel`, dataclass, `TypedDict`, `dict[str, JsonValue]`.
    `settings` left out come from the environment (`S3_CHECKPOINT_BUCKET`, …). `client` is an open aioboto3 or
    aiobotocore S3 client to use instead of making one; it is not closed. `schema_version` (1 or more) is written with
    every state; `migrations` lead from each older version to the next: `{1: f, 2: g}`, each a function from the older
    JSON value to the newer. `on_request` is called after each request, in the task that made it, with a `RequestEvent`:
    operation, key, bytes, duration, attempts, outcome. What it raises is logged and goes no further.

    Opening makes the client: once per process, not per call. Closing it ends every checkpointer made from it.

    Raises `pydantic.ValidationError` for settings out of bounds; on opening, `ConfigurationError` (no such profile, a
    missing extra) and `InvalidArgumentError` (schema version, migrations, a state type that is read lazily).
    """
    return Connection(state_type, settings or S3Settings(), client, schema_version, migrations, on_request)  # type: ignore[call-arg]
