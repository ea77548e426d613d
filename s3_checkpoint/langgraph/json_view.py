"""What serialized values say, as JSON: nothing is imported, constructed or unpickled, whatever the bytes name.

    LangGraph's msgpack             as JSON. Messages, `Send`, `Interrupt` and other types of LangChain and LangGraph
                                    are their fields; times, UUIDs, paths, sets are text and lists
    an application's type           its fields, and `"@type"` with the name of the type
    bytes, pickle, unknown tags     `{"@type": …, "size": …}`
    an encrypted payload            `{"@type": "encrypted", "cipher": …, "size": …}`, unless the cipher is at hand

Knows the layout of LangGraph's msgpack extensions (langgraph-checkpoint 4, `serde/jsonplus.py`); one that looks
otherwise is shown as its code and size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from pydantic import JsonValue

from s3_checkpoint.langgraph.langgraph_internals import SNAPSHOT_CODE
from s3_checkpoint.langgraph.records import DICT_IN_CHUNKS, LIST_IN_CHUNKS

Decrypt = Callable[[str, bytes], bytes]
"""The plain bytes of (cipher name, encrypted bytes)."""

TYPE = "@type"
MAX_DEPTH = 100
"""Values nested deeper are left out, with their type."""
_CODES = range(6)
"""Extensions that hold (module, name, argument or arguments, …)."""
_NUMPY = 6
_PLAIN_MODULES = ("langchain_core.messages", "langchain_core.documents", "langgraph.types", "langgraph.store.base")
"""Types of these are their fields alone: a message says by itself of which kind it is."""
_SECRETS = {("pydantic.types", "SecretStr"), ("pydantic.types", "SecretBytes")}


class JsonViews(SerializerProtocol):
    """A serializer for reading alone, whose values are JSON."""

    def __init__(self, decrypt: Decrypt | None = None) -> None:
        self._decrypt = decrypt

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Refuses: what is read so must not be written."""
        raise NotImplementedError("values seen as JSON are not written")

    def loads_typed(self, data: tuple[str, bytes]) -> JsonValue:
        """The payload as JSON. Raises nothing: what cannot be read is shown as its type and size."""
        tag, body = data
        inner, encrypted, cipher = tag.partition("+")
        if encrypted:
            unread: JsonValue = {TYPE: "encrypted", "cipher": cipher, "size": len(body)}
            if self._decrypt is None:
                return unread
            try:
                body = self._decrypt(cipher, body)
            except Exception:  # noqa: BLE001 - another key, or a cipher of the application's
                return unread
        try:
            match inner:
                case "null":
                    return None
                case "msgpack":
                    return _plain(_unpacked(body))
                case _ if inner == LIST_IN_CHUNKS:
                    return [item for chunk in ormsgpack.unpackb(body) for item in _chunk(list, chunk)]
                case _ if inner == DICT_IN_CHUNKS:
                    return dict(item for chunk in ormsgpack.unpackb(body) for item in _chunk(dict, chunk).items())
                case "json":
                    return _plain(json.loads(body))
                case "bytes" | "bytearray":
                    return _sized("bytes", body)
        except (ValueError, TypeError, RecursionError):
            return _sized(f"unreadable {inner}", body)
        return _sized(inner, body)


def decryption_of(serde: SerializerProtocol) -> Decrypt | None:
    """How to decrypt what `serde` has encrypted; None if it encrypts nothing."""
    return serde.cipher.decrypt if isinstance(serde, EncryptedSerializer) else None


def is_encrypted(view: JsonValue) -> bool:
    """Whether the payload behind this view is encrypted, and could not be read."""
    return isinstance(view, dict) and view.get(TYPE) == "encrypted"


def _sized(kind: str, body: bytes) -> JsonValue:
    return {TYPE: kind, "size": len(body)}


def _chunk(kind: type, body: bytes) -> Any:
    value = _plain(_unpacked(body))
    if not isinstance(value, kind):
        raise TypeError(f"a chunk of a {kind.__name__} is none")
    return value


def _unpacked(body: bytes) -> Any:
    return ormsgpack.unpackb(body, ext_hook=_extension, option=ormsgpack.OPT_NON_STR_KEYS)


def _extension(code: int, body: bytes) -> Any:
    """What stands for an extension: JSON, but for what is in it."""
    if code == SNAPSHOT_CODE:
        return _unpacked(body)
    parts = _unpacked(body) if code in _CODES or code == _NUMPY else None
    if not isinstance(parts, list | tuple) or len(parts) < 3:
        return _sized(f"msgpack extension {code}", body)
    if code == _NUMPY:
        return {TYPE: "numpy.ndarray", "dtype": parts[0], "shape": parts[1], "size": len(body)}
    module, name, argument = parts[:3]
    if not (isinstance(module, str) and isinstance(name, str)):
        return _sized(f"msgpack extension {code}", body)
    return _known(module, name, argument)


def _known(module: str, name: str, argument: Any) -> Any:
    """A value of one of the types that LangGraph's strict mode loads, or of an application's type."""
    try:
        match module.removesuffix("._local"), name:
            case "uuid", "UUID":
                return str(UUID(argument))
            case "datetime", "date":
                return date(*argument).isoformat()
            case "datetime", "timedelta":
                return str(timedelta(*argument))
            case "datetime", "time":
                return "{hour:02d}:{minute:02d}:{second:02d}.{microsecond:06d}".format(**argument)
            case "pathlib", _:
                return str(PurePosixPath(*argument))
            case "re", "compile":
                return argument[0]
            case "langgraph.types", "Send":
                return {"node": argument[0], "arg": argument[1]}
            case (("datetime" | "decimal" | "ipaddress" | "zoneinfo" | "builtins" | "collections"), _):
                return argument
    except (ValueError, TypeError, LookupError, OverflowError):
        pass
    if (module, name) in _SECRETS:
        return {TYPE: f"{module}.{name}"}
    if module.startswith(_PLAIN_MODULES):
        return argument
    kind = {TYPE: f"{module}.{name}"}
    return kind | argument if isinstance(argument, dict) else kind | {"value": argument}


def _plain(value: Any, depth: int = 0) -> JsonValue:
    """JSON of what msgpack or JSON gave."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return _sized("bytes", bytes(value))
    if depth > MAX_DEPTH:
        return {TYPE: type(value).__name__, "nested": "too deeply to be shown"}
    if isinstance(value, Mapping):
        found: dict[str, JsonValue] = {}
        for key, inner in value.items():
            found[_key(key)] = _plain(inner, depth + 1)
        return found
    if isinstance(value, list | tuple | set | frozenset):
        items: list[JsonValue] = []
        for inner in value:
            items.append(_plain(inner, depth + 1))  # noqa: PERF401 - a comprehension would take a frame for each level
        return items
    return {TYPE: type(value).__name__}


def _key(key: Any) -> str:
    """A key of a dict as text; JSON's for keys that are no text."""
    return key if isinstance(key, str) else json.dumps(_plain(key))
