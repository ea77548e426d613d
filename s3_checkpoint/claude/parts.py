"""One append as it is stored: a line that describes it, and a line per entry. Pure.

    {"format": 1, "part": 7, "previous": 6, "write_id": "5f…", "summary": {…}}
    {"type": "user", "uuid": "…", …}
    {"type": "assistant", "uuid": "…", …}

`previous` is the number of the part before it; null where the transcript begins (again). `summary` is what the SDK's
`fold_session_summary` makes of everything up to here, kept as it is; null in merged objects, and for subagents. A
merged object is its parts, one after the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from s3_checkpoint.errors import StateEncodingError

LAYOUT_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One append: its header, and its entries as lines of JSON."""

    number: int
    previous: int | None
    write_id: str
    summary: dict[str, Any] | None
    lines: tuple[bytes, ...]

    def build(self) -> bytes:
        """The body, before compression."""
        header = {
            "format": LAYOUT_FORMAT,
            "part": self.number,
            "previous": self.previous,
            "write_id": self.write_id,
            "summary": self.summary,
            "entries": len(self.lines),
        }
        return b"\n".join((json.dumps(header, separators=(",", ":")).encode(), *self.lines, b""))


def digest_of(body: bytes | bytearray) -> str:
    """As in the metadata: SHA-256 of the body, before compression."""
    return hashlib.sha256(body).hexdigest()


def build_merged(parts: Iterable[Part]) -> bytes:
    """The body of a merged object."""
    return b"".join(replace(part, summary=None).build() for part in parts)


def parse(body: bytes | bytearray) -> list[Part]:
    """The parts in a body; `ValueError`, saying why, if it holds anything else."""
    lines = bytes(body).split(b"\n")
    if lines.pop() != b"":
        raise ValueError("it ends in the middle of a line")
    parts: list[Part] = []
    at = 0
    while at < len(lines):
        header = _object(lines[at])
        count, previous, summary = header.get("entries"), header.get("previous"), header.get("summary")
        if header.get("format") != LAYOUT_FORMAT:
            raise ValueError(f"it is of format {str(header.get('format'))[:20]}, and 1 is known")
        whole = type(header.get("part")) is int and isinstance(header.get("write_id"), str)
        if not whole or not (previous is None or type(previous) is int) or type(count) is not int:
            raise ValueError("the description of a part is not one")
        if count < 0 or at + 1 + count > len(lines) or not (summary is None or isinstance(summary, dict)):
            raise ValueError("a part has not as many entries as it says")
        entries = tuple(lines[at + 1 : at + 1 + count])
        parts.append(Part(header["part"], previous, header["write_id"], summary, entries))
        at += 1 + count
    if not parts:
        raise ValueError("it holds no part")
    return parts


def encode_entries(entries: Sequence[Any]) -> tuple[bytes, ...]:
    """Each entry as a line; `StateEncodingError`, naming it, if one does not round-trip through JSON."""
    lines = []
    for index, entry in enumerate(entries):
        path = f"$[{index}]"
        if not isinstance(entry, dict):
            raise StateEncodingError(path, f"an entry must be a dict, and this is a {type(entry).__name__}")
        try:
            text = json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
            try:
                line = text.encode()
            except UnicodeEncodeError:  # JavaScript cuts strings between surrogates
                text = json.dumps(entry, allow_nan=False, separators=(",", ":"))
                line = text.encode()
            same = json.loads(text) == entry
        except (TypeError, ValueError, RecursionError) as error:
            raise StateEncodingError(path, f"it is not JSON ({type(error).__name__})") from None
        if not same:
            raise StateEncodingError(path, "it does not come back equal")
        lines.append(line)
    return tuple(lines)


def decode_entries(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """The entries; of those with one `uuid` the first. `ValueError` for a line that is no JSON object."""
    seen: set[str] = set()
    entries = []
    for line in lines:
        entry = _object(line)
        uuid = entry.get("uuid")
        if isinstance(uuid, str) and uuid:
            if uuid in seen:
                continue
            seen.add(uuid)
        entries.append(entry)
    return entries


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("a line is not JSON") from error
    if not isinstance(found, dict):
        raise ValueError("a line is no JSON object")  # noqa: TRY004 - of what is stored, not of an argument
    return found
