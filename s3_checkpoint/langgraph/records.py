"""What the saver's objects hold: msgpack maps around payloads that only the saver's serializer understands.

    checkpoint   {format, id, namespace, parent, saved_at_ns, checkpoint, metadata, inline: {channel: payload},
                  values: {channel: [name, tag, version, digest, origin]},
                  deltas: [depth, gzip of the msgpack array of copies]}
    copy         [id, parent, etag, [channel], {channel: value}, [channel], [[slot, task_id, rows]]]
    writes       {format, task_id, rows: [[index, channel, task_path, payload]]}

`deltas` is only there with delta channels: copies of what the nearest ancestors wrote to them (`AncestorCopy`).
A payload is `[tag, bytes]`, as the serializer gave them (for large lists and dicts see `chunked_payloads`). A large
value's object is the bytes alone. Decoding makes nothing but dicts, lists, text, numbers and bytes. The object's
metadata hold a `digest`, SHA-256 of the map's bytes;
that of a large value is in the checkpoints that refer to it. Without `digest` and `origin`, as they were first written,
a value's name is its digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import ormsgpack

from s3_checkpoint._format.compression import compress, decompress
from s3_checkpoint._format.thread_keys import value_name
from s3_checkpoint.errors import StateEncodingError

FORMAT = 1
_MAX_COPIES_BYTES = 16 * 1024**2
"""More than any checkpoint of this library holds, and little enough to decompress unseen."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Payload: TypeAlias = tuple[str, bytes]
"""Tag and bytes, opaque here."""
LIST_IN_CHUNKS, DICT_IN_CHUNKS = "msgpack-list", "msgpack-dict"
"""Tags that are no serializer's: `chunked_payloads`."""


class ValueRef(NamedTuple):
    """A large value stored as an object of its own."""

    name: str
    tag: str
    version: str | int | float
    """The channel's version when the value was stored."""
    digest: str
    """Its `value_name`."""
    origin: str | None
    """The checkpoint that stored it; others that refer to it descend from that one. None: not known."""

    @classmethod
    def decode(cls, fields: Sequence[Any]) -> ValueRef:
        """Of `[name, tag, version, digest, origin]`, of which older records lack the last two."""
        name, tag, version, *rest = fields
        digest, origin = rest or (name, None)
        return cls(_text(name), _text(tag), version, _text(digest), None if origin is None else _text(origin))

    def is_of(self, channel: str, body: bytes) -> bool:
        """Whether `body` is the content that was stored for the channel under this name."""
        return value_name(channel, self.version, self.tag, body) == self.digest


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """A checkpoint as stored; `checkpoint` holds all of it but the channel values."""

    id: str
    namespace: str
    parent: str | None
    saved_at_ns: int
    checkpoint: Payload
    metadata: Payload
    inline: dict[str, Payload] = field(default_factory=dict)
    values: dict[str, ValueRef] = field(default_factory=dict)
    depth: int = 0
    """How many checkpoints there are, at least, since the last one that needs no ancestors."""
    copies: tuple[AncestorCopy, ...] = ()
    """What its nearest ancestors wrote to delta channels, the parent first, each the parent of the one before."""

    @property
    def saved_at(self) -> datetime:
        """When it was put, by the clock of the process that put it, in UTC."""
        return _EPOCH + timedelta(microseconds=self.saved_at_ns // 1000)

    def encode(self) -> bytes:
        """The object's body."""
        deltas = {"deltas": (self.depth, _pack_copies(self.copies))} if self.depth else {}
        return _pack(
            {
                "format": FORMAT,
                "id": self.id,
                "namespace": self.namespace,
                "parent": self.parent,
                "saved_at_ns": self.saved_at_ns,
                "checkpoint": self.checkpoint,
                "metadata": self.metadata,
                "inline": self.inline,
                "values": {channel: tuple(value) for channel, value in self.values.items()},
                **deltas,
            }
        )

    @classmethod
    def decode(cls, body: bytes | bytearray) -> CheckpointRecord:
        """The record in `body`; `ValueError` saying what is wrong with it."""
        fields = _unpack(body)
        try:
            parent = fields["parent"]
            depth, copies = fields.get("deltas", (0, b""))
            return cls(
                id=_text(fields["id"]),
                namespace=_text(fields["namespace"]),
                parent=None if parent is None else _text(parent),
                saved_at_ns=int(fields["saved_at_ns"]),
                checkpoint=_payload(fields["checkpoint"]),
                metadata=_payload(fields["metadata"]),
                inline={_text(channel): _payload(payload) for channel, payload in fields["inline"].items()},
                values={_text(channel): ValueRef.decode(value) for channel, value in fields["values"].items()},
                depth=int(depth),
                copies=_unpack_copies(copies),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"it is no checkpoint of this library ({type(error).__name__}: {error})") from error


def nanoseconds(time: datetime) -> int:
    """A time as `saved_at_ns` tells it."""
    return (time - _EPOCH) // timedelta(microseconds=1) * 1000


class WriteRow(NamedTuple):
    """One pending write."""

    idx: int
    channel: str
    task_path: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class WritesRecord:
    """The pending writes of one task and kind, ascending by index."""

    task_id: str
    rows: tuple[WriteRow, ...]

    def encode(self) -> bytes:
        """The object's body."""
        return _pack({"format": FORMAT, "task_id": self.task_id, "rows": [tuple(row) for row in self.rows]})

    @classmethod
    def decode(cls, body: bytes | bytearray) -> WritesRecord:
        """The record in `body`; `ValueError` saying what is wrong with it."""
        fields = _unpack(body)
        try:
            return cls.of(fields["task_id"], fields["rows"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"it holds no writes of this library ({type(error).__name__}: {error})") from error

    @classmethod
    def of(cls, task_id: Any, rows: Any) -> WritesRecord:
        """The record of `[index, channel, task_path, payload]`s. Raises what `decode` catches."""
        decoded = (WriteRow(int(idx), _text(channel), _text(path), _payload(body)) for idx, channel, path, body in rows)
        return cls(_text(task_id), tuple(decoded))

    def merged(self, later: Sequence[WriteRow]) -> WritesRecord:
        """These and those of a later call: below 0 the last write of an index stays, from 0 up the first one."""
        rows = {row.idx: row for row in self.rows}
        for row in later:
            if row.idx < 0 or row.idx not in rows:
                rows[row.idx] = row
        return WritesRecord(self.task_id, tuple(rows[idx] for idx in sorted(rows)))


def applied(records: Iterable[WritesRecord]) -> list[tuple[str, WriteRow]]:
    """The writes of several tasks, each with its task id, in the order in which a run applies them."""
    rows = [(record.task_id, row) for record in records for row in record.rows]
    return sorted(rows, key=lambda item: (item[1].task_path, item[0], item[1].idx))


@dataclass(frozen=True, slots=True)
class AncestorCopy:
    """What an ancestor and its pending writes say of delta channels, copied into a descendant.

    It is as good as reading them, if a LIST shows that they are what they were: the same ETag, and writes of the same
    tasks and slots, which are never written again.
    """

    id: str
    parent: str | None
    etag: str
    """Of the ancestor's own object."""
    channels: frozenset[str]
    """The delta channels it was copied for; of others it says nothing."""
    seeds: Mapping[str, ValueRef]
    """Those that have a large value in the ancestor."""
    inline: frozenset[str]
    """Those that have a small value in it, which is not copied."""
    writes: tuple[tuple[int, WritesRecord], ...]
    """Slot and content of each task's regular writes, as far as they are to these channels."""

    @property
    def size(self) -> int:
        """Bytes, about, before compression; rather more than less."""
        rows = (row for _, record in self.writes for row in record.rows)
        texts = sum(len(record.task_id) + 16 for _, record in self.writes)
        return 400 + texts + sum(len(row.payload[1]) + 4 * len(row.channel + row.task_path) + 64 for row in rows)

    def fields(self) -> tuple[Any, ...]:
        """As stored."""
        return (
            self.id,
            self.parent,
            self.etag,
            sorted(self.channels),
            {channel: tuple(ref) for channel, ref in self.seeds.items()},
            sorted(self.inline),
            [(slot, record.task_id, [tuple(row) for row in record.rows]) for slot, record in self.writes],
        )

    @classmethod
    def decode(cls, stored: Any) -> AncestorCopy:
        """Of `fields`. Raises what `CheckpointRecord.decode` catches."""
        checkpoint_id, parent, etag, channels, seeds, inline, writes = stored
        return cls(
            _text(checkpoint_id),
            None if parent is None else _text(parent),
            _text(etag),
            frozenset(map(_text, channels)),
            {_text(channel): ValueRef.decode(value) for channel, value in seeds.items()},
            frozenset(map(_text, inline)),
            tuple((int(slot), WritesRecord.of(task_id, rows)) for slot, task_id, rows in writes),
        )


def _pack_copies(copies: Sequence[AncestorCopy]) -> bytes:
    return compress(ormsgpack.packb([copy.fields() for copy in copies]), "gzip") if copies else b""


def _unpack_copies(body: bytes) -> tuple[AncestorCopy, ...]:
    if not body:
        return ()
    return tuple(map(AncestorCopy.decode, ormsgpack.unpackb(decompress(body, "gzip", _MAX_COPIES_BYTES))))


def _pack(fields: dict[str, Any]) -> bytes:
    try:
        return ormsgpack.packb(fields)
    except (TypeError, ValueError) as error:  # text with lone surrogates; a tag or channel name that is not text
        raise StateEncodingError("$", f"a channel name, id or type tag cannot be written as text ({error})") from error


def _unpack(body: bytes | bytearray) -> dict[str, Any]:
    try:
        fields = ormsgpack.unpackb(body)
    except ValueError as error:
        raise ValueError(f"its body is not msgpack ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError("its body is not a msgpack map")  # noqa: TRY004 - of the data, not of an argument
    if fields.get("format") != FORMAT:
        raise ValueError(f"it has the layout format {ascii(fields.get('format'))[:40]}; this version reads {FORMAT}")
    return fields


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, {type(value).__name__} found")
    return value


def _payload(value: Any) -> Payload:
    tag, body = value
    if not isinstance(body, bytes):
        raise TypeError(f"bytes expected, {type(body).__name__} found")
    return _text(tag), body
