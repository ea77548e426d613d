"""Large JSON, written and read in chunks: no call into the JSON library keeps the interpreter for long.

A large container is spread over lines, each of which holds one or more of its parts:

    {
    "question":"why?",
    "notes":[
    {"id":0},{"id":1},{"id":2},
    {"id":3},{"id":4}
    ]
    }

It is the compact JSON with line breaks put in. What is not laid out like that to the letter is read whole, and what
this module cannot write, for any reason, is written whole. Each line goes to the validator of its place in the type
(`chunked_types`); a record (a model, dataclass or TypedDict) is validated without its large containers, which are put
in afterwards. Why: docs/design/0007-chunked-json.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from s3_checkpoint._format.chunked_types import Container, Dict, LayoutError, Place, Record, Schemas, Sequence, Text
from s3_checkpoint._format.pydantic_internals import has_settings
from s3_checkpoint._format.size_estimate import CHUNK_BYTES, estimated_bytes

LONGEST = 8
"""Chunks that a line may have the length of. A longer one is a single text, which is quickly read, but not copied."""
_LOOKED_AT = 1000
"""A container of no more parts has each looked at, so that each may be large; the parts of a longer one are small."""
_DEPTH = 12
"""Containers inside each other that are taken apart."""
_OPENED = 8
"""A container of an eighth of a chunk is taken apart, where it is a field of a record: its fields may be many."""
_MOMENT_S = 0.0001
_MANY = 1000
_BRACKETS = (b"[", b"{")
_COMMA = ord(",")

Same = Callable[[object, object], bool]
"""Whether a value that was read back is what was written."""


class ChunkedType:
    """Writes and reads large values of one type."""

    def __init__(self, schema: Mapping[str, Any], chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunk_bytes = chunk_bytes
        self._root = Schemas(schema).place(schema, None)

    @classmethod
    def of(cls, adapter: TypeAdapter[Any], chunk_bytes: int = CHUNK_BYTES) -> ChunkedType | None:
        """How values of the type that `adapter` is for are written and read in chunks; None if they are not."""
        try:
            found = cls(adapter.core_schema, chunk_bytes)
            shape = found._root.shape
        except Exception:  # noqa: BLE001 - a schema of another make than is known here: such values go whole
            return None
        # Settings given to an adapter are not in its schema. Those of a record are: pydantic allows no others there.
        return found if isinstance(shape, Record) or (shape is not None and not has_settings(adapter)) else None

    def dump(self, value: Any, same: Same) -> bytes | None:
        """The JSON of `value`, laid out in chunks, each of which reads back as the same.

        None if `value` is not for chunks, does not read back, or has no form in JSON: then it is to be written whole,
        and that tells what is wrong, if something is.
        """
        try:
            shape = self._root.shape_of(value)
            writer = _Writer(self._chunk_bytes, same)
            if shape is None or not writer.is_worth_it(shape, value):
                return None
            writer.write(shape, value, b"", 0)
            return b"".join(writer.out)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - whatever goes wrong here is not blamed on the value
            return None

    def validate(self, data: bytes | bytearray) -> Any:
        """The value that `dump` wrote as `data`; None if it is not laid out like that, or does not fit the type."""
        try:
            return _Reader(data, self._chunk_bytes).read(self._root)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - as above
            return None


Grafts = list[tuple[tuple[tuple[Record, str], ...], Any]]
"""Containers to be put into a record, each with the way there: the records it leads through, and the names in them."""


def _graft(value: Any, grafts: Grafts) -> None:
    for way, part in grafts:
        holder = value
        for record, name in way[:-1]:
            holder = record.get(holder, name)
            if type(holder) is not record.fields[name].shape_opened_by(b"{").made:
                raise LayoutError("a name comes twice")
        record, name = way[-1]
        record.put(holder, name, part)


class _Writer:
    """Writes one value, and reads back each line of it at once."""

    def __init__(self, chunk_bytes: int, same: Same) -> None:
        self.out: list[bytes] = []
        self._chunk_bytes = chunk_bytes
        self._field_bytes = chunk_bytes // _OPENED
        self._same = same
        self._above: set[int] = set()
        self._first = True  # whether what comes next is the first part of its container
        self._passed = 0

    def write(self, shape: Container, value: Any, name: bytes, depth: int) -> None:
        """Writes a container, over several lines."""
        if isinstance(shape, Record):
            grafts: Grafts = []
            text = self._write_record(shape, value, name, depth, (), grafts)
            back = shape.parse(text, depth)
            _graft(back, grafts)
            self._check(value, back)
            return
        self._open(value, name + shape.opening)
        count = len(value)
        parts = iter(shape.parts(value))
        if count <= _LOOKED_AT:
            self._write_looked_at(shape, parts, depth)
        else:
            self._write_many(shape, parts, depth)
        self._close(value, shape.closing)

    def is_worth_it(self, shape: Container, value: Any) -> bool:
        """Whether taking `value` apart makes it shorter: of a record, if a container in it can be taken apart."""
        if not isinstance(shape, Record):
            return True
        return any(
            self._opened(shape.fields[name], shape.get(value, name), self._field_bytes)
            for name in shape.names(value)
            if name in shape.fields
        )

    def _opened(self, place: Place, value: Any, least: int) -> Container | None:
        """How `value` is taken apart, if it is large enough, and that is worth it."""
        shape = place.shape_of(value)
        if shape is None or len(self._above) >= _DEPTH or estimated_bytes(value, least) < least:
            return None
        return shape if self.is_worth_it(shape, value) else None

    def _write_record(
        self, shape: Record, value: Any, name: bytes, depth: int, way: tuple[tuple[Record, str], ...], grafts: Grafts
    ) -> bytes:
        """Writes a record; gives its JSON with empty containers for those that were taken apart."""
        self._open(value, name + shape.opening)
        texts: list[bytes] = []
        run: list[str] = []
        size = 0

        def end_run() -> None:
            nonlocal size
            if run and (text := shape.dump(value, run)):  # nothing, if all of it is left out of JSON
                self._line(text)
                texts.append(text)
            run.clear()
            size = 0

        for field_name in shape.names(value):
            part = shape.get(value, field_name)
            place = shape.fields.get(field_name)
            inner = self._opened(place, part, self._field_bytes) if place else None
            if inner is None:
                run.append(field_name)
                size += estimated_bytes(part, self._chunk_bytes)
                if size >= self._chunk_bytes:
                    end_run()
                continue
            end_run()
            before = to_json(field_name) + b":"
            here = (*way, (shape, field_name))
            if isinstance(inner, Record):
                texts.append(before + self._write_record(inner, part, before, depth + 1, here, grafts))
            else:
                self.write(inner, part, before, depth + 1)
                texts.append(before + inner.opening + inner.closing)
                grafts.append((here, part))
        end_run()
        self._close(value, shape.closing)
        return b"{%b}" % b",".join(texts)

    def _write_looked_at(self, shape: Sequence | Dict, parts: Iterable[Any], depth: int) -> None:
        """Parts of which each may be large."""
        run: list[Any] = []
        size = 0
        for part in parts:
            inside = shape.inside(part)
            inner = self._opened(shape.item, inside, self._chunk_bytes)
            if inner is None:
                run.append(part)
                size += estimated_bytes(inside, self._chunk_bytes)
            if run and (inner is not None or size >= self._chunk_bytes):
                self._write_run(shape, run, depth)
                run, size = [], 0
            if inner is not None:
                name = shape.name(part)
                if name:
                    self._check(part[0], shape.key(name, depth))
                self.write(inner, inside, name, depth + 1)
        if run:
            self._write_run(shape, run, depth)

    def _write_many(self, shape: Sequence | Dict, parts: Iterator[Any], depth: int) -> None:
        """Parts so many that it would take too long to look at each: as many at a time as were a chunk before."""
        count = 1
        while run := list(islice(parts, count)):
            text = shape.dump(shape.gathered(run))
            if len(text) > 2 * self._chunk_bytes:
                self._write_looked_at(shape, run, depth)
            else:
                self._write_run(shape, run, depth, text)
            # With care: the next ones may be larger.
            count = max(1, min(4 * count, count * self._chunk_bytes // (len(text) + 1)))

    def _write_run(self, shape: Sequence | Dict, run: list[Any], depth: int, text: bytes | None = None) -> None:
        gathered = shape.gathered(run)
        text = shape.dump(gathered) if text is None else text
        self._line(text)
        self._check(gathered, shape.parse(text, depth))

    def _check(self, value: Any, back: Any) -> None:
        if not self._same(value, back):
            raise LayoutError("it does not come back")

    def _open(self, value: Any, text: bytes) -> None:
        if id(value) in self._above:
            raise LayoutError("it contains itself")
        self._above.add(id(value))
        self._line(text)
        self._first = True

    def _close(self, value: Any, text: bytes) -> None:
        if self._first:
            raise LayoutError("a container without parts")
        self._above.remove(id(value))
        self.out += (b"\n", text)

    def _line(self, text: bytes) -> None:
        if not text or len(text) > LONGEST * self._chunk_bytes:
            raise LayoutError("a line is empty, or longer than lines are")
        if self.out:
            self.out.append(b"\n" if self._first else b",\n")
        self.out.append(text)
        self._first = False
        self._passed = give_way(self._passed + len(text))


class _Reader:
    """Reads what a `_Writer` wrote."""

    def __init__(self, data: bytes | bytearray, chunk_bytes: int) -> None:
        self._lines = _lines_in(data, LONGEST * chunk_bytes, chunk_bytes // 256)

    def read(self, place: Place) -> Any:
        """All of it."""
        bracket, more = next(self._lines)
        if more:
            raise LayoutError("it begins with a comma")
        shape = place.shape_opened_by(bytes(bracket))
        value, more = self._container(shape, 0)
        if more or next(self._lines, None) is not None:
            raise LayoutError("something follows its end")
        return value

    def _container(self, shape: Container, depth: int) -> tuple[Any, bool]:
        """A container whose first line has been read, and whether a comma follows it."""
        if depth >= _DEPTH:
            raise LayoutError("it is nested deeper than is written")
        if isinstance(shape, Record):
            grafts: Grafts = []
            text, more = self._record(shape, depth, (), grafts)
            value = shape.parse(text, depth)
            _graft(value, grafts)
            return value, more
        found = shape.new()
        due = True  # whether a part must come next, or else the end
        for text, comma in self._lines:
            if text == shape.closing and not due:
                return shape.done(found), comma
            if not due:
                raise LayoutError("a comma is missing")
            if text[-1:] in _BRACKETS and not comma:
                part, due = self._container(shape.item.shape_opened_by(bytes(text[-1:])), depth + 1)
                shape.add(found, shape.key(bytes(text[:-1]), depth), part)
            elif run := shape.parse(text, depth):
                shape.extend(found, run)
                due = comma
            else:
                raise LayoutError("a line without parts")
        raise LayoutError("it ends early")

    def _record(
        self, shape: Record, depth: int, way: tuple[tuple[Record, str], ...], grafts: Grafts
    ) -> tuple[bytes, bool]:
        """The JSON of a record, with empty containers for those over several lines, and whether a comma follows it."""
        texts: list[Text] = []
        opened: set[str] = set()
        others: set[str] = set()
        due = True
        for text, comma in self._lines:
            if text == b"}" and not due:
                if others & (opened | {shape.aliases[name] for name in opened}):
                    raise LayoutError("a name comes twice")
                return b"{%b}" % b",".join(texts), comma
            if not due:
                raise LayoutError("a comma is missing")
            if text[-1:] in _BRACKETS and not comma:
                before, bracket = bytes(text[:-1]), bytes(text[-1:])
                name = from_json(before.removesuffix(b":"))
                if name in opened or before != to_json(name) + b":":
                    raise LayoutError("a name is missing, or comes twice")
                opened.add(name)
                inner = shape.fields[name].shape_opened_by(bracket)
                here = (*way, (shape, name))
                if isinstance(inner, Record):
                    inside, due = self._record(inner, depth + 1, here, grafts)
                    texts.append(before + inside)
                else:
                    part, due = self._container(inner, depth + 1)
                    texts.append(before + inner.opening + inner.closing)
                    grafts.append((here, part))
            else:
                others |= from_json(b"{%b}" % text).keys()  # one or more whole fields, and nothing else
                texts.append(text)
                due = comma
        raise LayoutError("it ends early")


def give_way(passed: int) -> int:
    """Lets other threads have their turn after each chunk. `passed`, and the result: bytes since the last time.

    A thread that only wants the interpreter for a moment, as an event loop does, would else wait for 5 ms each time.
    """
    if passed < CHUNK_BYTES:
        return passed
    time.sleep(_MOMENT_S)
    return 0


def _lines_in(data: bytes | bytearray, longest: int, average: int) -> Iterator[tuple[Text, bool]]:
    """The lines of `data`, one at a time, without the comma at the end, and whether there is one. No copies.

    Not if they are longer than `longest`, nor if they are many and shorter than `average`: line by line, a body of
    nothing but line breaks would take minutes.
    """
    view = memoryview(data)
    start = passed = count = 0
    while start <= len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        comma = end > start and data[end - 1] == _COMMA
        if end - comma - start > longest:
            raise LayoutError("a line is longer than lines are")
        count += 1
        if count > _MANY and end < count * average:
            raise LayoutError("the lines are shorter than lines are")
        yield view[start : end - comma], comma
        passed = give_way(passed + end - start)
        start = end + 1
