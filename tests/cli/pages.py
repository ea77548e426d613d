"""The page of a timeline, made of what `timeline --output json` writes."""

from __future__ import annotations

from typing import Any

from s3_checkpoint.web.timeline_page import Page


def page(document: Any) -> str:
    """The page for a whole timeline."""
    made = Page({name: value for name, value in document.items() if name not in ("steps", "forks")})
    for step in document["steps"]:
        made.add(step)
    return made.text({"forks": document["forks"]})
