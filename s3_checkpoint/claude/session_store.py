"""`S3SessionStore`: the Claude Agent SDK's session store in a bucket; `SyncS3SessionStore`: the same, blocking.

from claude_agent_sdk import ClaudeAgentOptions, query
from s3_checkpoint.claude import S3SessionStore

store = S3SessionStore("s3://my-bucket/agents")
async for message in query(prompt="…", options=ClaudeAgentOptions(session_store=store, resume=session_id)):
    ...
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypedDict, Unpack

from s3_checkpoint._concurrency.open_once import AsyncOpened, SyncOpened
from s3_checkpoint._format.keys import new_write_id
from s3_checkpoint._format.session_keys import Transcript
from s3_checkpoint._transports import opening_of, source_of
from s3_checkpoint.claude import session_calls as calls
from s3_checkpoint.claude.session_calls import PrunedSessions, SessionInfo
from s3_checkpoint.claude.session_log import Fold, SessionLog
from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.request_events import OnRequest
from s3_checkpoint.settings import OF_A_STORE, Compression, S3Settings

if TYPE_CHECKING:
    from claude_agent_sdk import SessionStoreEntry
    from claude_agent_sdk.types import SessionStoreListEntry, SessionSummaryEntry

GRACE = timedelta(hours=1)
"""How long a process may count on what it has seen of a transcript, twice over; one value for all of a bucket."""
MAX_SESSION_BYTES = 512 * 1024**2


class SessionOptions(TypedDict, total=False):
    """The options of both session stores. For a store, the first four; settings bring their own."""

    prefix: str
    """All keys begin with this."""
    compression: Compression | None
    max_state_bytes: int
    """JSON of one append, and of one object that is read; default 64 MiB."""
    conditional_writes: bool
    max_session_bytes: int
    """JSON of a transcript that is loaded, and bytes of its objects; default 512 MiB."""
    merge_parts: int
    """Single parts from which on `append` stores them again in one object, so that `load` reads fewer; default 64, and
    0 for never."""
    grace: timedelta
    """More than zero; default one hour. The same for all processes that use the bucket."""
    on_request: OnRequest | None
    """As in `connect`; only with settings."""
    fold: Fold
    """Makes the SDK's summaries; default: `claude_agent_sdk.fold_session_summary`."""
    new_id: Callable[[], str]
    sleep: Callable[[float], Awaitable[None]]
    jitter: Callable[[], float]
    monotonic: Callable[[], float]


class _Sessions:
    """What both stores have: where the sessions are, opened by the first call in one event loop."""

    def __init__(self, source: S3Settings | str | ObjectStore | None = None, **options: Unpack[SessionOptions]) -> None:
        source = source_of(source)
        settings = source if isinstance(source, S3Settings) else OF_A_STORE
        for name in ("max_state_bytes", "max_session_bytes", "merge_parts"):
            if (value := options.get(name, 1)) is None or type(value) is not int or value < 0:
                raise InvalidArgumentError(name, repr(value)[:80], "must be an int of 0 or more")
        grace = options.get("grace", GRACE)
        if not isinstance(grace, timedelta) or grace <= timedelta(0):
            raise InvalidArgumentError("grace", repr(grace)[:80], "must be a timedelta of more than zero")
        self._merge_parts = options.get("merge_parts", calls.MERGE_PARTS)
        self._prefix = options.get("prefix", settings.prefix).strip("/")
        make = partial(
            SessionLog,
            prefix=self._prefix,
            compression=options.get("compression", settings.compression),
            max_part_bytes=options.get("max_state_bytes", settings.max_state_bytes),
            max_session_bytes=options.get("max_session_bytes", MAX_SESSION_BYTES),
            conditional_writes=options.get("conditional_writes", settings.conditional_writes),
            grace=grace,
            fold=options.get("fold", calls.fold_with_sdk),
            new_id=options.get("new_id", new_write_id),
            sleep=options.get("sleep", asyncio.sleep),
            jitter=options.get("jitter", random.random),
            monotonic=options.get("monotonic", time.monotonic),
        )
        on_request = options.get("on_request")
        self._opening = opening_of(source, make, on_request=on_request, thread="s3-checkpoint-claude")

    def _transcript(self, key: Mapping[str, object]) -> Transcript:
        """The transcript that the SDK's key names; `InvalidArgumentError` for one that cannot be."""
        if not isinstance(key, Mapping):
            raise InvalidArgumentError("key", type(key).__name__, "must be a SessionKey")
        return Transcript.checked(self._prefix, key.get("project_key"), key.get("session_id"), key.get("subpath"))

    def _project(self, project_key: str) -> str:
        return Transcript.checked(self._prefix, project_key, "-").project_key


class S3SessionStore(_Sessions, AsyncOpened[SessionLog]):
    """Keeps the transcripts of Claude Agent SDK sessions in a bucket: `ClaudeAgentOptions(session_store=…)`.

    Each append is one object; its number is its place, whatever the clocks of the processes say. What was appended once
    is loaded once, even if its answer was lost and the SDK hands it in again. Methods can be called from any thread's
    event loop; nothing is opened before the first call. `aclose`, `async with`, or the end of the process closes it.

    All methods raise `AccessDeniedError`, `ConfigurationError`, `StoreUnavailableError` (every call can be repeated),
    `LifecycleError` (after `aclose`), `StoreError`, `InvalidArgumentError` (a key that cannot be; no request was made),
    and readers `StateDecodingError` (what is stored cannot be trusted).

    Args:
        source: Settings, a bucket's name or URL, or an open store, used in the loop it belongs to (`store.loop`) and
            closed by its owner. Default: from the environment (`S3_CHECKPOINT_BUCKET`, …).
        options: Those of `SessionOptions`.
    """

    async def append(self, key: Mapping[str, object], entries: Sequence[Mapping[str, object]]) -> None:
        """The entries are stored behind all that were appended to the transcript before, by any process.

        Handed in again after an error, they are stored once. Entries that were appended before under the same `uuid` do
        not count again. Nothing is sent for no entries.

        Requests:
            1 PUT; before the first append of a process to a transcript, unless it was loaded, 1 LIST, and 1 GET if the
            transcript has entries; the same if the last one was half of `grace` ago. 1 GET and 1 PUT more for each
            other writer who was first. At every 64th part, 1 LIST, 1 GET for each object that is merged, and 1 PUT.

        Args:
            key: The SDK's `SessionKey`: `project_key`, `session_id` and, of a subagent, `subpath`.
            entries: JSON objects.

        Raises:
            StateEncodingError: An entry is no JSON object, does not round-trip, or all are too large. Nothing was
                written.
            InvalidArgumentError: The session was deleted while this process was appending to it. Nothing was written,
                so that no half of a session comes to be: begin a new session, or `load` it to begin it again.
        """
        transcript = self._transcript(key)
        await self._opening.acall(lambda log: calls.append(log, transcript, entries, self._merge_parts))

    async def load(self, key: Mapping[str, object]) -> list[SessionStoreEntry] | None:
        """All entries of the transcript.

        Requests:
            1 LIST per 1,000 objects, then 1 GET per object, 32 at a time: two round trips once its parts are merged.

        Args:
            key: As for `append`.

        Returns:
            In the order of their appends; None if there are none.

        Raises:
            StateDecodingError: An object was damaged or removed by other means, or the transcript is larger than
                `max_session_bytes`.
        """
        return await self._opening.acall(partial(SessionLog.load, transcript=self._transcript(key)))

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """The sessions of the project.

        Requests:
            1 LIST per 1,000 objects of the project's sessions, those of subagents not counted.

        Args:
            project_key: The project.

        Returns:
            `session_id` of each, and `mtime`: its last append by the store's clock, in milliseconds since 1970.
        """
        return await self._opening.acall(partial(calls.list_sessions, project_key=self._project(project_key)))

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """The SDK's summaries of all sessions of the project, as of their last appends.

        Requests:
            Those of `list_sessions`, then 1 GET per session, 32 at a time.

        Args:
            project_key: The project.

        Returns:
            `session_id`, `mtime` (as in `list_sessions`) and `data`, the SDK's own, of each that has one.

        Raises:
            StateDecodingError: What is stored of a session cannot be trusted.
        """
        return await self._opening.acall(partial(calls.list_session_summaries, project_key=self._project(project_key)))

    async def delete(self, key: Mapping[str, object]) -> None:
        """Nothing of the transcript can be loaded any more; without `subpath`, nor of its subagents.

        A process that was appending to it is told so, and what it appends does not count. Empty objects stay for
        `grace`, so that no number is used twice, and go with a later `prune`.

        Requests:
            Per transcript 1 LIST per 1,000 objects, 1 PUT, 1 HEAD, 1 DELETE per 1,000 objects, and 1 PUT for each part
            younger than `grace`; for a session, 1 LIST of its subagents' objects.

        Args:
            key: As for `append`; one that is not stored is no error.
        """
        await self._opening.acall(partial(calls.delete, transcript=self._transcript(key)))

    async def list_subkeys(self, key: Mapping[str, object]) -> list[str]:
        """The subpaths of the session's subagents.

        Requests:
            1 LIST per 1,000 objects of its subagents.

        Args:
            key: The session's: `project_key` and `session_id`.

        Returns:
            Those that have entries; `[]` if there are none.
        """
        session = self._transcript({**key, "subpath": None})
        return await self._opening.acall(partial(calls.list_subkeys, session=session))

    async def sessions(self, project_key: str | None = None) -> AsyncIterator[SessionInfo]:
        """All sessions, of one project or of all, for an operator.

        Requests:
            1 LIST per 1,000 projects, and 1 LIST per 1,000 objects of each project; all before the first is given.

        Args:
            project_key: Default: all projects.

        Yields:
            The sessions, project by project.
        """
        project = None if project_key is None else self._project(project_key)
        for found in await self._opening.acall(lambda log: _all(calls.sessions(log, project))):
            yield found

    async def compact(self, key: Mapping[str, object]) -> int:
        """The transcript's parts are merged into objects of up to 8 MiB; without `subpath`, its subagents' too.

        Of the parts, those older than `grace` are removed. Safe while others append, load and compact.

        Requests:
            Per transcript 2 LISTs, 1 GET for each object that is merged, 1 PUT, 1 HEAD and 1 DELETE per 1,000 objects.

        Args:
            key: As for `append`.

        Returns:
            How many objects were removed.
        """
        return await self._opening.acall(partial(calls.compact_session, session=self._transcript(key)))

    async def prune(
        self, older_than: timedelta | None = None, project_key: str | None = None, *, dry_run: bool = False
    ) -> PrunedSessions:
        """Sessions that were last written `older_than` ago are gone, whole; of the others, what is superfluous.

        A session goes with its subagents or stays with all of them; one that is appended to at the same moment stays.
        Ages are the store's. Of what stays, transcripts of more than `merge_parts` parts are merged (`compact`).

        Requests:
            1 LIST per 1,000 objects; per project 1 HEAD; what `delete` takes for each session that goes, and `compact`
            for each transcript that is merged.

        Args:
            older_than: Zero or more. Default: no session goes.
            project_key: Default: all projects.
            dry_run: Count only; nothing is written, merged or removed.

        Returns:
            What was removed and merged; with `dry_run`, what would be removed.

        Raises:
            InvalidArgumentError: `older_than` is out of bounds; before any request.
            AccessDeniedError: And the other errors of the store: the first one ends it. What was removed stays removed,
                and calling again continues.
        """
        project = None if project_key is None else self._project(project_key)
        return await self._opening.acall(
            lambda log: calls.prune(log, older_than, project, dry_run=dry_run, merge_parts=self._merge_parts)
        )


class SyncS3SessionStore(_Sessions, SyncOpened[SessionLog]):
    """Every call of `S3SessionStore`, blocking, from any thread; for scripts and operators. The SDK takes the other."""

    def append(self, key: Mapping[str, object], entries: Sequence[Mapping[str, object]]) -> None:
        """See `S3SessionStore.append`."""
        transcript = self._transcript(key)
        self._opening.call(lambda log: calls.append(log, transcript, entries, self._merge_parts))

    def load(self, key: Mapping[str, object]) -> list[SessionStoreEntry] | None:
        """See `S3SessionStore.load`."""
        return self._opening.call(partial(SessionLog.load, transcript=self._transcript(key)))

    def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """See `S3SessionStore.list_sessions`."""
        return self._opening.call(partial(calls.list_sessions, project_key=self._project(project_key)))

    def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """See `S3SessionStore.list_session_summaries`."""
        return self._opening.call(partial(calls.list_session_summaries, project_key=self._project(project_key)))

    def delete(self, key: Mapping[str, object]) -> None:
        """See `S3SessionStore.delete`."""
        self._opening.call(partial(calls.delete, transcript=self._transcript(key)))

    def list_subkeys(self, key: Mapping[str, object]) -> list[str]:
        """See `S3SessionStore.list_subkeys`."""
        session = self._transcript({**key, "subpath": None})
        return self._opening.call(partial(calls.list_subkeys, session=session))

    def sessions(self, project_key: str | None = None) -> Iterator[SessionInfo]:
        """See `S3SessionStore.sessions`."""
        project = None if project_key is None else self._project(project_key)
        return self._opening.iterate(lambda log: calls.sessions(log, project))

    def compact(self, key: Mapping[str, object]) -> int:
        """See `S3SessionStore.compact`."""
        return self._opening.call(partial(calls.compact_session, session=self._transcript(key)))

    def prune(
        self, older_than: timedelta | None = None, project_key: str | None = None, *, dry_run: bool = False
    ) -> PrunedSessions:
        """See `S3SessionStore.prune`."""
        project = None if project_key is None else self._project(project_key)
        return self._opening.call(
            lambda log: calls.prune(log, older_than, project, dry_run=dry_run, merge_parts=self._merge_parts)
        )


async def _all(items: AsyncIterator[SessionInfo]) -> list[SessionInfo]:
    return [item async for item in items]
