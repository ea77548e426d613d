"""The page's server: what it answers, to whom, and what it asks of the bucket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest

from s3_checkpoint import ActiveSnapshot, MemoryStore, S3Checkpointer, S3Settings
from s3_checkpoint.claude import SyncS3SessionStore
from s3_checkpoint.testing.counting import Counting
from s3_checkpoint.web.run_pages import RUNS_SHOWN, STEPS_SHOWN, RunPages
from tests.command_line import FIRST, FORK, Cli
from tests.web.serving import serving


@pytest.fixture
def page(three_runs: Cli) -> Iterator[httpx.Client]:
    with serving(three_runs.settings()) as address, httpx.Client(base_url=address, trust_env=False) as client:
        yield client


def test_every_view_has_an_address_and_nothing_foreign_in_it(page: httpx.Client) -> None:
    """One document for all; scripts and styles are files of this server, and the policy allows no others."""
    for path in ("/", "/runs", "/run?id=x&step=3", "/threads", "/thread?id=a%2Fb"):
        answer = page.get(path)
        assert answer.status_code == 200
        assert "http" not in answer.text.replace("http-equiv", "")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    for name in ("page.css", "parts.js", "app.js"):
        assert page.get(f"/static/{name}").status_code == 200
    assert page.get("/static/../app.py").status_code == 404
    assert page.get("/nothing").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::1]", ""])
def test_a_request_addressed_to_another_host_gets_nothing(page: httpx.Client, host: str) -> None:
    """A name that was made to point to loopback does not open the bucket to a page elsewhere."""
    answer = page.get("/api/runs", headers={"host": host})

    assert answer.status_code == 400
    assert str(FIRST) not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_methods_that_could_change_something_are_refused(page: httpx.Client, method: str) -> None:
    """The page only reads."""
    assert page.request(method, "/api/runs").status_code == 405


def test_a_page_of_another_site_cannot_make_it_ask_the_bucket(page: httpx.Client) -> None:
    """Requests cost money; browsers say where one comes from."""
    for site in ("cross-site", "same-site"):
        assert page.get("/api/runs", headers={"sec-fetch-site": site}).status_code == 403
    assert page.get("/api/runs", headers={"sec-fetch-site": "same-origin"}).status_code == 200
    assert "access-control-allow-origin" not in page.get("/api/runs").headers


def test_runs_are_listed_by_the_beginning_of_their_ids(page: httpx.Client) -> None:
    """Anything that cannot begin one finds none."""
    found = page.get("/api/runs", params={"search": "aaaa"}).json()

    assert [run["run_id"] for run in found["runs"]] == [str(FIRST), str(FORK)]
    assert found["next"] is None
    for search in ("zz", "../", "a" * 40, "é"):
        assert page.get("/api/runs", params={"search": search}).json()["runs"] == []


def test_a_timeline_is_what_the_command_line_writes_but_for_the_states(page: httpx.Client, three_runs: Cli) -> None:
    """Both are gathered by the same code."""
    theirs = three_runs.json("timeline", str(FIRST))["steps"]
    ours = page.get("/api/run", params={"id": str(FIRST)}).json()

    assert [step["changes"] for step in ours["steps"]] == [step["changes"] for step in theirs]
    assert [step["missing_before"] for step in ours["steps"]] == [step["missing_before"] for step in theirs]
    assert not any("state" in step for step in ours["steps"])
    state = page.get("/api/run/state", params={"id": str(FIRST), "step": 3}).json()["state"]
    assert state == theirs[3]["state"]
    saved = page.get("/api/run/download", params={"id": str(FIRST), "step": 3})
    assert json.loads(saved.text) == theirs[3]["state"]
    assert saved.headers["content-disposition"] == f'attachment; filename="{FIRST}-3.json"'


def test_new_steps_and_earlier_ones_are_asked_for_alone(page: httpx.Client) -> None:
    """An open page asks for what is behind its last step; the one before is read to compare with."""
    newer = page.get("/api/run", params={"id": str(FIRST), "after": 13}).json()["steps"]
    earlier = page.get("/api/run", params={"id": str(FIRST), "before": 5}).json()

    assert [step["step"] for step in newer] == [14, 15]
    assert newer[0]["changes"]
    assert [step["step"] for step in earlier["steps"]] == [0, 1, 2, 3, 4]
    assert not earlier["earlier"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/run?id=zzz", 400),
        ("/api/run/state?id=aaaa0000-0000-4000-8000-000000000001&step=-1", 400),
        ("/api/run/state?id=aaaa0000-0000-4000-8000-000000000001&step=1e3", 400),
        ("/api/run/download?id=aaaa0000-0000-4000-8000-000000000001&step=99", 400),
        ("/api/run/download?id=&step=", 400),
        ("/api/run?id=aaaa0000-0000-4000-8000-000000000001&after=x", 400),
        ("/api/run/forks?id=", 400),
        ("/api/runs?after=nothing", 400),
        ("/api/runs/activity?id=x", 400),
    ],
)
def test_senseless_requests_are_answered_with_what_is_wrong(page: httpx.Client, path: str, status: int) -> None:
    """As JSON, with the error's code."""
    answer = page.get(path)

    assert answer.status_code == status
    assert answer.json()["code"] == "invalid-argument"


def test_a_store_that_is_away_or_refuses_is_told_by_its_own_status(three_runs: Cli) -> None:
    """The page shows the message."""
    settings = three_runs.settings().model_copy(update={"endpoint_url": "http://127.0.0.1:9", "max_attempts": 1})
    with serving(settings) as address:
        answer = httpx.get(f"{address}/api/runs", trust_env=False)

    assert answer.status_code == 503
    assert answer.json()["code"] == "store-unavailable"


async def test_the_first_page_of_very_many_runs_takes_one_listing() -> None:
    """And its statuses two requests for each run shown; the next part begins behind it."""
    store = Counting(MemoryStore())
    checkpointer = S3Checkpointer(dict, store)
    for number in range(3 * RUNS_SHOWN):
        await checkpointer.commit(UUID(int=number), 0, {}, [ActiveSnapshot(node_name="a")] if number % 2 else [])
    pages = RunPages(S3Checkpointer(dict, store), 1 << 20)
    store.reset()

    first = await pages.runs("", "")
    assert store.taken() == {"LIST": 1}
    second = await pages.runs("", first["next"])
    assert store.taken() == {"LIST": 1}
    assert [run["run_id"] for run in second["runs"]] == [str(UUID(int=RUNS_SHOWN + n)) for n in range(RUNS_SHOWN)]

    ids = [run["run_id"] for run in first["runs"]][:10]
    found = (await pages.activity(ids))["runs"]
    assert sum(store.taken().values()) == 20
    assert [run["status"] for run in found] == ["finished", "active"] * 5
    waiting = RunPages(S3Checkpointer(dict, store), 1 << 20, waiting_on=["a"])
    assert [run["status"] for run in (await waiting.activity(ids))["runs"]] == ["finished", "waiting"] * 5
    third = await pages.runs("", second["next"])
    assert third["next"] is None


async def test_a_timeline_reads_the_steps_that_it_shows() -> None:
    """Of 200 steps the last ones; what is new costs what is new."""
    store = Counting(MemoryStore())
    checkpointer = S3Checkpointer(dict, store)
    run = UUID(int=1)
    for step in range(200):
        await checkpointer.commit(run, step, {"n": step}, [])
    pages = RunPages(S3Checkpointer(dict, store), 1 << 20)
    store.reset()

    shown = await pages.timeline(str(run), "", after=None, before=None, around=None)
    assert [step["step"] for step in shown["steps"]] == list(range(200 - STEPS_SHOWN, 200))
    assert shown["earlier"]
    assert store.taken() == {"LIST": 3, "GET": STEPS_SHOWN + 1}

    await checkpointer.commit(run, 200, {"n": 200}, [])
    store.reset()
    newer = await pages.timeline(str(run), "", after="199", before=None, around=None)
    assert [step["step"] for step in newer["steps"]] == [200]
    assert store.taken() == {"LIST": 1, "GET": 2}
    around = await pages.timeline(str(run), "", after=None, before=None, around="50")
    assert 50 in [step["step"] for step in around["steps"]]


def test_numbers_that_a_browser_cannot_hold_arrive_as_they_are_stored(cli: Cli) -> None:
    """And text that looks like the mark of one stays text."""
    from s3_checkpoint.web.page_json import exact

    assert exact({"n": 2**53 + 1, "\0number:1": "\0number:1", "f": 1.0, "b": True, "i": 1}) == {
        "n": f"\0number:{2**53 + 1}",
        "\0text:\0number:1": "\0text:\0number:1",
        "f": "\0number:1.0",
        "b": True,
        "i": 1,
    }


def test_the_page_says_which_bucket_it_shows(page: httpx.Client, three_runs: Cli) -> None:
    """And under which prefix."""
    assert page.get("/api/place").json()["place"] == f"s3://{three_runs.bucket}"


def test_settings_are_the_ones_given() -> None:
    """Making the application sends nothing."""
    from s3_checkpoint.web.app import create_app

    create_app(S3Settings(bucket="nothing-there"))


def test_the_page_says_how_many_sessions_of_agents_there_are(cli: Cli) -> None:
    """Those that have entries, in any project; subagents are part of theirs, and a deleted one is none."""
    with serving(cli.settings()) as address, httpx.Client(base_url=address, trust_env=False) as client:
        nothing = client.get("/api/sessions").json()
        with SyncS3SessionStore(cli.settings()) as sessions:
            for project, session_id in [("a", "1"), ("a", "2"), ("b/c", "1"), ("gone", "1")]:
                sessions.append({"project_key": project, "session_id": session_id}, [{"type": "user"}])
            sessions.append({"project_key": "a", "session_id": "1", "subpath": "subagents/x"}, [{"type": "user"}])
            sessions.delete({"project_key": "gone", "session_id": "1"})
        found = client.get("/api/sessions").json()

    assert nothing == {"sessions": 0, "projects": 0, "more": False}
    assert found == {"sessions": 3, "projects": 2, "more": False}
