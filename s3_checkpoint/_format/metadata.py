"""The metadata of stored objects: one grammar, built and parsed here. Pure.

    format          of this layout: 1
    schema-version  of the application's state (states only)
    write-id        of the call that wrote the object
    digest          SHA-256 of the compact JSON in the body, hexadecimal
    active          the write id of the active snapshot (states of committed steps only)
    active-digest   the digest of those tasks (states of committed steps only)
    active-inline   the tasks themselves: base64 of their compact JSON (states whose tasks fit)
    origin          `<run_id>/<step>` that the step was forked from (first steps of forks only)
    out-of-order    1 for a committed step that was created when later ones were there already
    copy            1 for an active snapshot that no state depends on, because the state carries its tasks inline
    expires-at      when an item of long-term memory ends, in ISO 8601 (items with a TTL only)

Absent fields are empty. What is read comes from outside and is unchecked: each reader checks the fields it relies on.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from s3_checkpoint._format.keys import MAX_STEP
from s3_checkpoint.object_store import ObjectHead

LAYOUT_FORMAT = "1"
MAX_METADATA_BYTES = 2048
"""S3's bound on the user metadata of an object. Source: "Working with object metadata", Amazon S3 user guide."""

_HEADER = "x-amz-meta-"
"""S3 counts names and values. Whether a store counts this prefix too, stores disagree; here it always counts."""
_RESERVED_BYTES = len(_HEADER + "origin") + 36 + 1 + len(str(MAX_STEP)) + len(_HEADER + "out-of-order1")
"""What is added once the tasks are in, by a fork of the step or by its commit: it must not push them out."""


@dataclass(frozen=True, slots=True)
class ObjectMetadata:
    """What an object's metadata says of it."""

    write_id: str = ""
    digest: str = ""
    active: str = ""
    active_digest: str = ""
    active_inline: str = ""
    schema_version: str = ""
    origin: str = ""
    out_of_order: str = ""
    copy: str = ""
    expires_at: str = ""
    format: str = LAYOUT_FORMAT

    def build(self) -> dict[str, str]:
        """The metadata as it is stored; empty fields are left out."""
        return {name: value for field, name in _NAMES.items() if (value := getattr(self, field))}

    @classmethod
    def parse(cls, metadata: Mapping[str, str]) -> ObjectMetadata:
        """The fields as stored, unchecked; an absent `format` is empty, and names of others are ignored."""
        return cls(**{field: metadata.get(name, "") for field, name in _NAMES.items()})

    @classmethod
    def of(cls, head: ObjectHead) -> ObjectMetadata:
        """What the head of a stored object has of it."""
        return cls.parse(head.attributes.metadata)

    @property
    def size(self) -> int:
        """Bytes that S3 counts, header prefix included."""
        return sum(len(_HEADER) + len(name) + len(value.encode()) for name, value in self.build().items())

    def with_inline_tasks(self, tasks: bytes) -> ObjectMetadata | None:
        """These, carrying `tasks` (compact JSON) inline; None if all together would exceed S3's bound."""
        if len(tasks) > MAX_METADATA_BYTES:
            return None
        whole = replace(self, active_inline=b64encode(tasks).decode())
        return whole if whole.size + _RESERVED_BYTES <= MAX_METADATA_BYTES else None

    def inline_tasks(self) -> bytes:
        """The JSON of the tasks carried inline; `ValueError` if the field is not base64."""
        try:
            return b64decode(self.active_inline, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("its active-inline is not base64") from error

    def same_content(self, other: ObjectMetadata) -> bool:
        """Whether both are commits whose states and tasks have the same JSON, by whatever call.

        The same JSON under another schema version is another state: it would be migrated when read.
        """
        ours = self.digest, self.active_digest, self.schema_version
        theirs = other.digest, other.active_digest, other.schema_version
        return bool(self.active and other.active) and ours == theirs


_NAMES = {field.name: field.name.replace("_", "-") for field in fields(ObjectMetadata)}
