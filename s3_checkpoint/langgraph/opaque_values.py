"""Values carried from saver to saver as they are stored: no type of theirs is imported, nothing is unpickled.

`OpaqueSerializer` reads LangGraph's msgpack as far as dicts, lists, text and numbers go, and keeps every other value as
its bytes; written again, these are the same bytes. A payload under any other tag, an encrypted one for instance, is
kept whole. Delta snapshots alone are what they are: a saver has to know them.
"""

from __future__ import annotations

from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol

from s3_checkpoint.langgraph.langgraph_internals import is_snapshot, new_snapshot

_DELTA_SNAPSHOT = 7
"""LangGraph's code for its msgpack extension."""


class OpaqueValue:
    """A value of a type that is not looked into: a msgpack extension by its code."""

    __slots__ = ("body", "code")

    def __init__(self, code: int, body: bytes) -> None:
        self.code: int = code
        self.body: bytes = body

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpaqueValue) and (self.code, self.body) == (other.code, other.body)

    def __hash__(self) -> int:
        return hash((self.code, self.body))


class OpaquePayload:
    """A payload that is not looked into, by its tag."""

    __slots__ = ("body", "tag")

    def __init__(self, tag: str, body: bytes) -> None:
        self.tag: str = tag
        self.body: bytes = body

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpaquePayload) and (self.tag, self.body) == (other.tag, other.body)

    def __hash__(self) -> int:
        return hash((self.tag, self.body))


class OpaqueSerializer(SerializerProtocol):
    """Reads and writes payloads without changing them."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The payload that `obj` was read from."""
        if obj is None:
            return "null", b""
        if isinstance(obj, bytes):
            return "bytes", obj
        if isinstance(obj, bytearray):
            return "bytearray", bytes(obj)
        if isinstance(obj, OpaquePayload):
            return obj.tag, obj.body
        return "msgpack", _packed(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """What the payload holds, as far as it is looked into."""
        tag, body = data
        if tag == "null":
            return None
        if tag == "bytes":
            return body
        if tag == "bytearray":
            return bytearray(body)
        return _unpacked(body) if tag == "msgpack" else OpaquePayload(tag, body)


def _packed(value: Any) -> bytes:
    return ormsgpack.packb(value, default=_extension, option=ormsgpack.OPT_NON_STR_KEYS)


def _unpacked(body: bytes) -> Any:
    return ormsgpack.unpackb(body, ext_hook=_opaque, option=ormsgpack.OPT_NON_STR_KEYS)


def _opaque(code: int, body: bytes) -> Any:
    return new_snapshot(_unpacked(body)) if code == _DELTA_SNAPSHOT else OpaqueValue(code, body)


def _extension(value: Any) -> ormsgpack.Ext:
    if isinstance(value, OpaqueValue):
        return ormsgpack.Ext(value.code, value.body)
    if is_snapshot(value):
        return ormsgpack.Ext(_DELTA_SNAPSHOT, _packed(value.value))
    raise TypeError(f"{type(value).__name__} is no value that was read so")
