"""Threads moved from one LangGraph saver to another, whatever they are: checkpoints, writes, namespaces.

Through the interface of savers alone, by its sync methods, which all of LangGraph's savers have for other threads than
their own. What that interface does not show of a pending write, its task path, is not carried over; the order of the
writes, for which it is kept, is.

With an `OpaqueSerializer` on both sides no type of the values is imported, and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from s3_checkpoint.errors import InvalidArgumentError, StateDecodingError
from s3_checkpoint.langgraph.langgraph_internals import SNAPSHOT_CODE, is_snapshot, new_snapshot
from s3_checkpoint.langgraph.place import Place

THREADS_AT_ONCE = 8
OnProgress = Callable[[int, int], None]
"""Told how many checkpoints are done, and of how many; from several threads."""


@dataclass(frozen=True, slots=True)
class CopiedThreads:
    """What `copy_threads` copied; of a dry run, what there is to copy."""

    threads: int
    namespaces: int
    checkpoints: int
    """Checkpoints of the source, those that were there before included."""
    writes: int
    """Pending writes of them."""
    there_before: int
    """Checkpoints that the target had, and that were read back equal."""
    dry_run: bool


@dataclass(slots=True)
class _Thread:
    """The checkpoints of a thread, by namespace and id."""

    id: str
    found: list[tuple[str, str]] = field(default_factory=list)
    """(checkpoint id, namespace)"""
    writes: int = 0


def copy_threads(
    source: BaseCheckpointSaver[Any],
    target: BaseCheckpointSaver[Any],
    *,
    threads: Collection[str] | None = None,
    dry_run: bool = False,
    threads_at_once: int = THREADS_AT_ONCE,
    on_progress: OnProgress | None = None,
) -> CopiedThreads:
    """Every checkpoint of the source is in the target, with its pending writes, in its namespace, and reads back equal.

    The oldest checkpoint of a thread goes first, so that what is cut short is the thread as it was earlier; calling
    again completes it, and writes nothing that is there and equal. The source is not changed. Values go through the
    serializers of both savers: their types must be importable, or both have an `OpaqueSerializer`. Stop the threads'
    workers: what they put while it runs may be missing. Blocks; in an event loop, call it with `asyncio.to_thread`.

    Requests:
        To an `S3Saver`, per checkpoint: those of `put`, of `put_writes` for each task with pending writes, and of
        `get_tuple` to read it back (with a cache its LIST alone, where the ETag proves what is there); of `get_tuple`
        before, in threads that the target has.

    Args:
        source: Any saver of LangGraph's interface; all its checkpoints are listed once, and read once more.
        target: Another one.
        threads: Only these ids; default: all.
        dry_run: Count only; nothing is written, nor read of the target.
        threads_at_once: Threads copied at the same time, 1 ….
        on_progress: Told after each checkpoint.

    Raises:
        InvalidArgumentError: `threads_at_once` is out of bounds, or source and target are one saver.
        StateDecodingError: A checkpoint of the source cannot be read by its serializer: it is encrypted, say. Or what
            is read back from the target differs: the message names the checkpoint and what differs. What was copied
            until then stays.
    """
    if type(threads_at_once) is not int or threads_at_once < 1:
        raise InvalidArgumentError("threads_at_once", repr(threads_at_once)[:80], "must be an int of 1 or more")
    if source is target:
        raise InvalidArgumentError("target", "", "is the source")
    found = _threads_of(source, threads)
    total = sum(len(thread.found) for thread in found)
    namespaces = sum(len({namespace for _, namespace in thread.found}) for thread in found)
    if dry_run:
        return CopiedThreads(len(found), namespaces, total, sum(thread.writes for thread in found), 0, dry_run=True)
    checkpoints = writes = there_before = 0

    def done(its_writes: int, *, was_there: bool) -> None:
        nonlocal checkpoints, writes, there_before
        checkpoints += 1
        writes += its_writes
        there_before += was_there
        if on_progress is not None:
            on_progress(checkpoints, total)

    with ThreadPoolExecutor(threads_at_once, thread_name_prefix="s3-checkpoint-copy") as pool:
        copies = [pool.submit(_copy, source, target, thread, done) for thread in found]
        try:
            finished, _ = wait(copies, return_when=FIRST_EXCEPTION)
            for copy in finished:
                copy.result()
        finally:
            for copy in copies:
                copy.cancel()
    return CopiedThreads(len(found), namespaces, checkpoints, writes, there_before, dry_run=False)


def _threads_of(source: BaseCheckpointSaver[Any], wanted: Collection[str] | None) -> list[_Thread]:
    """What there is to copy, by thread."""
    found: dict[str, _Thread] = {}
    configs: Sequence[RunnableConfig | None] = (
        [None] if wanted is None else [{"configurable": {"thread_id": one}} for one in dict.fromkeys(wanted)]
    )
    for config in configs:
        for one in source.list(config):
            place = Place.of(one.config)
            thread = found.setdefault(place.thread_id, _Thread(place.thread_id))
            thread.found.append((str(place.checkpoint_id), place.namespace))
            thread.writes += len(one.pending_writes or ())
    for thread in found.values():
        thread.found.sort()
    return list(found.values())


def _copy(
    source: BaseCheckpointSaver[Any], target: BaseCheckpointSaver[Any], thread: _Thread, done: Callable[..., None]
) -> None:
    versions: dict[tuple[str, str], Mapping[str, Any]] = {}
    """Of checkpoints that are in the target: their channel versions."""
    begun: dict[str, bool] = {}
    """Whether the target has something of a namespace."""
    for checkpoint_id, namespace in thread.found:
        config = Place(thread.id, namespace, checkpoint_id).config
        original = source.get_tuple(config)
        if original is None:
            continue  # deleted since it was listed
        fields: Any = original.checkpoint  # an `OpaqueSerializer` gives something else for what it does not look into
        if not isinstance(fields, dict):
            tag = getattr(fields, "tag", type(fields).__name__)
            reason = f"its serializer cannot read the checkpoint ({tag}): it is encrypted, or of an old format"
            raise StateDecodingError(type(source).__name__, f"{thread.id}/{namespace}/{checkpoint_id}", reason)
        if namespace not in begun:
            begun[namespace] = target.get_tuple(Place(thread.id, namespace, None).config) is not None
        there = target.get_tuple(config) if begun[namespace] else None
        there_before = there is not None and _difference(original, there, target.serde) is None
        if not there_before:
            _put(target, original, versions)
            differs = _difference(original, target.get_tuple(config), target.serde)
            if differs is not None:
                reason = f"{differs} reads back from the target as something else than it is in the source"
                raise StateDecodingError(type(target).__name__, f"{thread.id}/{namespace}/{checkpoint_id}", reason)
        versions[namespace, checkpoint_id] = original.checkpoint["channel_versions"]
        done(len(original.pending_writes or ()), was_there=there_before)


def _put(
    target: BaseCheckpointSaver[Any], original: CheckpointTuple, known: Mapping[tuple[str, str], Mapping[str, Any]]
) -> None:
    parent = Place.of(original.config)._replace(checkpoint_id=_parent_id(original))
    before = known.get((parent.namespace, str(parent.checkpoint_id)), {})
    versions = original.checkpoint["channel_versions"]
    # What has the parent's version has its value in the target, where savers keep values by version.
    new = {channel: version for channel, version in versions.items() if before.get(channel) != version}
    config = target.put(parent.config, original.checkpoint, original.metadata, new)
    by_task = _by_task(original)
    in_order = [*by_task] == sorted(by_task)
    for number, (task_id, writes) in enumerate(by_task.items()):
        # Savers order writes by task path, then task: only where the tasks are in another order does a path say so.
        target.put_writes(config, writes, task_id, "" if in_order else f"~copied, {number:010d}")


def _by_task(one: CheckpointTuple) -> dict[str, list[tuple[str, Any]]]:
    found: dict[str, list[tuple[str, Any]]] = {}
    for task_id, channel, value in one.pending_writes or ():
        found.setdefault(task_id, []).append((channel, value))
    return found


def _difference(original: CheckpointTuple, copy: CheckpointTuple | None, serde: SerializerProtocol) -> str | None:
    """The path of the first thing that differs; None if nothing does."""
    if copy is None:
        return "$"
    comparing = serde.serde if isinstance(serde, EncryptedSerializer) else serde
    for path, one, other in _sides(original, copy):
        if not _same(one, other, comparing):
            return path
    return None


def _sides(original: CheckpointTuple, copy: CheckpointTuple) -> Iterator[tuple[str, Any, Any]]:
    yield "$parent", _parent_id(original), _parent_id(copy)
    yield "$metadata", dict(original.metadata), dict(copy.metadata)
    first, second = dict(original.checkpoint), dict(copy.checkpoint)
    values, others = dict(first.pop("channel_values")), dict(second.pop("channel_values"))  # type: ignore[call-overload]
    yield "$checkpoint", first, second
    for channel in original.checkpoint["channel_versions"]:
        if channel not in values and is_snapshot(others.get(channel)):
            continue  # savers that keep values by version show a snapshot in later checkpoints of the same version too
        yield f"$.{channel}", channel in values, channel in others
        yield f"$.{channel}", values.get(channel), others.get(channel)
    written, again = _by_task(original), _by_task(copy)
    yield "$writes", [*written], [*again]
    for task_id, writes in written.items():
        yield f"$writes.{task_id}", writes, again[task_id]


def _parent_id(one: CheckpointTuple) -> Any:
    return one.parent_config["configurable"].get("checkpoint_id") if one.parent_config else None


def _same(one: Any, other: Any, serde: SerializerProtocol) -> bool:
    """Whether both are equal, or would be stored as the same bytes: not all types know equality."""
    try:
        equal = bool(one == other)
    except Exception:  # noqa: BLE001 - an array's equality is no truth value
        equal = False
    try:
        return equal or serde.dumps_typed(one) == serde.dumps_typed(other)
    except Exception:  # noqa: BLE001 - what one side holds cannot be stored at all
        return False


@dataclass(frozen=True, slots=True, repr=False)
class OpaqueValue:
    """A value of a type that is not looked into: a msgpack extension by its code."""

    code: int
    body: bytes


@dataclass(frozen=True, slots=True, repr=False)
class OpaquePayload:
    """A payload that is not looked into, by its tag."""

    tag: str
    body: bytes


class OpaqueSerializer(SerializerProtocol):
    """Carries values from saver to saver as they are stored.

    LangGraph's msgpack is read as far as dicts, lists, text and numbers go; every other value is kept as its bytes, and
    written again, these are the same bytes. A payload under any other tag, an encrypted one for instance, is kept
    whole. Delta snapshots alone are what they are: a saver has to know them.
    """

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
    option = ormsgpack.OPT_NON_STR_KEYS | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    return ormsgpack.packb(value, default=_extension, option=option)


def _unpacked(body: bytes) -> Any:
    return ormsgpack.unpackb(body, ext_hook=_opaque, option=ormsgpack.OPT_NON_STR_KEYS)


def _opaque(code: int, body: bytes) -> Any:
    return new_snapshot(_unpacked(body)) if code == SNAPSHOT_CODE else OpaqueValue(code, body)


def _extension(value: Any) -> ormsgpack.Ext:
    if isinstance(value, OpaqueValue):
        return ormsgpack.Ext(value.code, value.body)
    if is_snapshot(value):
        return ormsgpack.Ext(SNAPSHOT_CODE, _packed(value.value))
    raise TypeError(f"{type(value).__name__} is no value that was read so")
