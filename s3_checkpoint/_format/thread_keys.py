"""The key grammar of conversation threads, as the LangGraph saver keeps them. Pure; build and parse side by side.

    [<prefix>/]threads/<thread>/<namespace>/<checkpoint>/c.<run>[.<value>…]   a checkpoint
    [<prefix>/]threads/<thread>/<namespace>/<checkpoint>/d[<n>].<run>[.<value>…]   with delta channels: needs ancestors
    [<prefix>/]threads/<thread>/<namespace>/<checkpoint>/w.<task>.r<slot>     pending writes of a task
    [<prefix>/]threads/<thread>/<namespace>/<checkpoint>/w.<task>.s<slot>     special ones: error, interrupt, resume
    [<prefix>/]threads/<thread>/<namespace>/values/<value>                    a large channel value
    [<prefix>/]threads/<thread>/id                                            the thread id, where its segment is hashed
    [<prefix>/]threads/<thread>/lease.json                                    who works on it, if leases are used
    [<prefix>/]threads/!runs/<run>/<thread>/<namespace>                       empty: this run has checkpoints there

`thread`, `namespace` and `task` are percent-encoded, `/` and `.` included; too long ones are hashed (`!` and a
SHA-256), and the empty one is `!`. `checkpoint` is the id with every UTF-8 byte complemented, in hexadecimal, ended by
`z`: the byte order of keys is newest first. `run` is a hash of the run id, or `-`. `value` begins with a hash of
channel, version and content, and ends with one of the write. Behind a delta channel's snapshot are `s` and a hash of
the channel, in the checkpoint's key alone. `n` tells of how many ancestors, the nearest ones, it holds copies of what
they wrote to delta channels. `slot` numbers the calls that wrote for one task; the highest holds everything of its
kind. Why: docs/design/0005-langgraph-keys.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from s3_checkpoint._format.key_families import THREADS
from s3_checkpoint._format.keys import MAX_KEY_BYTES, decode_segment, encode_segment, join_prefix
from s3_checkpoint.errors import InvalidArgumentError

MAX_CHECKPOINT_ID_BYTES = 64
MAX_PREFIX_BYTES = 400
MAX_VALUES = 32
"""The most large values one checkpoint refers to; its key names them."""
MAX_COVERS = 4096
"""The most ancestors whose delta writes one checkpoint holds."""
NO_RUN = "-"
_RUNS = "!runs"
"""No thread's segment: that of none begins so."""

_THREAD_BYTES, _NAMESPACE_BYTES, _TASK_BYTES = 128, 256, 80
_RUN_DIGITS, _VALUE_DIGITS, _CHANNEL_DIGITS, _SLOT_DIGITS = 24, 32, 8, 6
_CONTENT_DIGITS = 20
"""Of a value's name, those that tell its content; the others tell one write of it from all other writes."""
_COMPLEMENT = bytes(255 - byte for byte in range(256))

_DIRECTORY = re.compile(r"(?P<newest_first>(?:[0-9a-f]{2})+z)/")
_HEAD = re.compile(
    rf"(?:c|(?P<needs>d)(?P<covers>[1-9][0-9]{{0,3}})?)\.(?P<run>-|[0-9a-f]{{{_RUN_DIGITS}}})"
    rf"(?P<values>(?:\.[0-9a-f]{{{_VALUE_DIGITS}}}(?:s[0-9a-f]{{{_CHANNEL_DIGITS}}})?)*)"
)
_VALUE = re.compile(rf"[0-9a-f]{{{_VALUE_DIGITS}}}")
_WRITES = re.compile(rf"w\.(?P<task>[^./]+)\.(?P<kind>[rs])(?P<slot>[0-9]{{{_SLOT_DIGITS}}})")

WritesKind = Literal["r", "s"]
"""`r`: index 0 and up, the first write of an index stays. `s`: special, below 0, the last one stays."""


def bounded_segment(what: str, text: str, longest: int) -> str:
    """`text` as one key segment of at most `longest` bytes, or 65 where it is hashed; `what` names it in errors."""
    try:
        segment = encode_segment(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(what, error.value, error.reason) from None
    if not segment:
        return "!"
    if len(segment) <= longest:
        return segment
    return f"!{hashlib.sha256(text.encode()).hexdigest()}"


def is_hashed(segment: str) -> bool:
    """Whether the text cannot be read back from this segment."""
    return len(segment) > 1 and segment.startswith("!")


def parse_segment(segment: str) -> str | None:
    """The text of a segment; None if it is hashed or no segment of ours."""
    return "" if segment == "!" else decode_segment(segment)


def newest_first(checkpoint_id: str) -> str:
    """The id as a key segment; greater ids give lesser segments. `InvalidArgumentError` if empty or over 64 bytes."""
    try:
        raw = checkpoint_id.encode()
    except UnicodeEncodeError:
        raw = b""
    if not 0 < len(raw) <= MAX_CHECKPOINT_ID_BYTES:
        raise InvalidArgumentError(
            "checkpoint_id", ascii(checkpoint_id)[:80], f"must be text of 1 … {MAX_CHECKPOINT_ID_BYTES} UTF-8 bytes"
        )
    return f"{raw.translate(_COMPLEMENT).hex()}z"


def parse_newest_first(segment: str) -> str | None:
    """The checkpoint id of a segment that `newest_first` made; None for any other."""
    try:
        text = bytes.fromhex(segment[:-1]).translate(_COMPLEMENT).decode()
        return text if newest_first(text) == segment else None
    except (ValueError, InvalidArgumentError):
        return None


def run_segment(run_id: str) -> str:
    """A run id as it is in keys."""
    return hashlib.sha256(run_id.encode(errors="surrogatepass")).hexdigest()[:_RUN_DIGITS]


def value_name(channel: str, version: object, tag: str, body: bytes) -> str:
    """A large value as digits. They cover the content: forks that count versions alike do not share by accident."""
    digest = hashlib.sha256()
    for part in (channel, repr(version), tag):
        digest.update(part.encode(errors="surrogatepass") + b"\0")
    digest.update(body)
    return digest.hexdigest()[:_VALUE_DIGITS]


def object_name(value: str, write_id: str) -> str:
    """The name under which one write stores a value. `value`: its `value_name`, or its name after another write."""
    write = hashlib.sha256(write_id.encode(errors="surrogatepass")).hexdigest()
    return value[:_CONTENT_DIGITS] + write[: _VALUE_DIGITS - _CONTENT_DIGITS]


def is_same_value(name: str, other: str) -> bool:
    """Whether two names are of the same content, whichever write stored it."""
    return name[:_CONTENT_DIGITS] == other[:_CONTENT_DIGITS]


def channel_segment(channel: str) -> str:
    """A delta channel as it is in keys. Two that share it are kept as one is: too much, never too little."""
    return hashlib.sha256(channel.encode(errors="surrogatepass")).hexdigest()[:_CHANNEL_DIGITS]


@dataclass(frozen=True, slots=True)
class Head:
    """What the key of a checkpoint tells without reading it."""

    name: str
    run: str
    values: tuple[str, ...]
    """The large values it refers to, by name."""
    snapshots: Mapping[str, str]
    """Those of them that are snapshots of delta channels, by the channel's segment."""
    needs_ancestors: bool
    covers: int = 0
    """Of how many ancestors, the nearest ones, it holds the delta writes itself."""


def head_name(run: str, values: Mapping[str, str | None], *, needs_ancestors: bool, covers: int = 0) -> str:
    """The last part of a checkpoint's key. `values`: each by name, with its channel's segment if it is a snapshot."""
    kind = f"d{covers or ''}" if needs_ancestors else "c"
    marked = (f"{value}s{channel}" if channel else value for value, channel in values.items())
    return ".".join((kind, run, *marked))


def parse_head(name: str) -> Head | None:
    """What `head_name` put together; None for anything else."""
    match = _HEAD.fullmatch(name)
    if match is None:
        return None
    values = [value.partition("s") for value in match["values"].split(".")[1:]]
    snapshots = {channel: value for value, _, channel in values if channel}
    names = tuple(value for value, _, _ in values)
    return Head(name, match["run"], names, snapshots, match["needs"] is not None, int(match["covers"] or 0))


def with_values(name: str, names: Mapping[str, str]) -> str:
    """The last part of a checkpoint's key, referring to other `names` of the same values."""
    kind, run, *values = name.split(".")
    return ".".join((kind, run, *(names[value[:_VALUE_DIGITS]] + value[_VALUE_DIGITS:] for value in values)))


@dataclass(frozen=True, slots=True)
class WritesName:
    """The last part of the key of a task's writes."""

    task: str
    kind: WritesKind
    slot: int

    def __str__(self) -> str:
        return f"w.{self.task}.{self.kind}{self.slot:0{_SLOT_DIGITS}d}"

    @classmethod
    def first(cls, task_id: str, kind: WritesKind) -> WritesName:
        """Where the first call for a task writes."""
        return cls(bounded_segment("task_id", task_id, _TASK_BYTES), kind, 0)

    @classmethod
    def parse(cls, name: str) -> WritesName | None:
        """What `str` made; None for anything else."""
        match = _WRITES.fullmatch(name)
        if match is None:
            return None
        return cls(match["task"], "r" if match["kind"] == "r" else "s", int(match["slot"]))


@dataclass(frozen=True, slots=True)
class NamespaceKeys:
    """The keys of one namespace of a thread. `thread` and `segment` are encoded."""

    prefix: str
    thread: str
    segment: str

    @property
    def root(self) -> str:
        """Everything of this namespace begins with this, newest checkpoint first."""
        return f"{threads_prefix(self.prefix)}{self.thread}/{self.segment}/"

    def directory(self, checkpoint_id: str) -> str:
        """The checkpoint and its pending writes are under this, and nothing else."""
        return f"{self.root}{newest_first(checkpoint_id)}/"

    def after(self, checkpoint_id: str) -> str:
        """Greater than every key of this checkpoint, less than those of any older one: where to list from."""
        return f"{self.root}{newest_first(checkpoint_id)}0"  # `0` follows `/`

    def value(self, name: str) -> str:
        """A large channel value."""
        return f"{self.root}values/{name}"

    def parse_value(self, key: str) -> str | None:
        """The name of the large value with this key; None for any other key."""
        head, _, name = key.rpartition("/")
        return name if head == f"{self.root}values" and _VALUE.fullmatch(name) else None

    def run(self, run: str) -> str:
        """The entry that leads from a run to this namespace."""
        return f"{run_prefix(self.prefix, run)}{self.thread}/{self.segment}"

    def most_values(self, checkpoint_id: str) -> int:
        """How many large values the checkpoint's key has room to name."""
        without = head_name("0" * _RUN_DIGITS, {}, needs_ancestors=True, covers=MAX_COVERS)
        room = MAX_KEY_BYTES - len((self.directory(checkpoint_id) + without).encode())
        return min(MAX_VALUES, room // (_VALUE_DIGITS + _CHANNEL_DIGITS + 2))

    def parse(self, key: str) -> tuple[str, str] | None:
        """Checkpoint id and name of a key under a checkpoint of this namespace; None for any other key."""
        match = _DIRECTORY.match(key, len(self.root)) if key.startswith(self.root) else None
        checkpoint_id = parse_newest_first(match["newest_first"]) if match else None
        if match is None or checkpoint_id is None:
            return None
        return checkpoint_id, key[match.end() :]


@dataclass(frozen=True, slots=True)
class ThreadKeys:
    """The keys of one thread. `segment` is its encoded id."""

    prefix: str
    segment: str

    @classmethod
    def of(cls, prefix: str, thread_id: str) -> ThreadKeys:
        """The keys of the thread with this id."""
        return cls(prefix, bounded_segment("thread_id", thread_id, _THREAD_BYTES))

    @property
    def root(self) -> str:
        """Everything of this thread begins with this."""
        return f"{threads_prefix(self.prefix)}{self.segment}/"

    @property
    def id(self) -> str:
        """The thread id itself, written where the segment is hashed."""
        return f"{self.root}id"

    @property
    def lease(self) -> str:
        """The lease on the thread. No namespace is called so: in their segments, `.` is encoded."""
        return f"{self.root}lease.json"

    def namespace(self, namespace: str) -> NamespaceKeys:
        """The keys of one of its namespaces; the root graph's is empty."""
        return NamespaceKeys(self.prefix, self.segment, bounded_segment("checkpoint_ns", namespace, _NAMESPACE_BYTES))


def threads_prefix(prefix: str) -> str:
    """The prefix of all threads."""
    return f"{join_prefix(prefix)}{THREADS}/"


def run_prefix(prefix: str, run: str) -> str:
    """The entries of one run are under this."""
    return f"{threads_prefix(prefix)}{_RUNS}/{run}/"


def parse_run_entry(prefix: str, run: str, key: str) -> NamespaceKeys | None:
    """The namespace that an entry of a run leads to; None for any other key."""
    head = run_prefix(prefix, run)
    thread, _, namespace = key[len(head) :].partition("/")
    if not (key.startswith(head) and thread and namespace and "/" not in namespace):
        return None
    return NamespaceKeys(prefix, thread, namespace)


def parse_namespace(prefix: str, key: str) -> NamespaceKeys | None:
    """The namespace that a key under `threads_prefix` belongs to; None if it belongs to none."""
    head = threads_prefix(prefix)
    parts = key[len(head) :].split("/", 2)
    if not key.startswith(head) or len(parts) < 3 or not (parts[0] and parts[1]) or parts[0] == _RUNS:
        return None
    return NamespaceKeys(prefix, parts[0], parts[1])


def parse_thread(prefix: str, key: str) -> str | None:
    """The segment of the thread that a key, or a common prefix of keys, belongs to; None for any other."""
    head = threads_prefix(prefix)
    segment, slash, _ = key[len(head) :].partition("/")
    return segment if key.startswith(head) and segment and slash and segment != _RUNS else None


def check_prefix(prefix: str) -> str:
    """The prefix, if keys under it stay within S3's 1,024 bytes; `InvalidArgumentError` otherwise."""
    stripped = prefix.strip("/")
    if len(stripped.encode(errors="surrogatepass")) > MAX_PREFIX_BYTES:
        raise InvalidArgumentError("prefix", ascii(prefix)[:80], f"must be at most {MAX_PREFIX_BYTES} bytes")
    return stripped
