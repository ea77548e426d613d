"""Values of one type ↔ the bodies of stored objects: JSON, its digest, compression.

The body is the JSON itself. What describes it is in the object's metadata (`metadata`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from pydantic import JsonValue, TypeAdapter, ValidationError
from pydantic_core import from_json

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
from s3_checkpoint._format.metadata import LAYOUT_FORMAT, ObjectMetadata
from s3_checkpoint._format.one_shot import first_one_shot
from s3_checkpoint._format.round_trip import Difference, first_difference, same_value
from s3_checkpoint._format.size_estimate import CHUNK_BYTES, estimated_bytes
from s3_checkpoint.errors import CheckpointError, StateDecodingError, StateEncodingError
from s3_checkpoint.models import StateT
from s3_checkpoint.object_store import ObjectAttributes, StoredObject

if TYPE_CHECKING:
    from s3_checkpoint._format.chunked_json import ChunkedType


T = TypeVar("T")


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


class Body(NamedTuple):
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
        self,
        new_adapter: Callable[[], TypeAdapter[StateT]],
        *,
        root: str,
        compression: str | None,
        max_bytes: int,
        plain: bool = False,
    ) -> None:
        """`root` begins the paths of errors; `plain`: the type says that values are JSON and nothing more."""
        self._new_adapter = new_adapter
        self._plain = plain
        self._root = root
        self._compression = compression
        self._max_bytes = max_bytes
        if compression is not None:
            compress(b"", compression)  # an unknown name or missing package is found now, not after a superstep's work

    @cached_property
    def adapter(self) -> TypeAdapter[StateT]:
        """Reads and writes the type; made when it is first asked for."""
        return self._new_adapter()

    @property
    def max_stored_bytes(self) -> int:
        """The most bytes a stored body can honestly have: incompressible data grows a little when compressed."""
        return self._max_bytes + self._max_bytes // 256 + 1024

    @cached_property
    def _chunked(self) -> ChunkedType | None:
        """Looked for when a value is large; a cold start with small ones does not pay for it."""
        from s3_checkpoint._format.chunked_json import ChunkedType

        return ChunkedType.of(self.adapter)

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
        if (one_shot := self._one_shot(value)) is not None:
            raise StateEncodingError(*one_shot)
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

    def _one_shot(self, value: StateT) -> Difference | None:
        try:
            return first_one_shot(value, self._root)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - an application's containers may fail; writing the value tells how
            return None

    def _written_whole(self, value: StateT) -> bytes:
        """The JSON of `value`, read back and compared."""
        data = self._told(
            lambda: self._dump(value),
            lambda error: unwritable(value, self._root, error, self._dump),
            "it cannot be written",
        )
        if len(data) > self._max_bytes:
            raise self._too_large(len(data))
        back = self._told(
            lambda: self._validate_whole(data),
            lambda error: self._unfit(value, data, error),
            "reading it back fails",
        )
        if (difference := self._difference(value, back)) is not None:
            raise StateEncodingError(*difference)
        return data

    def decode(self, bucket: str, key: str, stored: StoredObject, *, digest: str | None = None) -> StateT:
        """The value in `stored`; `digest` is the one another object names for it, where one does."""
        return self.read(bucket, key, self.opened(bucket, key, stored, digest))

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

    def opened(self, bucket: str, key: str, stored: StoredObject, digest: str | None = None) -> bytes | bytearray:
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

    def _told(self, work: Callable[[], T], where: Callable[[Exception], Difference], what: str) -> T:
        """What `work()` returns; `StateEncodingError` if it fails, for the place that `where` finds."""
        failure: Exception
        try:
            return work()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - serializers and validators are the application's
            failure = error
        try:
            difference = where(failure)
        except Exception:  # noqa: BLE001 - then it is not known where; what fails, is
            difference = Difference(self._root, f"{what} ({raised(failure)})")
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
        return self.adapter.validate_json(data, by_alias=True, by_name=True)

    def _dump(self, value: StateT, include: Any = None) -> bytes:
        # By field name, without computed fields: the one form that every model reads back.
        return self.adapter.dump_json(value, include=include, by_alias=False, round_trip=True, warnings="none")

    def _is_same(self, before: object, after: object) -> bool:
        return first_difference(before, after, plain=self._plain) is None

    def _too_large(self, size: int) -> StateEncodingError:
        return StateEncodingError(
            self._root, f"as JSON it is {size} bytes, more than max_state_bytes ({self._max_bytes})"
        )


def _misfit(error: ValidationError, data: bytes | bytearray) -> tuple[list[int | str], str]:
    """The keys that lead to the first error in `data`, and what it is."""
    location, kind, message = first_misfit(error)
    return keys_of_misfit(location, data, missing=kind == "missing"), message
