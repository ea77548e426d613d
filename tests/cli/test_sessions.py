"""`sessions`, `session show` and `session delete`, against the moto server."""

from __future__ import annotations

import json

import pytest

from s3_checkpoint.claude import SyncS3SessionStore
from s3_checkpoint.cli.exit_codes import ExitCode
from tests.command_line import Cli

FIRST = {"project_key": "-home-app", "session_id": "aaaa1111-0000-4000-8000-000000000001"}
SECOND = {"project_key": "tenant/b", "session_id": "bbbb2222-0000-4000-8000-000000000002"}
SUB = {**FIRST, "subpath": "subagents/agent-1"}
ENTRIES: list[dict[str, object]] = [
    {"type": "user", "uuid": "1", "timestamp": "2026-01-02T03:04:05.000Z", "message": {"content": "hello \x1b[2J"}},
    {"type": "assistant", "uuid": "2", "message": {"content": [{"type": "text", "text": "hi"}, {"type": "tool_use"}]}},
    {"type": "custom-title", "customTitle": "greeting"},
]


@pytest.fixture
def agents(cli: Cli) -> Cli:
    """A bucket with two sessions, one of them with a subagent."""
    with SyncS3SessionStore(cli.settings()) as sessions:
        sessions.append(FIRST, ENTRIES)
        sessions.append(SUB, [{"type": "user", "message": {"content": "look it up"}}])
        sessions.append(SECOND, [{"type": "user"}])
    return cli


def test_sessions_lists_every_session_with_its_subagents(agents: Cli) -> None:
    """Of all projects, or of one."""
    rows = agents.json("sessions")

    assert [(row["project_key"], row["session_id"], row["subagents"], row["objects"]) for row in rows] == [
        ("-home-app", FIRST["session_id"], 1, 2),
        ("tenant/b", SECOND["session_id"], 0, 1),
    ]
    assert [row["session_id"] for row in agents.json("sessions", "--project", "tenant/b")] == [SECOND["session_id"]]
    assert len(agents.json("sessions", "--limit", "1")) == 1


def test_usage_counts_sessions_beside_runs_and_threads(agents: Cli) -> None:
    """A row each in a pipe, a table of their own on a terminal, and in the total; their subagents are part of them."""
    usage = agents("usage", "--price", "1000000")
    table = agents("usage", "--output", "table")
    rows = [json.loads(line) for line in usage.stdout.splitlines()]

    assert [(row["kind"], row["project_key"], row["session_id"], row["objects"]) for row in rows] == [
        ("session", "-home-app", FIRST["session_id"], 2),
        ("session", "tenant/b", SECOND["session_id"], 1),
    ]
    assert all(row["usd_per_month"] == pytest.approx(row["bytes"] / 1000) for row in rows)
    assert "0 runs, 0 threads, 2 sessions, 3 objects" in usage.stderr
    assert "SESSION" in table.stdout
    assert FIRST["session_id"] in table.stdout


def test_sessions_of_an_empty_bucket_are_none(cli: Cli) -> None:
    """And a note says where was looked."""
    result = cli("sessions")

    assert (result.stdout, result.exit_code) == ("", 0)
    assert "no sessions in s3://" in result.stderr


def test_session_show_gives_the_transcript_as_it_was_appended(agents: Cli) -> None:
    """An entry a line in a pipe; by the beginning of the id."""
    shown = agents("session", "show", "aaaa")

    assert [json.loads(line) for line in shown.stdout.splitlines()] == ENTRIES
    assert agents.json("session", "show", "aaaa", "--subpath", "subagents/agent-1")[0]["message"] == {
        "content": "look it up"
    }


def test_session_show_draws_a_table_without_escapes_of_others(agents: Cli) -> None:
    """Messages first; what is not ours is text."""
    shown = agents("session", "show", "aaaa", "--output", "table").stdout

    assert "hi · tool_use" in shown
    assert "greeting" in shown
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("session", "show", "cccc"), ExitCode.NOT_FOUND),
        (("session", "show", ""), ExitCode.NOT_FOUND),
        (("session", "show", "aaaa", "--project", "tenant/b"), ExitCode.NOT_FOUND),
        (("session", "show", "aaaa", "--subpath", "subagents/agent-9"), ExitCode.NOT_FOUND),
        (("session", "delete", "cccc", "--yes"), ExitCode.NOT_FOUND),
        (("session", "delete", "aaaa"), ExitCode.USAGE),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_absent_sessions_have_their_exit_code(agents: Cli, words: tuple[str, ...], code: ExitCode) -> None:
    """And nothing is removed."""
    assert agents(*words).exit_code == code
    assert len(agents.json("sessions")) == 2


def test_an_id_that_two_sessions_begin_with_is_refused(agents: Cli) -> None:
    """They are named."""
    with SyncS3SessionStore(agents.settings()) as sessions:
        sessions.append({**SECOND, "session_id": FIRST["session_id"]}, [{"type": "user"}])

    result = agents("session", "show", "aaaa")

    assert result.exit_code == ExitCode.USAGE
    assert "2 sessions' ids" in result.stderr
    assert agents("session", "show", "aaaa", "--project", "tenant/b").exit_code == 0


def test_session_delete_removes_the_session_and_its_subagents(agents: Cli) -> None:
    """A dry run tells the same and removes nothing."""
    trial = agents.json("session", "delete", "aaaa", "--dry-run")
    kept = len(agents.json("sessions"))
    deleted = json.loads(agents("session", "delete", "aaaa", "--yes").stdout.splitlines()[0])

    assert kept == 2
    assert trial == {**deleted, "dry_run": True}
    assert (deleted["subagents"], deleted["objects"]) == (1, 2)
    assert [row["session_id"] for row in agents.json("sessions")] == [SECOND["session_id"]]
    with SyncS3SessionStore(agents.settings()) as sessions:
        assert sessions.load(SUB) is None
