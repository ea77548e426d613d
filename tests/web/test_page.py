"""The page in a real browser: lists and statuses, search, one run over time, links, keys, widths, refresh."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.ui import WebDriverWait

from s3_checkpoint import ActiveSnapshot, connect
from s3_checkpoint.claude import SyncS3SessionStore
from tests.browser import found, log_of, open_at, text_of
from tests.command_line import FIRST, FORK, SAVED, Cli
from tests.web.serving import serving

HOSTILE = "</script><img src=x onerror=\"document.title='taken over'\">"


@pytest.fixture
def page(three_runs: Cli, browser: webdriver.Chrome) -> Iterator[str]:
    with serving(three_runs.settings()) as address:
        yield address
        assert log_of(browser, "browser") == []
        browser.get("about:blank")


def until(browser: webdriver.Chrome, condition: Callable[[], Any]) -> Any:
    """What `condition` gives once it is true."""
    return WebDriverWait(browser, 60).until(lambda _: condition())


def rows(browser: webdriver.Chrome) -> dict[str, str]:
    """The list as shown, by id; empty while a status is still being asked for."""
    shown = browser.execute_script(
        "return [...document.querySelectorAll('.list tbody tr')]"
        ".map(row => [row.querySelector('th').textContent, row.innerText])"
    )
    return {} if any("…" in text for _, text in shown) else dict(shown)


def test_an_operator_sees_the_runs_with_their_status(page: str, browser: webdriver.Chrome) -> None:
    """Searches by the beginning of an id, chooses a status, and the address keeps both."""
    open_at(browser, f"{page}/", 1280)
    shown = until(browser, lambda: rows(browser))

    assert list(shown) == [str(FIRST), str(FORK), str(SAVED)]
    assert "active" in shown[str(FIRST)]
    assert "plan" in shown[str(FIRST)]
    assert "finished" in shown[str(FORK)]
    assert text_of(browser, "#place").startswith("s3://cli-")

    Select(found(browser, "select")[0]).select_by_visible_text("finished")
    until(browser, lambda: list(rows(browser)) == [str(FORK)])  # the saved one has no tasks to tell by
    browser.find_element(By.TAG_NAME, "h1").click()
    browser.find_element(By.TAG_NAME, "body").send_keys("/")
    browser.switch_to.active_element.send_keys("aaaa1")
    until(browser, lambda: "search=aaaa1" in browser.current_url)
    until(browser, lambda: list(rows(browser)) == [str(FORK)])
    assert "status=finished" in browser.current_url

    open_at(browser, browser.current_url, 1280)
    until(browser, lambda: list(rows(browser)) == [str(FORK)])


def test_a_run_opens_over_time_and_every_view_has_a_link(page: str, browser: webdriver.Chrome) -> None:
    """By click; the chosen step and the comparison are in the address, and the way back works."""
    open_at(browser, f"{page}/runs", 1280)
    until(browser, lambda: rows(browser))
    browser.find_element(By.LINK_TEXT, str(FIRST)).click()
    until(browser, lambda: found(browser, "#state summary"))

    assert text_of(browser, "h1") == f"Run {FIRST}"
    assert len(found(browser, ".step .bar")) == 12
    assert text_of(browser, "#where") == "step 15 (12 of 12)"
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_LEFT)
    assert text_of(browser, "#where") == "step 14 (11 of 12)"
    assert "step=14" in browser.current_url

    Select(browser.find_element(By.ID, "other")).select_by_visible_text("step 3")
    until(browser, lambda: "What differs from step 3" in text_of(browser, "#changes-title"))
    until(browser, lambda: "$.notes[3]" in text_of(browser, "#changes"))
    assert len(found(browser, "#changes li.added")) == 11
    link = browser.current_url
    assert "compare=3" in link

    open_at(browser, link, 1280)
    until(browser, lambda: "$.notes[3]" in text_of(browser, "#changes"))
    assert text_of(browser, "#where") == "step 14 (11 of 12)"
    browser.find_element(By.LINK_TEXT, "← Runs").click()
    until(browser, lambda: rows(browser))
    browser.back()
    until(browser, lambda: found(browser, "#where"))


def test_a_state_is_searched_copied_and_downloaded(page: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Places are counted and opened; the file holds the JSON as stored."""
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    open_at(browser, f"{page}/run?id={FIRST}&step=5", 1280)
    until(browser, lambda: found(browser, "#state summary"))

    browser.find_element(By.CSS_SELECTOR, ".state-tools input").send_keys("note <")
    until(browser, lambda: text_of(browser, ".state-tools .note") == "5 places")
    assert [place.text for place in found(browser, "#state .found")] == [f'"note <{n}>"' for n in range(5)]

    found(browser, ".state-tools button")[0].click()
    until(browser, lambda: text_of(browser, ".state-tools .note") == "copied")
    box = browser.find_element(By.CSS_SELECTOR, ".state-tools input")
    box.clear()
    box.send_keys(Keys.CONTROL, "v")
    assert json.loads(box.get_attribute("value") or "")["notes"] == [f"note <{n}>" for n in range(5)]

    found(browser, ".state-tools button")[1].click()
    file = tmp_path / f"{FIRST}-5.json"
    until(browser, file.exists)
    assert json.loads(file.read_text())["notes"] == [f"note <{n}>" for n in range(5)]


def test_an_open_page_shows_what_is_committed_while_it_is_open(own_runs: Cli, browser: webdriver.Chrome) -> None:
    """A list and a run; a reader at the newest step follows, one further back stays."""

    async def commit(step: int) -> None:
        async with connect(dict[str, Any], own_runs.settings()) as checkpointer:
            await checkpointer.commit(FORK, step, {"at": step}, [ActiveSnapshot(node_name="later")])

    with serving(own_runs.settings(), refresh_s=0.5) as address:
        open_at(browser, f"{address}/run?id={FORK}", 1280)
        until(browser, lambda: found(browser, "#state summary"))
        assert text_of(browser, "#where") == "step 1 (2 of 2)"

        asyncio.run(commit(2))
        until(browser, lambda: text_of(browser, "#where") == "step 2 (3 of 3)")
        browser.find_element(By.TAG_NAME, "body").send_keys(Keys.HOME)
        asyncio.run(commit(3))
        until(browser, lambda: text_of(browser, "#where") == "step 0 (1 of 4)")

        browser.find_element(By.ID, "pause").click()
        assert browser.find_element(By.ID, "pause").get_attribute("aria-pressed") == "true"
    assert "taken over" not in browser.title
    browser.get("about:blank")
    log_of(browser, "browser")


def test_the_content_of_a_bucket_acts_on_nothing(cli: Cli, browser: webdriver.Chrome) -> None:
    """Markup in states, names and payloads is shown as text, and the page asks its own server alone."""

    async def fill() -> None:
        async with connect(dict[str, Any], cli.settings()) as checkpointer:
            tasks = [ActiveSnapshot(node_name=HOSTILE, payload=HOSTILE)]
            await checkpointer.commit(FIRST, 0, {HOSTILE: HOSTILE, "__proto__": {"x": 1}}, tasks)

    asyncio.run(fill())
    with serving(cli.settings()) as address:
        log_of(browser, "performance")
        open_at(browser, f"{address}/", 1280)
        until(browser, lambda: rows(browser))
        open_at(browser, f"{address}/run?id={FIRST}", 1280)
        until(browser, lambda: found(browser, "#state summary"))

        assert HOSTILE in text_of(browser, "#state").replace('\\"', '"')
        assert HOSTILE in text_of(browser, "#active")
        assert not found(browser, "img")
        assert "taken over" not in browser.title
        messages = [json.loads(entry["message"])["message"] for entry in log_of(browser, "performance")]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert urls
        assert all(url.startswith((address, "data:,")) for url in urls)
        assert log_of(browser, "browser") == []
        browser.get("about:blank")


def test_a_wrong_address_says_what_is_wrong(page: str, browser: webdriver.Chrome) -> None:
    """In an alert, with the server's message."""
    open_at(browser, f"{page}/run?id=nothing", 1280)
    until(browser, lambda: "must be a UUID" in text_of(browser, "#problem"))
    open_at(browser, f"{page}/run?id=00000000-0000-4000-8000-000000000009", 1280)
    until(browser, lambda: "Nothing is stored here" in text_of(browser, "#view"))
    log_of(browser, "browser")  # the browser notes each answer of status 400 by itself


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (400, "dark"),  # the scheme gives colours alone, the width places alone: each once, both with both in long runs
        pytest.param(1280, "dark", marks=pytest.mark.long),
        pytest.param(400, "light", marks=pytest.mark.long),
    ],
)
def test_everyone_can_use_it(page: str, browser: webdriver.Chrome, width: int, scheme: str) -> None:
    """Axe finds nothing to object to, and nothing is wider than the window."""
    axe_core = pytest.importorskip("axe_core_python")
    axe = Path(axe_core.__file__).with_name("axe.min.js").read_text()
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for path, ready in (
        ("/runs", lambda: rows(browser)),
        (f"/run?id={FIRST}", lambda: found(browser, "#state summary")),
    ):
        open_at(browser, page + path, width)
        until(browser, ready)
        browser.execute_script(axe)
        result = browser.execute_async_script("axe.run().then(arguments[0])")
        told = [(v["id"], [node["html"][:120] for node in v["nodes"]]) for v in result["violations"]]
        assert told == []
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_keyboard_alone_reaches_everything(page: str, browser: webdriver.Chrome) -> None:
    """Tab leads from the skip link to the first run; Enter opens it, and the focus is in the content."""
    open_at(browser, f"{page}/runs", 1280)
    until(browser, lambda: rows(browser))
    seen = []
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(browser.switch_to.active_element.text or browser.switch_to.active_element.get_attribute("type"))
        if seen[-1] == str(FIRST):
            break
    assert "Skip to the content" in (seen[0] or "")
    assert seen[-1] == str(FIRST)

    browser.switch_to.active_element.send_keys(Keys.ENTER)
    until(browser, lambda: found(browser, "#where"))
    assert browser.switch_to.active_element.get_attribute("id") == "main"


def test_sessions_of_agents_are_told_of_where_there_are_some(own_runs: Cli, browser: webdriver.Chrome) -> None:
    """Under the list, with the command that lists them; a bucket without any says nothing."""
    with serving(own_runs.settings()) as page:
        open_at(browser, f"{page}/", 1280)
        until(browser, lambda: rows(browser))
        shown_without = browser.find_element(By.ID, "sessions").is_displayed()
        with SyncS3SessionStore(own_runs.settings()) as sessions:
            sessions.append({"project_key": "a", "session_id": "1"}, [{"type": "user"}])
        open_at(browser, f"{page}/threads", 400)

        told = until(browser, lambda: text_of(browser, "#sessions"))

    assert not shown_without
    assert told.startswith("1 Claude Agent SDK session is stored here too")
    assert "s3-checkpoint sessions" in told
