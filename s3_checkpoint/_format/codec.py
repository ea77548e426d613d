"""States and active tasks ↔ body and metadata: JSON, digest, compression, schema versions.

The body is the JSON itself. What describes it is in the object's metadata (`metadata`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Generic, cast

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import from_json, to_json

from s3_checkpoint._format.compression import compress, decompress
from s3_checkpoint._format.encoding_faults import (
    failing_to_read,
    keys_of_misfit,
    lost_on_the_way,
    unreadable,
    unwritable,
)
from s3_checkpoint._format.foreign_errors import first_misfit, own_faults_told, raised, without_values
from s3_checkpoint._format.json_numbers import odd_number, path_of_non_finite
from s3_checkpoint._format.json_paths import json_path
from s3_checkpoint._format.lazy_types import first_lazy
from s3_checkpoint._format.metadata import LAYOUT_FORMAT, MAX_METADATA_BYTES, ObjectMetadata
from s3_checkpoint._format.round_trip import Difference, first_difference, same_value
from s3_checkpoint._format.size_estimate import CHUNK_BYTES, estimated_bytes
from s3_checkpoint.errors import CheckpointError, InvalidArgumentError, StateDecodingError, StateEncodingError
from s3_checkpoint.models import ActiveSnapshot, StateT
from s3_checkpoint.object_store import ObjectAttributes, StoredObject

if TYPE_CHECKING:
    from s3_checkpoint._format.chunked_json import ChunkedType

_PLAIN_JSON = (dict, dict[str, Any], dict[str, JsonValue], list, list[Any], list[JsonValue], Any, JsonValue)
Migration = Callable[[Any], JsonValue]
"""From the JSON value of one schema version to that of the next."""


def compact_digest(data: bytes | bytearray) -> str:
    """SHA-256 of `data` without its line breaks: of the compact JSON, however it is laid out on lines.

    JSON has no line breaks inside strings or numbers. So a body with more or other line breaks, which has the same
    digest, is the same value or no JSON at all.
    """
    if len(data) <= CHUNK_BYTES:
        return hashlib.sha256(data.replace(b"\n", b"")).hexdigest()
    digest = hashlib.sha256()
    for start in range(0, len(data), CHUNK_BYTES):  # a copy of the whole would hold the interpreter, and memory
        digest.update(data[start : start + CHUNK_BYTES].replace(b"\n", b""))
    return digest.hexdigest()


def _may_hold_non_finite(data: bytes) -> bool:
    """Whether `NaN` or `Infinity` is in `data`, in a string perhaps; searched by chunk, as a search keeps the GIL."""
    return any(
        data.find(word, start, start + CHUNK_BYTES + len(word)) >= 0
        for start in range(0, len(data), CHUNK_BYTES)
        for word in (b"NaN", b"Infinity")
    )


@dataclass(frozen=True, slots=True)
class Body:
    """JSON ready to be sent: compressed as asked, with the digest of what it was before."""

    data: bytes
    digest: str
    encoding: str | None

    def attributes(self, metadata: ObjectMetadata) -> ObjectAttributes:
        """The headers it goes with, and `metadata`."""
        return ObjectAttributes(content_encoding=self.encoding, metadata=metadata.build())


def _without_order(value: JsonValue) -> str:
    """A text that two JSON values have in common only if they differ in the order of their parts at most."""
    if isinstance(value, dict):
        return f"{{{','.join(sorted(f'{key!r}:{_without_order(part)}' for key, part in value.items()))}}}"
    if isinstance(value, list):
        return f"[{','.join(sorted(map(_without_order, value)))}]"
    return repr(value)


class JsonCodec(Generic[StateT]):
    """Values of one type ↔ JSON bodies, nothing lost and nothing guessed. Pure: makes no requests."""

    def __init__(
        self, new_adapter: Callable[[], TypeAdapter[StateT]], *, root: str, compression: str | None, max_bytes: int
    ) -> None:
        self._new_adapter = new_adapter
        self._root = root
        self._compression = compression
        self._max_bytes = max_bytes
        if compression is not None:
            compress(b"", compression)  # an unknown name or missing package is found now, not after a superstep's work

    _plain = False
    """Whether the type says that values are JSON and nothing more."""

    @cached_property
    def _adapter(self) -> TypeAdapter[StateT]:
        return self._new_adapter()

    @property
    def max_stored_bytes(self) -> int:
        """The most bytes a stored body can honestly have: incompressible data grows a little when compressed."""
        return self._max_bytes + self._max_bytes // 256 + 1024

    @cached_property
    def _chunked(self) -> ChunkedType | None:
        """Looked for when a value is large; a cold start with small ones does not pay for it."""
        from s3_checkpoint._format.chunked_json import ChunkedType

        return ChunkedType.of(self._adapter)

    def encode(self, value: StateT, size: int | None = None) -> Body:
        """`value` as a body that reads back as the same value.

        Args:
            value: What is to be written.
            size: Its `estimated_bytes`, where that is known.

        Raises:
            StateEncodingError: It would not read back as the same; nothing was written. So says whatever an
                application's serializers, validators and comparisons raise.
            StoreError: A fault of this library ("internal"); nothing was written.
        """
        large = (estimated_bytes(value) if size is None else size) >= CHUNK_BYTES
        data = self._chunked.dump(value, self._is_same) if large and self._chunked else None
        if data is None:
            data = self._written_whole(value)
        elif len(data) > self._max_bytes:
            raise self._too_large(len(data))
        # Of what is no number in JSON, only these two are ever written; looking for the others takes longer.
        if _may_hold_non_finite(data) and (odd := odd_number(data)) and not odd.is_integer:
            at = self._path(path_of_non_finite(data))
            remedy = 'store None, or set ser_json_inf_nan="strings" in the configuration of its model'
            raise StateEncodingError(at, f"{odd.text} is not a JSON number; {remedy}")
        return Body(compress(data, self._compression), compact_digest(data), self._compression)

    def _written_whole(self, value: StateT) -> bytes:
        """The JSON of `value`, read back and compared."""
        data = self._written(value)
        if len(data) > self._max_bytes:
            raise self._too_large(len(data))
        back = self._read_back(value, data)
        if (difference := self._difference(value, back)) is not None:
            raise StateEncodingError(*difference)
        return data

    def decode(self, bucket: str, key: str, stored: StoredObject, *, digest: str | None = None) -> StateT:
        """The value in `stored`; `digest` is the one another object names for it, where one does."""
        return self.read(bucket, key, self._open(bucket, key, stored, digest))

    def round_trip(self, body: Body) -> StateT:
        """The value that `encode` gave as `body`, as it is read back by its type; to compare with another read back."""
        return self._validate(decompress(body.data, body.encoding, self._max_bytes))

    def same(self, ours: StateT, theirs: StateT) -> bool:
        """Whether two values, both as read back by their type, are the same: what the type calls equal, nothing less.

        The same type and value at every node, whether or not `==` looks there; the order of keys and of sets aside. So
        `1` and `1.0` are one where the type says `float` (both are read as `1.0`), and two where it says `Any`.
        Give what `round_trip` and `decode` return. A value of another schema version is another value: ask that first.

        Their JSON must agree as well, but for the order of its parts: what the comparison of types cannot see of a
        value that an application's class holds, is still in its JSON.
        """
        return same_value(ours, theirs) and _without_order(from_json(self._dump(ours))) == _without_order(
            from_json(self._dump(theirs))
        )

    def _open(self, bucket: str, key: str, stored: StoredObject, digest: str | None) -> bytes | bytearray:
        """The JSON bytes, once everything that metadata says of them has proved true."""
        attributes = stored.head.attributes
        layout = attributes.metadata.get("format", "")
        if layout != LAYOUT_FORMAT:
            found = f"has the layout format {ascii(layout)[:40]}" if layout else "carries no metadata of this library"
            raise StateDecodingError(bucket, key, f"it {found}; this version reads format {LAYOUT_FORMAT}")
        try:
            data = decompress(stored.body, attributes.content_encoding, self._max_bytes)
        except ValueError as error:
            raise StateDecodingError(bucket, key, str(error)) from error
        if len(data) > self._max_bytes:
            raise StateDecodingError(bucket, key, f"it is {len(data)} bytes, more than {self._max_bytes} allowed")
        actual = compact_digest(data)
        if actual != attributes.metadata.get("digest"):
            raise StateDecodingError(bucket, key, "its body does not match its digest")
        if digest is not None and actual != digest:
            raise StateDecodingError(bucket, key, "it is not the snapshot that its step was committed with")
        return data

    # Below, errors of foreign code are raised again outside of their `except` block: `__context__` would show them.

    def read(self, bucket: str, key: str, data: bytes | bytearray) -> StateT:
        """The value that `data`, found at `key`, is the JSON of; `StateDecodingError` if it does not fit the type."""
        odd = odd_number(data)
        if odd and not odd.is_integer:
            raise StateDecodingError(bucket, key, f"its body is not JSON: {odd.text} is no number")
        value = self._fitted(bucket, key, data)
        if odd:  # a long integer: an `int` holds it, and a `float` has made infinity of it
            try:
                self._written_whole(value)
            except StateEncodingError as error:
                raise StateDecodingError(
                    bucket, key, f"{odd.text} does not fit the type at {error.path}: it is too large"
                ) from None
        return value

    def _fitted(self, bucket: str, key: str, data: bytes | bytearray) -> StateT:
        failure: Exception
        try:
            return self._validate(data)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - validators are the application's; whatever they raise ends here
            failure = error
        if isinstance(failure, ValidationError):
            keys, message = _misfit(failure, data)
            reason = f"it does not fit the type at {self._path(keys)} ({message})"
        else:
            reason = f"reading it fails with {raised(failure)}"
        raise StateDecodingError(bucket, key, reason) from without_values(failure)

    def _written(self, value: StateT) -> bytes:
        failure: Exception
        try:
            return self._dump(value)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - serializers are the application's
            failure = error
        try:
            difference = unwritable(value, self._root, failure, self._dump)
        except Exception:  # noqa: BLE001 - then it is not known where; that it cannot be written, is
            difference = Difference(self._root, f"it cannot be written ({raised(failure)})")
        raise StateEncodingError(*difference) from without_values(failure)

    def _read_back(self, value: StateT, data: bytes) -> StateT:
        failure: Exception
        try:
            return self._validate_whole(data)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - validators are the application's, too
            failure = error
        try:
            difference = self._unfit(value, data, failure)
        except Exception:  # noqa: BLE001 - as above
            difference = Difference(self._root, f"reading it back fails ({raised(failure)})")
        raise StateEncodingError(*difference) from without_values(failure)

    def _difference(self, value: StateT, back: StateT) -> Difference | None:
        failure: Exception
        try:
            return own_faults_told("encode", first_difference, value, back, self._root, plain=self._plain)
        except (CheckpointError, MemoryError):
            raise
        except RecursionError:
            return Difference(self._root, "it is nested too deeply to be compared")
        except Exception as error:  # noqa: BLE001 - what compares may be the application's
            failure = error
        raise StateEncodingError(
            self._root, f"comparing it with what is read back fails ({raised(failure)})"
        ) from without_values(failure)

    def _unfit(self, value: StateT, data: bytes, failure: Exception) -> Difference:
        """Where and why `data` does not read back as `value`: the type's own word, or what JSON made of it there."""
        if not isinstance(failure, ValidationError):
            path = failing_to_read(data, self._root, failure, self._validate_whole)
            return Difference(path, f"reading it back fails ({raised(failure)})")
        keys, message = _misfit(failure, data)
        path = self._path(keys)
        try:
            lost = lost_on_the_way(value, keys, data, path)
        except ValueError:
            return unreadable(value, self._root)
        return lost or Difference(path, f"it does not fit its own type when read back ({message})")

    def _path(self, keys: Iterable[int | str]) -> str:
        return self._root + json_path(keys)[1:]

    def _validate(self, data: bytes | bytearray) -> StateT:
        found = self._chunked.validate(data) if len(data) >= CHUNK_BYTES and self._chunked else None
        return self._validate_whole(data) if found is None else cast("StateT", found)

    def _validate_whole(self, data: bytes | bytearray) -> StateT:
        return self._adapter.validate_json(data, by_alias=True, by_name=True)

    def _dump(self, value: StateT, include: Any = None) -> bytes:
        # By field name, without computed fields: the one form that every model reads back.
        return self._adapter.dump_json(value, include=include, by_alias=False, round_trip=True, warnings="none")

    def _is_same(self, before: object, after: object) -> bool:
        return first_difference(before, after, plain=self._plain) is None

    def _too_large(self, size: int) -> StateEncodingError:
        return StateEncodingError(
            self._root, f"as JSON it is {size} bytes, more than max_state_bytes ({self._max_bytes})"
        )


class StateCodec(JsonCodec[StateT]):
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
        super().__init__(
            lambda: state_type if given else TypeAdapter(state_type),
            root="$",
            compression=compression,
            max_bytes=max_bytes,
        )
        self._state_type = state_type
        self._plain = any(state_type == plain for plain in _PLAIN_JSON)
        self._check_type()  # what cannot be handled is found now; only the snapshots' own adapter can wait for use
        if type(schema_version) is not int or schema_version < 1:
            raise InvalidArgumentError("schema_version", repr(schema_version)[:80], "must be an int of 1 or more")
        for version in migrations:
            if type(version) is not int or not 1 <= version < schema_version:
                raise InvalidArgumentError(
                    "migrations", repr(version)[:80], f"lead from versions 1 … {schema_version - 1} to the next"
                )
        self.schema_version = schema_version
        self._migrations = dict(migrations)

    def _check_type(self) -> None:
        name = getattr(self._state_type, "__qualname__", None) or repr(self._state_type)
        try:
            lazy = first_lazy(self._adapter.core_schema)
        except (PydanticUserError, PydanticUndefinedAnnotation) as error:
            problem = str(error.message).partition("\n")[0]
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
        body = super().encode(value, size)
        if value is None:
            raise StateEncodingError("$", "null cannot be told from a step that is not there")
        return body

    def decode(self, bucket: str, key: str, stored: StoredObject, *, digest: str | None = None) -> StateT:
        """See `JsonCodec.decode`; a body of an older schema version goes through the migrations, in order."""
        data = self._open(bucket, key, stored, digest)
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
        return self.read(bucket, key, data)

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


def _misfit(error: ValidationError, data: bytes | bytearray) -> tuple[list[int | str], str]:
    """The keys that lead to the first error in `data`, and what it is."""
    location, kind, message = first_misfit(error)
    return keys_of_misfit(location, data, missing=kind == "missing"), message


@cache
def _active_adapter() -> TypeAdapter[list[ActiveSnapshot]]:
    """One for all checkpointers of the process: building it costs more than using it."""
    return TypeAdapter(list[ActiveSnapshot])


class ActiveCodec:
    """Active snapshots: a JSON array of `ActiveSnapshot`. Those small enough to go inline are never compressed."""

    def __init__(self, *, compression: str | None, max_bytes: int) -> None:
        self._plain: JsonCodec[list[ActiveSnapshot]] = JsonCodec(
            _active_adapter, root="$active", compression=None, max_bytes=max_bytes
        )
        self._compression = compression
        self.max_stored_bytes = self._plain.max_stored_bytes

    def encode(self, active: Sequence[ActiveSnapshot], size: int | None = None) -> Body:
        """The tasks as a body, in order; `StateEncodingError` with a path that begins with `$active`."""
        if not isinstance(active, list | tuple):
            raise InvalidArgumentError("active", type(active).__name__, "must be a list or tuple of ActiveSnapshot")
        body = self._plain.encode(list(active), size)
        if self._compression is None or len(body.data) <= MAX_METADATA_BYTES:
            return body
        return Body(compress(body.data, self._compression), body.digest, self._compression)

    def decode(self, bucket: str, key: str, stored: StoredObject, *, digest: str | None = None) -> list[ActiveSnapshot]:
        """The tasks in `stored`, in order."""
        return self._plain.decode(bucket, key, stored, digest=digest)

    def same(self, ours: Sequence[ActiveSnapshot], theirs: Sequence[ActiveSnapshot]) -> bool:
        """Whether both are the same tasks in the same order; see `JsonCodec.same`."""
        return self._plain.same(list(ours), list(theirs))

    def decode_inline(self, bucket: str, key: str, metadata: ObjectMetadata) -> list[ActiveSnapshot]:
        """The tasks that the metadata of the state at `key` carry, in order."""
        try:
            data = metadata.inline_tasks()
        except ValueError as error:
            raise StateDecodingError(bucket, key, str(error)) from error
        if compact_digest(data) != metadata.active_digest:
            raise StateDecodingError(bucket, key, "its active-inline does not match its active-digest")
        return self._plain.read(bucket, key, data)
