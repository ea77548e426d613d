"""LangGraph threads on the page: real graphs, read without their types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver, ThreadAdmin
from s3_checkpoint.web.thread_pages import THREADS_SHOWN, ThreadPages
from tests.browser import found, log_of, open_at, text_of
from tests.command_line import Cli
from tests.langgraph.counting import Counting, at, chain
from tests.langgraph.graphs import asking, chat, delta, nested
from tests.web.serving import serving
from tests.web.test_page import rows, until

ODD = "team a/chat ünd <b>"


@pytest.fixture
def threads(cli: Cli) -> Cli:
    """A bucket with an agent's chat, one that waits, subgraphs, delta channels, and an encrypted thread."""
    with S3Saver(cli.settings()) as saver:
        chat().compile(checkpointer=saver).invoke({"messages": [HumanMessage("hi")]}, at(ODD))
        asking().compile(checkpointer=saver).invoke({"trail": ["go"]}, at("waits"))
        nested(ask=True).compile(checkpointer=saver).invoke({"trail": []}, at("nested"))
        delta(rounds=3).compile(checkpointer=saver).invoke({}, at("delta"))
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    with S3Saver(cli.settings(), serde=serde) as saver:
        chat().compile(checkpointer=saver).invoke({"messages": [HumanMessage("secret")]}, at("hidden"))
    return cli


@pytest.fixture
def page(threads: Cli) -> Iterator[httpx.Client]:
    with serving(threads.settings()) as address, httpx.Client(base_url=address, trust_env=False, timeout=180) as client:
        yield client


def test_threads_are_listed_with_what_becomes_of_them(page: httpx.Client) -> None:
    """By the beginning of their ids, whatever these hold."""
    listed = [thread["thread_id"] for thread in page.get("/api/threads").json()["threads"]]
    assert sorted(listed) == sorted([ODD, "waits", "nested", "delta", "hidden"])
    assert page.get("/api/threads", params={"search": "team a/"}).json()["threads"] == [{"thread_id": ODD}]

    found = page.get("/api/threads/activity", params={"id": listed}).json()["threads"]
    assert {one["thread_id"]: one["status"] for one in found} == {
        ODD: "idle",
        "waits": "interrupted",
        "nested": "interrupted",
        "delta": "idle",
        "hidden": "unknown",
    }


def test_a_thread_over_time_is_its_history(page: httpx.Client) -> None:
    """Oldest first; what each checkpoint changed, what waits, and states without the application's types."""
    shown = page.get("/api/thread", params={"id": "waits"}).json()
    steps = shown["steps"]

    assert [step["step"] for step in steps] == sorted((step["step"] for step in steps), key=int)
    assert steps[-1]["active"][-1]["node_name"].startswith("waits: ")
    newest = page.get("/api/thread/state", params={"id": "waits", "step": steps[-1]["id"]}).json()["state"]
    assert newest["values"]["trail"]
    assert any(write["channel"] == "__interrupt__" for write in newest["writes"])

    assert len(page.get("/api/thread", params={"id": "nested"}).json()["namespaces"]) > 1
    deltas = page.get("/api/thread", params={"id": "delta"}).json()["steps"][-1]["id"]
    assert page.get("/api/thread/state", params={"id": "delta", "step": deltas}).json()["state"]["delta_channels"]
    hidden = page.get("/api/thread", params={"id": "hidden"}).json()["steps"]
    text = page.get("/api/thread/state", params={"id": "hidden", "step": hidden[-1]["id"]}).text
    assert "secret" not in text
    assert "encrypted" in json.dumps(hidden[-1]["stored"])


def test_new_and_earlier_checkpoints_are_asked_for_alone(page: httpx.Client) -> None:
    """As steps of a run."""
    steps = page.get("/api/thread", params={"id": "delta"}).json()["steps"]
    ids = [step["id"] for step in steps]

    newer = page.get("/api/thread", params={"id": "delta", "after": ids[2]}).json()
    earlier = page.get("/api/thread", params={"id": "delta", "before": ids[2]}).json()

    assert [step["id"] for step in newer["steps"]] == ids[3:]
    assert newer["steps"][0]["changes"] == steps[3]["changes"]
    assert [step["id"] for step in earlier["steps"]] == ids[:2]
    assert not earlier["earlier"]
    assert page.get("/api/thread", params={"id": "nothing"}).json()["steps"] == []
    assert page.get("/api/thread/state", params={"id": "x", "step": "nothing"}).json()["left_out"]
    assert page.get("/api/thread/state", params={"id": "x"}).status_code == 400


async def test_the_first_part_of_very_many_threads_takes_one_listing() -> None:
    """And the next begins behind it."""
    store = Counting(MemoryStore())
    async with S3Saver(store) as saver:
        for number in range(THREADS_SHOWN + 7):
            chain(saver, at(f"thread {number:03}"), 1)
        pages = ThreadPages(ThreadAdmin(saver))
        store.reset()

        first = await pages.threads("", "")
        assert store.taken() == {"LIST": 1}
        second = await pages.threads("", first["next"])
        assert store.taken() == {"LIST": 1}

    ids = [one["thread_id"] for one in [*first["threads"], *second["threads"]]]
    assert ids == [f"thread {number:03}" for number in range(THREADS_SHOWN + 7)]
    assert second["next"] is None


def test_an_operator_finds_the_thread_that_waits_and_sees_what_for(threads: Cli, browser: webdriver.Chrome) -> None:
    """From the list, by status, to the checkpoint; namespaces and odd ids have links that work."""
    with serving(threads.settings()) as address:
        open_at(browser, f"{address}/threads", 1280)
        until(browser, lambda: rows(browser))
        Select(found(browser, "select")[0]).select_by_visible_text("interrupted")
        until(browser, lambda: sorted(rows(browser)) == ["nested", "waits"])
        browser.find_element(By.LINK_TEXT, "waits").click()
        until(browser, lambda: found(browser, "#state summary"))
        assert "waits: " in text_of(browser, "#active")
        assert text_of(browser, "h1") == "Thread waits"

        open_at(browser, f"{address}/threads", 400)
        until(browser, lambda: rows(browser))
        browser.find_element(By.LINK_TEXT, ODD).click()
        until(browser, lambda: found(browser, "#state summary"))
        assert text_of(browser, "h1") == f"Thread {ODD}"
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        link: Any = browser.current_url
        open_at(browser, link, 1280)
        until(browser, lambda: found(browser, "#state summary"))
        assert log_of(browser, "browser") == []
        browser.get("about:blank")
