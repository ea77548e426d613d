"""Which states are written and read in pieces: plain JSON, and models of which lists can be taken apart.

A model takes its JSON whole, and nobody else gets a word in meanwhile. But where a field is a plain list, and neither
the model nor the field has validators, serializers or settings of its own, the parts of the list are what they would be
by themselves. Such a list is spread over lines, as `json_pieces` does it, and what is left goes through the model:

    {
    "question":"why?",
    "notes":[
    {"id":0},{"id":1},{"id":2},
    {"id":3},{"id":4}
    ]
    }
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, Protocol, get_args, get_origin

from pydantic import BaseModel, JsonValue, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import from_json, to_json

from s3_checkpoint.json_pieces import (
    chunks_of,
    from_json_in_pieces,
    giving_way,
    lines_in,
    to_json_in_pieces,
)
from s3_checkpoint.off_loop import CHUNK_BYTES, estimated_bytes
from s3_checkpoint.pydantic_internals import has_only_fields

_PLAIN = (dict, dict[str, Any], dict[str, JsonValue])
_HARMLESS_SETTINGS = {"frozen", "title"}


class Pieces(Protocol):
    """Writes and reads large states of one type."""

    def dump(self, value: Any) -> bytes | None:
        """The JSON of `value`, laid out in pieces; None if it is not for pieces. Raises what pydantic raises."""
        ...

    def validate(self, data: bytes | bytearray) -> Any:
        """The value that `dump` wrote as `data`; None if it is not laid out like that, or does not fit the type."""
        ...


def pieces_for(adapter: TypeAdapter[Any], state_type: object) -> Pieces | None:
    """How states of this type, which `adapter` is for, are written and read in pieces; None if they are not."""
    if any(state_type == plain for plain in _PLAIN):
        return PlainPieces()
    if not (isinstance(state_type, type) and issubclass(state_type, BaseModel) and _is_plain_model(state_type)):
        return None
    names = [name for name, field in state_type.model_fields.items() if _is_plain_list(field)]
    return ModelPieces(adapter, state_type, names) if names else None


class PlainPieces:
    """For states that are JSON and nothing more."""

    def dump(self, value: Any) -> bytes | None:
        """See `Pieces.dump`."""
        return to_json_in_pieces(value)

    def validate(self, data: bytes | bytearray) -> Any:
        """See `Pieces.validate`."""
        return from_json_in_pieces(data)


class ModelPieces:
    """For states of one model, whose fields `names` are plain lists."""

    def __init__(self, adapter: TypeAdapter[Any], model: type[BaseModel], names: list[str]) -> None:
        self._adapter = adapter
        self._model = model
        self._names = names

    @cached_property
    def _lists(self) -> dict[str, TypeAdapter[list[Any]]]:
        """Made when there is a large list; making one takes longer than a small state does."""
        return {name: TypeAdapter(self._model.model_fields[name].annotation) for name in self._names}

    def dump(self, value: Any) -> bytes | None:
        """See `Pieces.dump`: a model without a large list is not for pieces."""
        large = [name for name in self._names if _is_large_list(getattr(value, name, None))]
        if not large:
            return None
        lines = [b"{"]
        for name in self._model.model_fields:
            if name in large:
                parts = self._lists[name]
                lines.append(to_json(name) + b":[")
                lines += giving_way(chunks_of(getattr(value, name), partial(_dumped, parts)))
                lines.append(b"],")
            elif text := _dumped(self._adapter, value, include={name}):  # nothing, if it is left out of JSON
                lines.append(text + b",")
        lines[-1] = lines[-1].removesuffix(b",")
        return b"\n".join([*lines, b"}"])

    def validate(self, data: bytes | bytearray) -> Any:
        """See `Pieces.validate`."""
        try:
            return self._validate(data)
        except ValueError:  # of pydantic, too
            return None

    def _validate(self, data: bytes | bytearray) -> Any:
        found: dict[str, list[Any]] = {}
        openings = {to_json(name) + b":[": name for name in self._names}
        lines = giving_way(lines_in(data))
        rest = [next(lines)]
        for line in lines:
            rest.append(line)
            if name := openings.get(line):
                if name in found:
                    raise ValueError("a list comes twice")
                found[name], closing = self._list_in(lines, self._lists[name])
                rest.append(closing)
            elif line != b"}":
                from_json(b"{%b}" % line.removesuffix(b","))  # one or more whole fields, and nothing else
        if not found:
            raise ValueError("there is nothing in pieces")
        value = self._adapter.validate_json(b"".join(rest), by_alias=True, by_name=True)
        if any(value.__dict__[name] != [] for name in found):
            raise ValueError("a list comes twice")
        value.__dict__.update(found)
        return value

    def _list_in(self, lines: Iterator[bytes], parts: TypeAdapter[list[Any]]) -> tuple[list[Any], bytes]:
        """The parts of a list, and the line that closes it."""
        found: list[Any] = []
        more = True
        for line in lines:
            if line in (b"]", b"],") and not more:
                return found, line
            text = line.removesuffix(b",")
            if not (more and text):
                break
            found += parts.validate_json(b"[%b]" % text, by_alias=True, by_name=True)
            more = text != line
        raise ValueError("a list is not laid out in pieces")


def _dumped(adapter: TypeAdapter[Any], value: object, include: set[str] | None = None) -> bytes:
    return adapter.dump_json(value, include=include, by_alias=False, round_trip=True, warnings="none")[1:-1]


def _is_large_list(value: object) -> bool:
    return type(value) is list and estimated_bytes(value, CHUNK_BYTES) >= CHUNK_BYTES


def _is_plain_model(model: type[BaseModel]) -> bool:
    """Whether nothing but its fields decides what its instances are, and what their JSON is."""
    return set(model.model_config) <= _HARMLESS_SETTINGS and has_only_fields(model)


def _is_plain_list(field: FieldInfo) -> bool:
    """Whether it is `list[…]` and nothing more: no bounds, no aliases, no validators in its annotation."""
    return (
        get_origin(field.annotation) is list
        and len(get_args(field.annotation)) == 1
        and not field.metadata
        and field.alias is field.validation_alias is field.serialization_alias is field.discriminator is None
        and field.exclude is None
    )
