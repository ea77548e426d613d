"""An item of long-term memory as it is stored: one JSON object that says what it is. Pure.

    {"format": 1, "namespace": ["users", "7"], "key": "prefs", "created_at": "…", "updated_at": "…",
     "ttl_minutes": 60, "expires_at": "…", "write_id": "5f…", "value": {"theme": "dark"}}

`ttl_minutes` and `expires_at` are null for an item that does not expire. The write id makes the ETag of each write one
of its own, so that `If-Match` tells any two writes apart, those of equal values too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import JsonValue, TypeAdapter

from s3_checkpoint._format.compression import compress
from s3_checkpoint._format.json_codec import Body, JsonCodec, compact_digest
from s3_checkpoint._format.metadata import ObjectMetadata
from s3_checkpoint.errors import StateDecodingError, StateEncodingError
from s3_checkpoint.object_store import ObjectAttributes, StoredObject

FORMAT = 1
REFRESH_SHARE = 20
"""A read renews an item's time to live once a twentieth of it is over: one that is read all the time is not written
each time."""


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """An item; times are in UTC."""

    namespace: tuple[str, ...]
    key: str
    value: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    write_id: str
    ttl_minutes: float | None = None
    expires_at: datetime | None = None

    def is_expired(self, at: datetime) -> bool:
        """Whether it must not be returned any more."""
        return self.expires_at is not None and self.expires_at <= at

    def renewed(self, at: datetime, write_id: str) -> ItemRecord | None:
        """It, expiring a whole time to live after `at`; None if it does not expire, or was renewed a moment ago."""
        if self.ttl_minutes is None or self.expires_at is None:
            return None
        ttl = timedelta(minutes=self.ttl_minutes)
        if at + ttl - self.expires_at < ttl / REFRESH_SHARE:
            return None
        return replace(self, expires_at=at + ttl, write_id=write_id)


class ItemCodec:
    """Items ↔ stored objects, nothing lost and nothing guessed."""

    def __init__(self, *, compression: str | None, max_bytes: int) -> None:
        self._compression = compression
        self._max_bytes = max_bytes
        adapter = TypeAdapter(dict[str, JsonValue])
        self._json: JsonCodec[dict[str, JsonValue]] = JsonCodec(
            lambda: adapter, root="$", compression=None, max_bytes=max_bytes, plain=True
        )
        compress(b"", compression)  # an unknown name or missing package is found now
        self.max_stored_bytes: int = self._json.max_stored_bytes

    def encode_value(self, value: Mapping[str, Any]) -> bytes:
        """The JSON of a value; `StateEncodingError`, with the path, for one that does not round-trip."""
        return self._json.encode(dict(value)).data

    def encode(self, record: ItemRecord, value: bytes) -> tuple[bytes, ObjectAttributes]:
        """The object of an item whose value's JSON is `value`. `StateEncodingError` if it is too large."""
        described = {
            "format": FORMAT,
            "namespace": record.namespace,
            "key": record.key,
            "created_at": record.created_at.isoformat(),
            "updated_at": record.updated_at.isoformat(),
            "ttl_minutes": record.ttl_minutes,
            "expires_at": record.expires_at.isoformat() if record.expires_at else None,
            "write_id": record.write_id,
        }
        head = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
        data = b"".join((head[:-1], b',"value":', value, b"}"))
        if len(data) > self._max_bytes:
            raise StateEncodingError("$", f"the item is {len(data)} bytes, more than max_state_bytes allows")
        body = Body(compress(data, self._compression), compact_digest(data), self._compression)
        expires_at = record.expires_at.isoformat() if record.expires_at else ""
        metadata = ObjectMetadata(write_id=record.write_id, digest=body.digest, expires_at=expires_at)
        return body.data, body.attributes(metadata)

    def decode(self, bucket: str, key: str, stored: StoredObject) -> ItemRecord:
        """The item in `stored`; `StateDecodingError`, saying why, if it holds anything else."""
        fields = self._json.decode(bucket, key, stored)
        if fields.get("format") != FORMAT:
            raise StateDecodingError(bucket, key, f"it is an item of format {ascii(fields.get('format'))[:20]}, not 1")
        try:
            return _record(fields)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it is no item of this library ({type(error).__name__})"
            raise StateDecodingError(bucket, key, reason) from None


def parse_time(text: object) -> datetime:
    """A time that was stored; `ValueError` if it is none with a time zone."""
    found = datetime.fromisoformat(text) if isinstance(text, str) else None
    if found is None or found.tzinfo is None:
        raise ValueError("it is no time with a time zone")
    return found.astimezone(UTC)


def _record(fields: Mapping[str, Any]) -> ItemRecord:
    namespace, key, value, write_id = (fields[name] for name in ("namespace", "key", "value", "write_id"))
    ttl, expires_at = fields["ttl_minutes"], fields["expires_at"]
    texts = isinstance(namespace, list) and all(isinstance(text, str) for text in (*namespace, key, write_id))
    whole = ttl is None or (isinstance(ttl, int | float) and not isinstance(ttl, bool) and ttl > 0)
    if not (texts and isinstance(value, dict) and whole and (ttl is None) == (expires_at is None)):
        raise ValueError("a field is not what it must be")
    return ItemRecord(
        tuple(namespace),
        key,
        value,
        parse_time(fields["created_at"]),
        parse_time(fields["updated_at"]),
        write_id,
        ttl,
        None if expires_at is None else parse_time(expires_at),
    )
