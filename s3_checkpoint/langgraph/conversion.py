"""LangGraph's checkpoints and writes ↔ records and payloads, through the saver's serializer.

Runs in the caller's thread: neither encoding nor decoding holds up the requests of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from s3_checkpoint._format.thread_keys import (
    NO_RUN,
    NamespaceKeys,
    channel_segment,
    head_name,
    object_name,
    run_segment,
    value_name,
)
from s3_checkpoint.errors import StateDecodingError, StateEncodingError
from s3_checkpoint.langgraph.chunked_payloads import dump_payload, load_payload
from s3_checkpoint.langgraph.delta_channels import DeltaChain, Lineage
from s3_checkpoint.langgraph.known_values import KnownValue
from s3_checkpoint.langgraph.langgraph_internals import is_snapshot
from s3_checkpoint.langgraph.place import Place
from s3_checkpoint.langgraph.records import (
    CheckpointRecord,
    Payload,
    ValueRef,
    WriteRow,
    WritesRecord,
    applied,
    nanoseconds,
)
from s3_checkpoint.langgraph.thread_store import EncodedCheckpoint, StoredCheckpoint

DELTA_COUNTERS = "counters_since_delta_snapshot"


@dataclass(frozen=True, slots=True)
class Conversion:
    """Encodes and decodes for one call; made for each, since the serializer of a saver can be replaced."""

    serde: SerializerProtocol
    bucket: str
    inline_bytes: int
    max_bytes: int

    def encode(
        self,
        keys: NamespaceKeys,
        parent: Place,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        known: Mapping[str, KnownValue],
        *,
        write_id: str,
        now: datetime,
        lineage: Lineage,
        again: Mapping[str, Payload | None],
    ) -> tuple[EncodedCheckpoint, dict[str, KnownValue]]:
        """The checkpoint with new large values, and all it refers to.

        `known`: what its parent refers to. `again`: the channels of which that is gone; they are stored again, from the
        checkpoint, or as the payload given where the checkpoint leaves them out. `lineage`: what its ancestors have
        written to delta channels; left out where each of these has its value in the checkpoint.
        """
        checkpoint_id = str(checkpoint["id"])
        inline: dict[str, Payload] = {}
        refs: dict[str, KnownValue] = {}
        large: list[tuple[str, Any, Payload]] = []
        room = keys.most_values(checkpoint_id)
        values = checkpoint["channel_values"]
        for channel, version in checkpoint["channel_versions"].items():
            before = known.get(channel)
            if (
                before is not None
                and before.ref.version == version
                and channel not in new_versions
                and channel not in again
                and (before.seen is not None or channel not in values)
                and len(refs) < room
            ):
                # A delta channel leaves its snapshot out of later checkpoints; of the same version, it still counts.
                if channel in values or before.delta:
                    refs[channel] = before
            elif channel in values:
                payload = self._dump(f"$.channel_values.{channel}", values[channel])
                if len(payload[1]) >= self.inline_bytes or is_snapshot(values[channel]):
                    large.append((channel, version, payload))
                else:
                    inline[channel] = payload
            elif (left_out := again.get(channel)) is not None:
                large.append((channel, version, left_out))
        new: dict[str, bytes] = {}
        for channel, version, payload in sorted(large, key=lambda item: len(item[2][1]), reverse=True):
            if len(refs) < room:
                digest = value_name(channel, version, *payload)
                ref = ValueRef(object_name(digest, write_id), payload[0], version, digest, checkpoint_id)
                is_delta = channel not in values or is_snapshot(values[channel])
                refs[channel] = KnownValue(ref, is_delta, None)
                new[ref.name] = payload[1]
                self._check_size(f"$.channel_values.{channel}", len(payload[1]))
            else:
                inline[channel] = payload
        unseeded = _unseeded(metadata, checkpoint, inline.keys() | refs.keys())
        if not unseeded:
            lineage = Lineage()
        record = CheckpointRecord(
            id=checkpoint_id,
            namespace=parent.namespace,
            parent=parent.checkpoint_id,
            saved_at_ns=nanoseconds(now),
            checkpoint=self._dump("$", {key: value for key, value in checkpoint.items() if key != "channel_values"}),
            metadata=self._dump("$metadata", metadata),
            inline=inline,
            values={channel: value.ref for channel, value in refs.items()},
            depth=lineage.depth,
            copies=lineage.copies,
        )
        body = record.encode()
        self._check_size("$", len(body))
        run_id = metadata.get("run_id")
        run = run_segment(str(run_id)) if run_id else NO_RUN
        names = {value.ref.name: channel_segment(channel) if value.delta else None for channel, value in refs.items()}
        name = head_name(run, names, needs_ancestors=bool(unseeded), covers=len(lineage.copies))
        reused = {value.ref.name: value.seen for value in refs.values() if value.ref.name not in new}
        return EncodedCheckpoint(parent.thread_id, checkpoint_id, name, body, run, new, reused, record), refs

    def encode_writes(self, writes: Iterable[Sequence[Any]], task_path: str) -> list[WriteRow]:
        """Writes as rows: special channels have an index of their own, the others that of their position."""
        return [
            WriteRow(
                WRITES_IDX_MAP.get(channel, position),
                channel,
                task_path,
                self._dump(f"$writes[{position}].{channel}", value),
            )
            for position, (channel, value) in enumerate(writes)
        ]

    def decode(self, thread_id: str, stored: StoredCheckpoint) -> tuple[CheckpointTuple, dict[str, KnownValue]]:
        """The tuple, its writes in the order of (task path, task id, index); and the large values it refers to."""
        record, key = stored.record, stored.key
        fields = self._load(key, record.checkpoint)
        if not isinstance(fields, dict):
            raise StateDecodingError(self.bucket, key, "what the serializer makes of the checkpoint is no dict")
        versions = fields.get("channel_versions", {})
        values = {channel: self._load(key, payload) for channel, payload in record.inline.items()}
        known: dict[str, KnownValue] = {}
        for channel, ref in record.values.items():
            values[channel] = self._load_value(stored.keys, channel, ref, stored.values)
            known[channel] = KnownValue(ref, is_snapshot(values[channel]), stored.seen.get(ref.name))
        place = Place(thread_id, record.namespace, record.id)
        parent = place._replace(checkpoint_id=record.parent).config if record.parent else None
        # The order of channels is the checkpoint's own.
        ordered = {channel: values[channel] for channel in versions if channel in values}
        checkpoint = cast("Checkpoint", {**fields, "channel_values": ordered})
        writes = self.decode_writes(key, stored.writes)
        return CheckpointTuple(place.config, checkpoint, self.decode_metadata(key, record), parent, writes), known

    def decode_metadata(self, key: str, record: CheckpointRecord) -> CheckpointMetadata:
        """The metadata of a checkpoint."""
        return cast("CheckpointMetadata", self._load(key, record.metadata))

    def decode_writes(
        self, key: str, records: Iterable[WritesRecord], channels: frozenset[str] | None = None
    ) -> list[PendingWrite]:
        """The pending writes, in the order in which a run applies them; only those to `channels`, where given."""
        return [
            (task_id, row.channel, self._load(key, row.payload))
            for task_id, row in applied(records)
            if channels is None or row.channel in channels
        ]

    def unseeded(self, key: str, record: CheckpointRecord) -> frozenset[str]:
        """The delta channels that have been written to, and have no value of their own in this checkpoint."""
        fields = self._load(key, record.checkpoint)
        return frozenset(
            _unseeded(self.decode_metadata(key, record), fields, record.inline.keys() | record.values.keys())
        )

    def decode_history(self, chain: DeltaChain, channel: str) -> DeltaChannelHistory:
        """What a delta channel is rebuilt from: its writes, oldest first, and its seed where there is one."""
        newest_first: list[list[PendingWrite]] = []
        seed: list[Any] = []
        for ancestor in chain.ancestors:
            key, record = ancestor.key, ancestor.record
            # A value is that before the writes stored beside it, so these count even where the value is.
            newest_first.append(self.decode_writes(key, ancestor.writes, frozenset((channel,))))
            if channel in record.inline:
                seed.append(self._load(key, record.inline[channel]))
            elif channel in record.values:
                seed.append(self._load_value(ancestor.listed.keys, channel, record.values[channel], chain.values))
            if seed:
                break
        writes = [write for of_one in reversed(newest_first) for write in of_one]
        return {"writes": writes, "seed": seed[0]} if seed else {"writes": writes}

    def _load_value(self, keys: NamespaceKeys, channel: str, ref: ValueRef, values: Mapping[str, bytes]) -> Any:
        """A large value, once its content has proved to be the one that was stored under its name."""
        key, body = keys.value(ref.name), values.get(ref.name)
        if body is None:
            raise StateDecodingError(self.bucket, key, "a checkpoint refers to it, and does not name it in its key")
        if not ref.is_of(channel, body):
            raise StateDecodingError(self.bucket, key, "its content does not match its name")
        return self._load(key, (ref.tag, body))

    def _check_size(self, path: str, size: int) -> None:
        if size > self.max_bytes:
            raise StateEncodingError(path, f"it is {size} bytes, more than {self.max_bytes} allowed")

    def _dump(self, path: str, value: Any) -> Payload:
        try:
            return dump_payload(self.serde, value)
        except Exception as error:
            raise StateEncodingError(path, f"the serializer refuses it ({type(error).__name__}: {error})") from error

    def _load(self, key: str, payload: Payload) -> Any:
        try:
            return load_payload(self.serde, payload)
        except Exception as error:
            reason = f"the serializer cannot read it ({type(error).__name__}: {error})"
            raise StateDecodingError(self.bucket, key, reason) from error


def _unseeded(metadata: CheckpointMetadata, checkpoint: Mapping[str, Any], stored: AbstractSet[str]) -> set[str]:
    counters: Any = metadata.get(DELTA_COUNTERS)
    # A channel without a version was never written: there is nothing to rebuild.
    return {channel for channel in counters or () if channel in checkpoint["channel_versions"]} - stored
