"""Which values are taken apart, so that large ones are written and read in chunks: a matter of their type.

Taken apart are containers without bounds and records in which nothing but each field by itself decides what an instance
is, as pydantic's core schema says. A schema of a kind or with an entry that is not listed here is left alone. A part's
validator and serializer are made of its part of the schema, and of the settings that hold there. See
docs/design/0007-chunked-json.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, TypeAlias, cast

from pydantic import BaseModel
from pydantic_core import CoreConfig, CoreSchema, SchemaSerializer, SchemaValidator, from_json, to_json

Text: TypeAlias = Any
"""A stretch of JSON: bytes, or a view of them."""


class LayoutError(Exception):
    """What is to be read is not laid out in chunks. It never leaves the two modules that know of chunks."""


# What a schema may say, for its values to be taken apart. All else (bounds, functions, serializers) is left alone.
_ALWAYS = {"type", "ref", "metadata"}
_HARMLESS = {
    "any": set[str](),
    "list": {"items_schema", "strict"},
    "tuple": {"items_schema", "strict", "variadic_item_index"},
    "set": {"items_schema", "strict"},
    "frozenset": {"items_schema", "strict"},
    "dict": {"keys_schema", "values_schema", "strict"},
    "nullable": {"schema", "strict"},
    "default": {
        *("schema", "default", "default_factory", "default_factory_takes_data", "validate_default", "copy_default")
    },
    "definition-ref": {"schema_ref"},
    "definitions": {"schema", "definitions"},
    "json-or-python": {"json_schema", "python_schema"},
    "model": {
        *("cls", "schema", "config", "custom_init", "root_model", "generic_origin"),
        *("strict", "frozen", "revalidate_instances", "extra_behavior", "post_init"),
    },
    "model-fields": {"fields", "computed_fields", "model_name", "strict", "extra_behavior", "from_attributes"},
    "typed-dict": {"fields", "computed_fields", "cls", "cls_name", "config", "strict", "extra_behavior", "total"},
    "dataclass": {
        *("cls", "cls_name", "schema", "config", "fields", "generic_origin", "post_init"),
        *("strict", "frozen", "slots", "revalidate_instances"),
    },
    "dataclass-args": {"fields", "computed_fields", "dataclass_name", "collect_init_only", "extra_behavior"},
    "model-field": {"schema", "frozen", "validation_alias", "serialization_alias"},
    "typed-dict-field": {"schema", "required", "validation_alias", "serialization_alias"},
    "dataclass-field": {"schema", "name", "init", "kw_only", "frozen", "validation_alias", "serialization_alias"},
}
_HARMLESS_SETTINGS = {
    *("title", "strict", "extra_fields_behavior", "typed_dict_total", "from_attributes", "loc_by_alias"),
    *("revalidate_instances", "validate_default", "str_max_length", "str_min_length", "str_strip_whitespace"),
    *("str_to_lower", "str_to_upper", "allow_inf_nan", "hide_input_in_errors", "validation_error_cause"),
    *("coerce_numbers_to_str", "regex_engine", "cache_strings", "validate_by_alias", "validate_by_name"),
    *("serialize_by_alias", "populate_by_name"),
}
"""Settings that the parts' own validators get as well. Those of the serializer reach down from the root: not here."""
_ANY: dict[str, Any] = {"type": "any"}


class Schemas:
    """A type's core schema, with what it defines by name."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.definitions: list[Any] = list(schema["definitions"]) if schema["type"] == "definitions" else []
        self._named = {definition["ref"]: definition for definition in self.definitions}
        self._places: dict[tuple[int, int], Place] = {}

    def place(self, schema: Mapping[str, Any], config: Mapping[str, Any] | None) -> Place:
        """The place that `schema` is for, under the settings `config`."""
        key = id(schema), id(config)
        if key not in self._places:
            self._places[key] = Place(self, schema, config)
        return self._places[key]

    def whole(self, schema: Any) -> CoreSchema:
        """`schema`, with what it may refer to."""
        if not self.definitions or schema.get("type") == "definitions":
            return cast("CoreSchema", schema)
        if schema.get("ref") in self._named:
            schema = {"type": "definition-ref", "schema_ref": schema["ref"]}
        return cast("CoreSchema", {"type": "definitions", "schema": schema, "definitions": self.definitions})

    def bare(self, schema: Any) -> Any:
        """What is behind names, defaults and `| None`; None if something has a say in it that is not known here."""
        while is_harmless(schema):
            kind = schema["type"]
            if kind == "definition-ref":
                schema = self._named[schema["schema_ref"]]
            elif kind in ("definitions", "nullable", "default"):
                schema = schema["schema"]
            elif kind == "json-or-python":
                schema = schema["json_schema"]
            else:
                return schema
        return None

    def sees_other_fields(self, schema: Any, seen: frozenset[str] = frozenset()) -> bool:
        """Whether a validator or default in `schema` is handed the fields read before, or told which field it is in."""
        if isinstance(schema, list | tuple):
            return any(self.sees_other_fields(part, seen) for part in schema)
        if not isinstance(schema, dict):
            return False
        kind = schema.get("type")
        if kind in ("model", "dataclass", "typed-dict"):
            return False  # it hands on its own fields
        if kind == "definition-ref":
            name = schema["schema_ref"]
            return name not in seen and self.sees_other_fields(self._named[name], seen | {name})
        if kind == "with-info" or schema.get("default_factory_takes_data"):
            return True
        return any(
            self.sees_other_fields(part, seen) for name, part in schema.items() if name not in ("metadata", "default")
        )


def is_harmless(schema: Mapping[str, Any]) -> bool:
    """Whether `schema` says nothing that a part by itself would not know of."""
    kind = schema["type"]
    return kind in _HARMLESS and schema.keys() <= _HARMLESS[kind] | _ALWAYS


class Place:
    """Somewhere in a type: what its values are checked by, and how they are taken apart."""

    def __init__(self, schemas: Schemas, schema: Any, config: Mapping[str, Any] | None) -> None:
        self.schemas = schemas
        self.schema = schema
        self.config = cast("CoreConfig | None", config)

    @cached_property
    def shape(self) -> Shape | None:
        """How values of this place are taken apart; None if they are not."""
        bare = self.schemas.bare(self.schema)
        kind = bare and bare["type"]
        if kind in _SEQUENCES:
            return _sequence(self, bare)
        if kind == "dict":
            return Dict(self, bare)
        if kind in _RECORDS:
            return _record(self, bare)
        return Anything(self) if kind == "any" else None

    def shape_of(self, value: object) -> Container | None:
        """How `value` is taken apart; None if it is not."""
        shape = self.shape
        if isinstance(shape, Anything):
            shape = shape.list if type(value) is list else shape.dict
        if shape is None or type(value) is not shape.made:
            return None
        return shape if isinstance(shape, Record) or value else None

    def shape_opened_by(self, bracket: bytes) -> Container:
        """What a line that ends in `bracket` begins here."""
        shape = self.shape
        if isinstance(shape, Anything):
            shape = shape.list if bracket == b"[" else shape.dict
        if shape is None or shape.opening != bracket:
            raise LayoutError("nothing begins here")
        return shape

    def at(self, schema: Any) -> Place:
        """A place inside, where the same settings hold."""
        return self.schemas.place(schema, cast("Mapping[str, Any] | None", self.config))


class _PartCodec:
    """Values of one schema ↔ JSON, as pydantic does it for a whole state."""

    def __init__(self, place: Place, schema: Any) -> None:
        self._place = place
        self._schema = schema
        self._validators: dict[int, SchemaValidator] = {}

    @cached_property
    def _serializer(self) -> SchemaSerializer:
        return SchemaSerializer(self._place.schemas.whole(self._schema), self._place.config)

    def dump(self, value: Any, include: set[str] | None = None) -> bytes:
        return self._serializer.to_json(value, include=include, by_alias=False, round_trip=True, warnings="none")

    def parse(self, text: Text, depth: int, brackets: bytes = b"") -> Any:
        """The value of `text`, put into `brackets`, which is inside of `depth` containers.

        What is nested too deeply there is so here.
        """
        wrapped = _wrapped(text, depth, brackets)
        if depth not in self._validators:
            schema = self._schema
            for _ in range(depth):
                schema = {"type": "list", "items_schema": schema}
            self._validators[depth] = SchemaValidator(self._place.schemas.whole(schema), self._place.config)
        return _unwrapped(self._validators[depth].validate_json(wrapped, by_alias=True, by_name=True), depth)


class _PlainCodec:
    """JSON that no type says more of; faster than validating it as anything, and the same."""

    def dump(self, value: Any) -> bytes:
        return to_json(value, by_alias=False, round_trip=True, inf_nan_mode="null")

    def parse(self, text: Text, depth: int, brackets: bytes = b"") -> Any:
        return _unwrapped(from_json(_wrapped(text, depth, brackets)), depth)


def _wrapped(text: Text, depth: int, brackets: bytes) -> bytes:
    return b"%b%b%b%b%b" % (b"[" * depth, brackets[:1], text, brackets[1:], b"]" * depth)


def _unwrapped(found: Any, depth: int) -> Any:
    for _ in range(depth):
        (found,) = found  # more than one: the text closes what it did not open
    return found


def _part_codec(place: Place, schema: Any) -> _PartCodec | _PlainCodec:
    """For a container, whose schema is made here."""
    inside = {name: place.schemas.bare(part) for name, part in schema.items() if name != "type"}
    if (inside.get("keys_schema") or {}).get("type") == "str" and not any(
        setting.startswith("str_") for setting in place.config or ()
    ):
        del inside["keys_schema"]  # in JSON, keys are nothing else
    plain = all(part is not None and part["type"] == "any" for part in inside.values())
    return _PlainCodec() if plain else _PartCodec(place, schema)


class Sequence:
    """A list, or what is written like one."""

    opening, closing = b"[", b"]"

    def __init__(self, place: Place, made: type, items: Any) -> None:
        self.made = made
        self.item = place.at(items)
        self._codec = _part_codec(place, {"type": "list", "items_schema": items})

    def parts(self, value: Any) -> Iterable[Any]:
        """The parts of a value."""
        return cast("Iterable[Any]", value)

    def inside(self, part: Any) -> Any:
        """What of a part may be large."""
        return part

    def name(self, part: Any) -> bytes:
        """What is written before a large part."""
        return b""

    def key(self, name: bytes, depth: int) -> Any:
        """The key that `name` was written for; None for parts without."""
        if name:
            raise LayoutError("a part of a list has no name")

    def gathered(self, parts: Iterable[Any]) -> Any:
        """A run of parts, as `parse` gives it."""
        return list(parts)

    def dump(self, run: Any) -> bytes:
        """A run of parts, without brackets."""
        return self._codec.dump(run)[1:-1]

    def parse(self, text: Text, depth: int) -> Any:
        """The run of parts in `text`; `depth`: how many containers are around this one."""
        return self._codec.parse(text, depth, b"[]")

    def new(self) -> Any:
        """An empty container to be filled."""
        return set() if self.made in (set, frozenset) else []

    def extend(self, found: Any, run: Any) -> None:
        """Puts a run of parts into it."""
        found.update(run) if isinstance(found, set) else found.extend(run)

    def add(self, found: Any, key: Any, part: Any) -> None:
        """Puts one part into it."""
        found.add(part) if isinstance(found, set) else found.append(part)

    def done(self, found: Any) -> Any:
        """The container, filled."""
        return found if type(found) is self.made else self.made(found)


class Dict:
    """A dict, of which all values are of one type. Methods as of `Sequence`."""

    opening, closing = b"{", b"}"
    made: type = dict

    def __init__(self, place: Place, schema: Any) -> None:
        keys, values = schema.get("keys_schema", _ANY), schema.get("values_schema", _ANY)
        self.item = place.at(values)
        self._codec = _part_codec(place, {"type": "dict", "keys_schema": keys, "values_schema": values})
        self._keys = _part_codec(place, {"type": "dict", "keys_schema": keys, "values_schema": _ANY})

    def parts(self, value: Any) -> Iterable[Any]:
        """Keys with values."""
        return cast("Iterable[Any]", value.items())

    def inside(self, part: Any) -> Any:
        """The value."""
        return part[1]

    def name(self, part: Any) -> bytes:
        """The key, as JSON, and a colon."""
        return self._keys.dump({part[0]: None})[1:-5]

    def key(self, name: bytes, depth: int) -> Any:
        """The key."""
        (key,) = self._keys.parse(b"{%bnull}" % name, depth)
        return key

    def gathered(self, parts: Iterable[Any]) -> Any:
        """A dict."""
        return dict(parts)

    def dump(self, run: Any) -> bytes:
        """A run of members, without brackets."""
        return self._codec.dump(run)[1:-1]

    def parse(self, text: Text, depth: int) -> Any:
        """The run of members in `text`, as a dict."""
        return self._codec.parse(text, depth, b"{}")

    def new(self) -> Any:
        """An empty dict."""
        return {}

    def extend(self, found: Any, run: Any) -> None:
        """Of a name that comes twice the last value counts, at the first one's place: as in a JSON object."""
        found.update(run)

    def add(self, found: Any, key: Any, part: Any) -> None:
        """Puts one value into it."""
        found[key] = part

    def done(self, found: Any) -> Any:
        """The dict itself."""
        return found


class Anything:
    """JSON that no type says more of."""

    def __init__(self, place: Place) -> None:
        self.list = Sequence(place, list, _ANY)
        self.dict = Dict(place, {})


class Record:
    """A model, dataclass or TypedDict, validated with empty containers for those that are taken apart."""

    opening, closing = b"{", b"}"

    def __init__(self, place: Place, schema: Any, made: type, fields: dict[str, Any]) -> None:
        self.made = made
        self.kind = schema["type"]
        inside = schema.get("config")
        self.fields = {
            name: place.schemas.place(known["schema"], inside) for name, known in fields.items() if is_harmless(known)
        }
        self.aliases = {name: known.get("validation_alias", name) for name, known in fields.items()}
        self._names = list(fields)
        self._codec = _PartCodec(place, schema)

    def names(self, value: Any) -> list[str]:
        """What is written of `value`, in that order."""
        if self.kind == "dataclass":
            return self._names
        if self.kind == "typed-dict":
            return list(value)
        return [*filter(self.aliases.__contains__, value.__dict__), *(value.model_extra or ())]

    def get(self, value: Any, name: str) -> Any:
        """What is in a field."""
        if self.kind == "dataclass":
            return getattr(value, name)
        if self.kind == "typed-dict":
            return value[name]
        return value.__dict__[name] if name in value.__dict__ else value.model_extra[name]

    def put(self, value: Any, name: str, part: Any) -> None:
        """Puts `part` in the place of the empty container that is there."""
        there = self.get(value, name)
        if there or type(there) is not type(part):
            raise LayoutError("a name comes twice")
        if self.kind == "dataclass":
            object.__setattr__(value, name, part)
        else:
            (value if self.kind == "typed-dict" else value.__dict__)[name] = part

    def dump(self, value: Any, names: list[str]) -> bytes:
        """The fields `names`, without brackets."""
        return self._codec.dump(value, set(names))[1:-1]

    def parse(self, text: Text, depth: int) -> Any:
        """The record in `text`; `depth`: how many containers are around it."""
        return self._codec.parse(text, depth)


Container = Sequence | Dict | Record
Shape = Container | Anything
_SEQUENCES: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_RECORDS = {"model": "model-fields", "dataclass": "dataclass-args", "typed-dict": "typed-dict"}


class _Private(BaseModel):
    """Has the method that pydantic gives to all models with private attributes: it sets them, and sees nothing else."""

    _private: int = 0


def _sequence(place: Place, schema: Any) -> Sequence | None:
    items = schema.get("items_schema", _ANY)
    if schema["type"] == "tuple":
        if len(items) != 1 or schema.get("variadic_item_index") != 0:
            return None
        items = items[0]
    return Sequence(place, _SEQUENCES[schema["type"]], items)


def _record(place: Place, schema: Any) -> Record | None:
    """How a record is taken apart; None if something but each field by itself has a say in what it is."""
    inner = schema if schema["type"] == "typed-dict" else schema["schema"]
    if inner["type"] != _RECORDS[schema["type"]] or not is_harmless(inner):
        return None
    if schema.get("custom_init") or schema.get("root_model") or inner.get("collect_init_only"):
        return None
    if schema.get("post_init") and getattr(schema["cls"], "model_post_init", None) is not _Private.model_post_init:
        return None
    if "config" not in schema or not schema["config"].keys() <= _HARMLESS_SETTINGS:
        return None
    fields = inner["fields"]
    if schema["type"] == "dataclass":
        fields = {known["name"]: known for known in fields}
    for name, known in fields.items():
        alias = known.get("validation_alias", name)
        # A path leads into another field's value; a name that two fields go by is read by either.
        if type(alias) is not str or (alias != name and alias in fields) or known.get("init", True) is not True:
            return None
        if place.schemas.sees_other_fields(known["schema"]):
            return None
    return Record(place, schema, dict if schema["type"] == "typed-dict" else schema["cls"], fields)
