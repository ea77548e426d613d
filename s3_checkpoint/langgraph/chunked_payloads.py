"""Large lists and dicts through the serializer in chunks, so that no call of it keeps the interpreter for long.

    tag              body
    msgpack-list     msgpack array of chunks, each what the serializer gives, as `msgpack`, for so many of the items
    msgpack-dict     the same, for so many of the entries

Only where the serializer is LangGraph's own: msgpack of a list is that of its items, one after another. All other
values, and all values of another serializer, are one payload under the serializer's own tag. Objects that msgpack has
no form for (messages, models) are encoded and decoded by Python code, which lets other threads have their turn.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from s3_checkpoint._format.chunked_json import give_way
from s3_checkpoint._format.size_estimate import CHUNK_BYTES, estimated_bytes
from s3_checkpoint.langgraph.records import DICT_IN_CHUNKS, LIST_IN_CHUNKS, Payload

_INNER = "msgpack"


def dump_payload(serde: SerializerProtocol, value: Any) -> Payload:
    """The payload of `value`. Raises what the serializer raises."""
    if type(value) in (list, dict) and type(serde) is JsonPlusSerializer and estimated_bytes(value) >= CHUNK_BYTES:
        chunks = _chunks(serde, value)
        if chunks is not None:
            return LIST_IN_CHUNKS if type(value) is list else DICT_IN_CHUNKS, ormsgpack.packb(chunks)
    tag, body = serde.dumps_typed(value)
    return tag, bytes(body)


def load_payload(serde: SerializerProtocol, payload: Payload) -> Any:
    """The value of `payload`. Raises what the serializer raises, or `ValueError`."""
    tag, body = payload
    if tag not in (LIST_IN_CHUNKS, DICT_IN_CHUNKS):
        return serde.loads_typed(payload)
    found: Any = [] if tag == LIST_IN_CHUNKS else {}
    passed = 0
    for chunk in ormsgpack.unpackb(body):
        part = serde.loads_typed((_INNER, chunk))
        if type(part) is not type(found):
            raise ValueError(f"a chunk of a {type(found).__name__} is none")
        found.extend(part) if tag == LIST_IN_CHUNKS else found.update(part)
        passed = give_way(passed + len(chunk))
    return found


def _chunks(serde: SerializerProtocol, value: Any) -> list[bytes] | None:
    """What the serializer makes of so many parts at a time; None if it is not msgpack."""
    rest = iter(value if type(value) is list else value.items())
    found: list[bytes] = []
    count, passed = 1, 0
    while part := list(islice(rest, count)):
        tag, body = serde.dumps_typed(part if type(value) is list else dict(part))
        if tag != _INNER:
            return None
        found.append(bytes(body))
        passed = give_way(passed + len(body))
        count = max(1, min(4 * count, count * CHUNK_BYTES // len(body)))
    return found
