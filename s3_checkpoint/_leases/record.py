"""The body of a lease object: who holds it, for how long, and for the how-manieth time. Pure.

    {"format": 1, "lease": "5f…", "write_id": "a0…", "epoch": 3, "holder": "worker-7:412", "purpose": "step 4",
     "ttl_s": 30.0, "released": false}

`lease` is one holding, from taking to release; `write_id` one write of it. How old the record is, only the store knows:
it is no part of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from s3_checkpoint.errors import InvalidArgumentError

LAYOUT_FORMAT = 1
MAX_RECORD_BYTES = 64 * 1024
"""A record of ours has less than 2,000."""
MIN_TTL_S, MAX_TTL_S = 1.0, 86_400.0
"""S3 tells its time in whole seconds; and a crash must not block a run for longer than a day."""
MAX_TEXT = 200
"""Characters of `holder` and of `purpose`."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a lease object says."""

    lease: str
    write_id: str
    epoch: int
    """1, and one more for each holding after it."""
    holder: str
    purpose: str
    ttl_s: float
    """Seconds from `Last-Modified` on, by the store's clock."""
    released: bool = False

    def build(self) -> bytes:
        """The body as it is stored."""
        return json.dumps({"format": LAYOUT_FORMAT, **asdict(self)}).encode()

    @classmethod
    def parse(cls, body: bytes) -> LeaseRecord:
        """The record in `body`; `ValueError`, saying why, if there is none that can be relied on."""
        try:
            found: Any = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ValueError("it is not JSON") from error
        if not isinstance(found, dict) or found.get("format") != LAYOUT_FORMAT:
            raise ValueError("it is no lease of format 1")
        values: dict[str, Any] = {field.name: found.get(field.name) for field in fields(cls)}
        texts = all(isinstance(values[name], str) for name in ("lease", "write_id", "holder", "purpose"))
        numbers = type(values["epoch"]) is int and values["epoch"] > 0 and is_ttl(values["ttl_s"])
        if not (texts and numbers and isinstance(values["released"], bool)):
            raise ValueError("it is no lease: a field is missing, or out of bounds")
        return cls(**values)


def is_ttl(seconds: object) -> bool:
    """Whether a lease can be held for so long."""
    return isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and MIN_TTL_S <= seconds <= MAX_TTL_S


def check_ttl(name: str, seconds: float) -> float:
    """`seconds`, if a lease can be held for so long; `InvalidArgumentError` otherwise."""
    if not is_ttl(seconds):
        bounds = f"must be {MIN_TTL_S:.0f} … {MAX_TTL_S:.0f} seconds"
        raise InvalidArgumentError(name, repr(seconds)[:80], bounds)
    return float(seconds)


def check_text(name: str, text: str) -> str:
    """`text`, if a lease can carry it; `InvalidArgumentError` otherwise."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise InvalidArgumentError(name, ascii(text)[:80], f"must be text of at most {MAX_TEXT} characters")
    return text
