"""Tables of requests on pages of the documentation, as tests compare them with what was counted."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def requests_on(page: str) -> dict[str, dict[str, int]]:
    """Call and requests by verb, for each row such as `| load | 1 LIST, 2 GET |` of the page."""
    rows = re.findall(r"^\| ([^|]+) \| ((?:\d+ [A-Z]+(?:, )?)+) \|$", (DOCS / page).read_text(), re.MULTILINE)
    return {
        call: {verb: int(count) for count, verb in re.findall(r"(\d+) ([A-Z]+)", requests)} for call, requests in rows
    }
