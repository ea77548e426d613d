"""What differs between two JSON values, by path. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from s3_checkpoint._format.json_paths import json_path


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `before` is None for what was added, `after` for what was removed."""

    kind: Literal["added", "removed", "changed"]
    path: tuple[str | int, ...]
    before: JsonValue = None
    after: JsonValue = None

    def where(self, root: str = "$") -> str:
        """The path as text: `$.notes[2].score`."""
        return root + json_path(self.path)[1:]

    def as_row(self, root: str = "$") -> dict[str, JsonValue]:
        """For JSON output: only the sides that exist."""
        row: dict[str, JsonValue] = {"path": self.where(root), "change": self.kind}
        if self.kind != "added":
            row["before"] = self.before
        if self.kind != "removed":
            row["after"] = self.after
        return row


def differences(before: JsonValue, after: JsonValue, path: tuple[str | int, ...] = ()) -> Iterator[Change]:
    """The changes that lead from one value to the other, in document order.

    Lists are aligned at both ends, so that an element inserted or removed is one change and not one per follower.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            if key not in after:
                yield Change("removed", (*path, key), before=before[key])
            elif key not in before:
                yield Change("added", (*path, key), after=after[key])
            else:
                yield from differences(before[key], after[key], (*path, key))
    elif isinstance(before, list) and isinstance(after, list):
        yield from _in_lists(before, after, path)
    elif not same(before, after):
        yield Change("changed", path, before, after)


def same(one: JsonValue, other: JsonValue) -> bool:
    """Whether both are the same JSON: 1 and 1.0 and true are three values; the order of keys does not count."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    both_nan = one != one and other != other  # noqa: PLR0124 - only NaN differs from itself
    return type(one) is type(other) and (one == other or both_nan)


def _in_lists(before: list[JsonValue], after: list[JsonValue], path: tuple[str | int, ...]) -> Iterator[Change]:
    shorter = min(len(before), len(after))
    start = 0
    while start < shorter and same(before[start], after[start]):
        start += 1
    end = 0
    while end < shorter - start and same(before[-1 - end], after[-1 - end]):
        end += 1
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    pairs = min(len(old), len(new))
    for offset in range(pairs):
        yield from differences(old[offset], new[offset], (*path, start + offset))
    for offset in range(pairs, len(old)):
        yield Change("removed", (*path, start + offset), before=old[offset])
    for offset in range(pairs, len(new)):
        yield Change("added", (*path, start + offset), after=new[offset])
