"""The key grammar of long-term memory, as the LangGraph store keeps it. Pure; build and parse side by side.

    [<prefix>/]memories/<label>/…/<label>/<key>.json      an item; the labels are its namespace

Labels and key are percent-encoded, `/` and `.` included, so that only an item's name has a `.`; too long ones are
hashed (`!` and a SHA-256), and an empty key is `!`. A label is encoded by itself: a listing of
`memories/<label>/<label>/` shows the items of that namespace and of all that begin with it, and nothing else. The item
holds its namespace and key in clear, for those that are hashed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from s3_checkpoint._format.key_families import MEMORIES
from s3_checkpoint._format.keys import MAX_KEY_BYTES, join_prefix
from s3_checkpoint._format.thread_keys import bounded_segment, is_hashed, parse_segment
from s3_checkpoint.errors import InvalidArgumentError

MAX_LABEL_BYTES, MAX_NAME_BYTES = 80, 200
"""As encoded; longer ones are hashed. Eight labels of any length fit into a key of S3, with a prefix of 100 bytes."""

_SUFFIX = ".json"
_HASHED = re.compile(r"![0-9a-f]{64}")


class ItemName(NamedTuple):
    """What the key of an item tells: its labels and its key, as segments."""

    labels: tuple[str, ...]
    name: str

    @property
    def namespace(self) -> tuple[str, ...] | None:
        """The labels themselves; None if one of them is hashed."""
        labels = [None if is_hashed(label) else parse_segment(label) for label in self.labels]
        return tuple(label for label in labels if label is not None) if None not in labels else None


def memories_prefix(prefix: str) -> str:
    """Everything that the store keeps begins with this."""
    return f"{join_prefix(prefix)}{MEMORIES}/"


def namespace_prefix(prefix: str, namespace: Sequence[str]) -> str:
    """The items of this namespace, and of all that begin with it, are under this. Empty: all items."""
    labels = "".join(f"{bounded_segment('namespace', label, MAX_LABEL_BYTES)}/" for label in namespace)
    return _checked(f"{memories_prefix(prefix)}{labels}", namespace)


def item_key(prefix: str, namespace: Sequence[str], key: str) -> str:
    """The key of an item.

    Raises `InvalidArgumentError` for text with lone surrogates, and for more labels than fit into a key of S3.
    """
    name = bounded_segment("key", key, MAX_NAME_BYTES)
    return _checked(f"{namespace_prefix(prefix, namespace)}{name}{_SUFFIX}", namespace)


def parse_item(prefix: str, key: str) -> ItemName | None:
    """The labels and the name in a key that `item_key` built; None for any other key."""
    head = memories_prefix(prefix)
    if not (key.startswith(head) and key.endswith(_SUFFIX)):
        return None
    *labels, name = key[len(head) : -len(_SUFFIX)].split("/")
    if not all(map(_is_segment, (*labels, name))) or "!" in labels:
        return None
    return ItemName(tuple(labels), name)


def _is_segment(segment: str) -> bool:
    if is_hashed(segment):
        return _HASHED.fullmatch(segment) is not None
    return segment != "" and parse_segment(segment) is not None


def _checked(key: str, namespace: Sequence[str]) -> str:
    if len(key.encode()) > MAX_KEY_BYTES:
        reason = f"makes keys of {len(key.encode())} bytes, and S3 takes {MAX_KEY_BYTES}; use fewer or shorter labels"
        raise InvalidArgumentError("namespace", ascii(tuple(namespace))[:80], reason)
    return key
