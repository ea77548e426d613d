"""The pictures of the page in the documentation: `make screenshots` takes them again."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langchain_core.messages import HumanMessage
from selenium import webdriver

from s3_checkpoint import ActiveSnapshot, RunAdmin, connect
from s3_checkpoint.langgraph import S3Saver
from tests.browser import found, open_at
from tests.command_line import Cli
from tests.langgraph.counting import at
from tests.langgraph.graphs import asking, chat, nested
from tests.web.serving import serving
from tests.web.test_page import rows, until

PICTURES = os.environ.get("S3_CHECKPOINT_SCREENSHOTS", "")
NODES = ("plan", "search", "read", "write", "review")


async def fill(cli: Cli) -> UUID:
    """Twelve runs of a researching agent, at different steps; the one that is shown has come far."""
    shown = UUID("0d9b1a51-5a4c-4b6e-9d0b-7f6f1b3f2a10")
    async with connect(dict[str, Any], cli.settings()) as checkpointer:
        for number in range(12):
            run = shown if not number else UUID(int=(number * 0x1F2E3D4C5B6A79889AABBCCDDEEFF01) % 2**128)
            last = 14 if not number else number % 7
            for step in range(last + 1):
                notes = [f"source {n}: says something about the sky" for n in range(step)]
                state = {"question": "Why is the sky blue?", "notes": notes, "draft": "Because " * step}
                tasks = [ActiveSnapshot(node_name=NODES[step % 5], payload={"section": step})]
                await checkpointer.commit(run, step, state, tasks if step < last or number % 3 else [])
        await RunAdmin(checkpointer).fork(shown, 6, UUID("5f0c2f9e-7c35-4a37-9d2c-0a8f3a6d9e11"))
    return shown


def threads(cli: Cli) -> None:
    with S3Saver(cli.settings()) as saver:
        for name in ("support/4711", "support/4712", "trip to Lisbon"):
            chat().compile(checkpointer=saver).invoke({"messages": [HumanMessage("hi")]}, at(name))
        asking().compile(checkpointer=saver).invoke({"trail": ["go"]}, at("refund over 500"))
        nested(ask=True).compile(checkpointer=saver).invoke({"trail": []}, at("review of contract"))


@pytest.mark.skipif(not PICTURES, reason="set S3_CHECKPOINT_SCREENSHOTS to a folder, as make screenshots does")
def test_the_pictures_of_the_documentation_are_taken(cli: Cli, browser: webdriver.Chrome) -> None:
    """A list, a run, the threads."""
    shown = asyncio.run(fill(cli))
    threads(cli)
    with serving(cli.settings()) as address:
        for name, path in (
            ("page-run", f"/run?id={shown}&step=12&compare=9"),
            ("page-threads", "/threads"),
        ):
            open_at(browser, address + path, 1100)
            until(browser, lambda: rows(browser) or found(browser, "#state summary"))
            browser.set_window_size(1100, 760)
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": 1100, "height": 760, "deviceScaleFactor": 1, "mobile": False},
            )
            assert browser.save_screenshot(str(Path(PICTURES) / f"{name}.png"))
        browser.get("about:blank")
