"""States and active tasks ↔ bodies: what each adds to the JSON of its type.

A state has a schema version, and older ones are migrated when read. Active tasks go inline into the metadata of their
state, uncompressed, where they fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Generic, get_origin

from pydantic import JsonValue, TypeAdapter
from pydantic_core import from_json, to_json

from s3_checkpoint._format.compression import compress
from s3_checkpoint._format.foreign_errors import raised, without_values
from s3_checkpoint._format.json_codec import Body, JsonCodec, compact_digest
from s3_checkpoint._format.lazy_types import first_lazy
from s3_checkpoint._format.metadata import MAX_METADATA_BYTES, ObjectMetadata
from s3_checkpoint.errors import InvalidArgumentError, StateDecodingError, StateEncodingError
from s3_checkpoint.models import ActiveSnapshot, Migration, StateT
from s3_checkpoint.object_store import StoredObject

_PLAIN_JSON = (dict, dict[str, Any], dict[str, JsonValue], list, list[Any], list[JsonValue], Any, JsonValue)


class StateCodec(Generic[StateT]):
    """States of one type and schema version; older versions are migrated when read."""

    def __init__(
        self,
        state_type: Any,
        *,
        schema_version: int,
        migrations: Mapping[int, Migration],
        compression: str | None,
        max_bytes: int,
    ) -> None:
        # A caller who makes many checkpointers of one type can hand in the adapter, made once.
        given = isinstance(state_type, TypeAdapter)
        self._json: JsonCodec[StateT] = JsonCodec(
            lambda: state_type if given else TypeAdapter(state_type),
            root="$",
            compression=compression,
            max_bytes=max_bytes,
            plain=any(state_type == plain for plain in _PLAIN_JSON),
        )
        self._state_type = state_type
        self._check_type()  # what cannot be handled is found now; only the snapshots' own adapter can wait for use
        if type(schema_version) is not int or schema_version < 1:
            raise InvalidArgumentError("schema_version", repr(schema_version)[:80], "must be an int of 1 or more")
        for version in migrations:
            if type(version) is not int or not 1 <= version < schema_version:
                raise InvalidArgumentError(
                    "migrations", repr(version)[:80], f"lead from versions 1 … {schema_version - 1} to the next"
                )
        self.schema_version = schema_version
        self.max_stored_bytes = self._json.max_stored_bytes
        self._migrations = dict(migrations)

    def _check_type(self) -> None:
        name = getattr(self._state_type, "__qualname__", None) or repr(self._state_type)
        try:
            lazy = first_lazy(self._json.adapter.core_schema)
        except Exception as error:  # of an instance in the place of its type pydantic raises whatever it stumbles over
            if not _is_type(self._state_type):
                given = type(self._state_type).__name__  # and not its text, which may be a state's
                raise InvalidArgumentError("state_type", given, "must be a type, and this is an instance") from None
            told = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            problem = str(told).partition("\n")[0]
            hint = "; annotate list[…] instead" if "Iterator" in problem else ""
            reason = f"is no type that pydantic can read and write{hint} ({problem[:300]})"
            raise InvalidArgumentError("state_type", name[:80], reason) from error
        if lazy is not None:
            reason = (
                f"holds an iterator at {lazy}, which can be read only once, so that a save would use up the state; "
                "annotate list[…] instead of Iterable, Iterator or Generator"
            )
            raise InvalidArgumentError("state_type", name[:80], reason)

    def encode(self, value: StateT, size: int | None = None) -> Body:
        """See `JsonCodec.encode`. JSON `null` is refused: a `load` that gives None means that nothing is there."""
        body = self._json.encode(value, size)
        if value is None:
            raise StateEncodingError("$", "null cannot be told from a step that is not there")
        return body

    def round_trip(self, body: Body) -> StateT:
        """See `JsonCodec.round_trip`."""
        return self._json.round_trip(body)

    def same(self, ours: StateT, theirs: StateT) -> bool:
        """See `JsonCodec.same`."""
        return self._json.same(ours, theirs)

    def decode(self, bucket: str, key: str, stored: StoredObject) -> StateT:
        """See `JsonCodec.decode`; a body of an older schema version goes through the migrations, in order."""
        data = self._json.opened(bucket, key, stored)
        text = stored.head.attributes.metadata.get("schema-version", "")
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
            raise StateDecodingError(bucket, key, f"its schema-version {ascii(text)[:40]} is not a number of 1 or more")
        version = int(text)
        if version > self.schema_version:
            raise StateDecodingError(
                bucket,
                key,
                f"its schema version {version} is newer than ours ({self.schema_version}); deploy that first",
            )
        if version < self.schema_version:
            data = self._migrate(bucket, key, data, version)
        return self._json.read(bucket, key, data)

    def _migrate(self, bucket: str, key: str, data: bytes | bytearray, version: int) -> bytes:
        try:
            value = from_json(bytes(data), allow_inf_nan=False)
        except ValueError as error:  # says where, and shows nothing
            raise StateDecodingError(bucket, key, f"its body is not JSON: {error}") from error
        for older in range(version, self.schema_version):
            migration = self._migrations.get(older)
            if migration is None:
                raise StateDecodingError(
                    bucket, key, f"no migration is given from schema version {older} to {older + 1}"
                )
            value = self._migrated(bucket, key, migration, value, older)
        try:
            return to_json(value, inf_nan_mode="constants")
        except ValueError:
            problem = "a migration gave what is not JSON"
        raise StateDecodingError(bucket, key, problem)

    def _migrated(self, bucket: str, key: str, migration: Migration, value: Any, version: int) -> JsonValue:
        failure: Exception
        try:
            return migration(value)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - migrations are the application's
            failure = error
        reason = f"the migration from schema version {version} fails with {raised(failure)}"
        raise StateDecodingError(bucket, key, reason) from without_values(failure)


@cache
def _active_adapter() -> TypeAdapter[list[ActiveSnapshot]]:
    """One for all checkpointers of the process: building it costs more than using it."""
    return TypeAdapter(list[ActiveSnapshot])


class ActiveCodec:
    """Active snapshots: a JSON array of `ActiveSnapshot`. Those small enough to go inline are never compressed."""

    def __init__(self, *, compression: str | None, max_bytes: int) -> None:
        self._json: JsonCodec[list[ActiveSnapshot]] = JsonCodec(
            _active_adapter, root="$active", compression=None, max_bytes=max_bytes
        )
        self._compression = compression
        self.max_stored_bytes = self._json.max_stored_bytes

    def encode(self, active: Sequence[ActiveSnapshot], size: int | None = None) -> Body:
        """The tasks as a body, in order; `StateEncodingError` with a path that begins with `$active`."""
        if not isinstance(active, list | tuple):
            raise InvalidArgumentError("active", type(active).__name__, "must be a list or tuple of ActiveSnapshot")
        body = self._json.encode(list(active), size)
        if self._compression is None or len(body.data) <= MAX_METADATA_BYTES:
            return body
        return Body(compress(body.data, self._compression), body.digest, self._compression)

    def decode(self, bucket: str, key: str, stored: StoredObject, *, digest: str | None = None) -> list[ActiveSnapshot]:
        """The tasks in `stored`, in order."""
        return self._json.decode(bucket, key, stored, digest=digest)

    def same(self, ours: Sequence[ActiveSnapshot], theirs: Sequence[ActiveSnapshot]) -> bool:
        """Whether both are the same tasks in the same order; see `JsonCodec.same`."""
        return self._json.same(list(ours), list(theirs))

    def decode_inline(self, bucket: str, key: str, metadata: ObjectMetadata) -> list[ActiveSnapshot]:
        """The tasks that the metadata of the state at `key` carry, in order."""
        try:
            data = metadata.inline_tasks()
        except ValueError as error:
            raise StateDecodingError(bucket, key, str(error)) from error
        if compact_digest(data) != metadata.active_digest:
            raise StateDecodingError(bucket, key, "its active-inline does not match its active-digest")
        return self._json.read(bucket, key, data)


def _is_type(state_type: object) -> bool:
    """Whether it is a type, its name, an adapter of one, or an expression of `typing`."""
    if isinstance(state_type, type | str | TypeAdapter) or get_origin(state_type) is not None:
        return True
    return type(state_type).__module__ in ("typing", "typing_extensions")
