"""The commands in a pipe: what they write, where, and how they end. Against the moto server."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from moto.backends import get_backend

from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.cli.app import COMMANDS
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.lazy_group import Group, load
from tests.command_line import FIRST, FORK, SAVED, Cli

STEPS = [*range(7), *range(11, 16)]


MODULES: dict[tuple[str, ...], str] = {}
"""The words that call each command, and its module."""
for name, entry in COMMANDS.items():
    if isinstance(entry, Group):
        MODULES |= {(name, inner): lazy.module for inner, lazy in entry.commands.items()}
    else:
        MODULES[name,] = entry.module
EVERY_COMMAND = list(MODULES)


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_runs_lists_every_run_once(three_runs: Cli) -> None:
    """One JSON object a line in a pipe; the newest step of each on request."""
    assert lines(three_runs("runs").stdout) == [{"run_id": str(run)} for run in (FIRST, FORK, SAVED)]
    assert [(r["run_id"], r["newest_step"]) for r in three_runs.json("runs", "--long")] == [
        (str(FIRST), 15),
        (str(FORK), 1),
        (str(SAVED), 0),
    ]
    assert len(three_runs.json("runs", "--limit", "2")) == 2


def test_steps_lists_time_and_size_of_each(three_runs: Cli) -> None:
    """As a listing has them."""
    rows = three_runs.json("steps", str(FIRST))

    assert [row["step"] for row in rows] == STEPS
    assert all(row["size"] > 0 and row["last_modified"].endswith("+00:00") for row in rows)


def test_show_gives_the_newest_step_whole(three_runs: Cli) -> None:
    """Without the application's types and schema version."""
    row = three_runs.json("show", "aaaa0")

    assert (row["run_id"], row["step"], row["committed"], row["schema_version"]) == (str(FIRST), 15, True, "3")
    assert row["state"] == {"question": "why", "notes": [f"note <{n}>" for n in range(15)], "final": True}
    assert row["active"] == [{"node_name": "plan", "payload": {"section": 15}}]
    assert json.loads(three_runs("show", "bbbb").stdout)["committed"] is False


def test_show_names_the_origin_of_a_fork(three_runs: Cli) -> None:
    """Where it came from is in its first step."""
    assert three_runs.json("show", str(FORK), "--step", "0")["origin"] == {"run_id": str(FIRST), "step": 3}


def test_active_lists_the_tasks_that_run_next(three_runs: Cli) -> None:
    """And says on stderr when there are none."""
    assert three_runs.json("active", "aaaa0", "--step", "1") == [{"node_name": "search", "payload": {"section": 1}}]
    none = three_runs("active", str(FORK))
    assert (none.exit_code, none.stdout) == (0, "")
    assert "no active tasks after step 1" in none.stderr


def test_history_goes_back_from_the_newest(three_runs: Cli) -> None:
    """Twenty steps unless told otherwise, with a note when there are more."""
    cut = three_runs("history", "aaaa0", "-n", "3")

    assert [row["step"] for row in lines(cut.stdout)] == [15, 14, 13]
    assert "3 of 12 steps" in cut.stderr
    assert [row["step"] for row in three_runs.json("history", "aaaa0", "--all")] == STEPS[::-1]


def test_diff_names_what_changed_by_path(three_runs: Cli) -> None:
    """State and tasks; the exit code tells on request."""
    changes = three_runs.json("diff", "aaaa0", "14", "15")

    assert changes == [
        {"path": "$.notes[14]", "change": "added", "after": "note <14>"},
        {"path": "$.final", "change": "changed", "before": False, "after": True},
        {"path": "$active[0].node_name", "change": "changed", "before": "write", "after": "plan"},
        {"path": "$active[0].payload.section", "change": "changed", "before": 14, "after": 15},
    ]
    assert three_runs("diff", "aaaa0", "14", "15", "--exit-code").exit_code == ExitCode.NO
    same = three_runs("diff", "aaaa0", "14", "14", "--exit-code")
    assert (same.exit_code, same.stdout) == (0, "")


def test_fork_prints_the_new_run(own_runs: Cli) -> None:
    """On stdout, so that a script can use it."""
    new = own_runs("fork", "aaaa0", "--step", "5").stdout.strip()

    row = own_runs.json("show", new)
    assert (row["step"], row["origin"]) == (0, {"run_id": str(FIRST), "step": 5})
    taken = own_runs("fork", "aaaa0", "--new-run-id", str(SAVED))
    assert taken.exit_code == ExitCode.USAGE
    assert "already has steps" in taken.stderr


def test_prune_says_what_goes_and_keeps_the_rest(own_runs: Cli) -> None:
    """A dry run removes nothing; the newest step stays whatever the rule."""
    young = own_runs.json("prune", "aaaa0", "--keep-last", "2")
    assert (young["states"], young["kept"], young["young"]) == (0, 12, 10)
    stopped = ("--grace", "0s")
    planned = own_runs.json("prune", "aaaa0", "--keep-last", "2", "--dry-run", *stopped)
    assert (planned["steps"], planned["states"], planned["kept"], planned["dry_run"]) == (STEPS[:-2], 10, 2, True)
    assert len(own_runs.json("steps", "aaaa0")) == 12

    assert own_runs.json("prune", "aaaa0", "--older-than", "0s", *stopped)["kept"] == 1
    everything = own_runs.json("prune", "--all", "--keep-last", "1", *stopped)

    assert (everything["runs"], everything["kept"], everything["states"]) == (3, 3, 1)
    assert own_runs.json("show", "aaaa0")["step"] == 15


@pytest.mark.parametrize(
    "arguments",
    [
        ["prune", "--keep-last", "1"],
        ["prune", "aaaa0", "--all", "--keep-last", "1"],
        ["prune", "aaaa0"],
        ["prune", "aaaa0", "--keep-last", "0"],
        ["prune", "aaaa0", "--older-than", "soon"],
        ["show", "not-hex"],
        ["show", "aaaa"],
        ["runs", "--bucket", "s3://x/y?z"],
    ],
)
def test_wrong_usage_is_said_and_changes_nothing(three_runs: Cli, arguments: list[str]) -> None:
    """Exit code 2 (5 for a bucket that cannot be), a message, and nothing on stdout."""
    result = three_runs(*arguments)

    assert result.exit_code == (ExitCode.CONFIGURATION if "--bucket" in arguments else ExitCode.USAGE)
    assert result.stdout == ""
    assert result.stderr
    assert len(three_runs.json("steps", "aaaa0")) == 12


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "cccc"],
        ["show", "aaaa0", "--step", "99"],
        ["prune", "9" * 8 + "-0000-4000-8000-000000000000", "--keep-last", "1"],
        ["steps", "9" * 8 + "-0000-4000-8000-000000000000"],
    ],
)
def test_exit_code_3_is_for_what_is_not_there(three_runs: Cli, arguments: list[str]) -> None:
    """For a run and for a step."""
    result = three_runs(*arguments)

    assert (result.exit_code, result.stdout) == (ExitCode.NOT_FOUND, "")


def test_delete_asks_unless_told_not_to(own_runs: Cli) -> None:
    """With nobody to ask it refuses; told `--yes` it removes that run and no other."""
    refused = own_runs("delete", "aaaa0")
    assert refused.exit_code == ExitCode.USAGE
    assert "--yes" in refused.stderr
    assert own_runs.json("delete", "aaaa0", "--dry-run")["states"] == 12

    assert own_runs.json("delete", "aaaa0", "--yes")["states"] == 12

    assert [row["run_id"] for row in own_runs.json("runs")] == [str(FORK), str(SAVED)]
    assert own_runs("delete", str(FIRST), "--yes").exit_code == ExitCode.NOT_FOUND


def test_usage_adds_up(three_runs: Cli) -> None:
    """Bytes as listed, dollars by the price given."""
    rows = three_runs.json("usage", "--price", "1000000000")

    assert [(row["run_id"], row["steps"], row["objects"]) for row in rows] == [
        (str(FIRST), 12, 24),
        (str(FORK), 2, 4),
        (str(SAVED), 1, 1),
    ]
    assert all(row["usd_per_month"] == pytest.approx(row["bytes"]) for row in rows)


def test_usage_counts_the_threads_of_langgraph_too(cli: Cli) -> None:
    """Each, and in the total."""
    backend = get_backend("s3")["123456789012"]["aws"]
    for number in range(3):
        backend.put_object(cli.bucket, f"threads/t/{number}", b"x" * 1000)

    usage = cli("usage", "--price", "1000000")

    assert [(row["thread_id"], row["objects"], row["bytes"]) for row in lines(usage.stdout)] == [("t", 3, 3000)]
    assert "0 runs, 1 threads, 3 objects, 2.9 KiB, about $3.00 a month" in usage.stderr


def test_usage_counts_memories_too(cli: Cli) -> None:
    """All together, and in the total; a table has a line for them."""
    backend = get_backend("s3")["123456789012"]["aws"]
    for number in range(3):
        backend.put_object(cli.bucket, f"memories/users/{number}.json", b"x" * 1000)

    usage = cli("usage", "--price", "1000000")
    table = cli("usage", "-o", "table")

    assert [(row["kind"], row["objects"], row["bytes"]) for row in lines(usage.stdout)] == [("memories", 3, 3000)]
    assert "0 runs, 0 threads, 3 memories, 3 objects, 2.9 KiB, about $3.00 a month" in usage.stderr
    assert "memories" in table.stdout


@pytest.mark.parametrize("command", [["runs"], ["usage"], ["prune", "--all", "--keep-last", "1"]])
def test_an_empty_bucket_is_no_error(cli: Cli, command: list[str]) -> None:
    """It is said on stderr, or counted as nothing."""
    result = cli(*command)

    assert result.exit_code == 0
    assert "{" not in result.stdout or '"runs":0' in result.stdout


def test_a_bucket_that_does_not_exist_is_named(cli: Cli) -> None:
    """With what to do."""
    result = cli("runs", "--bucket", "no-such-bucket-here")

    assert (result.exit_code, result.stdout) == (ExitCode.CONFIGURATION, "")
    assert "the bucket does not exist" in result.stderr
    assert "no-such-bucket-here" in result.stderr


class Denied(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def denied_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Denied)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("command", "action"),
    [
        (["runs"], "s3:ListBucket"),
        (["show", str(FIRST), "--step", "1"], "s3:GetObject"),
        (["usage"], "s3:ListBucket"),
    ],
)
def test_a_denied_bucket_names_the_action_to_grant(cli: Cli, denied_url: str, command: list[str], action: str) -> None:
    """Exit code 4."""
    result = cli(*command, "--endpoint-url", denied_url)

    assert (result.exit_code, result.stdout) == (ExitCode.DENIED, "")
    assert action in result.stderr


def test_a_store_that_does_not_answer_is_exit_code_6(cli: Cli) -> None:
    """The same command can be run again."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Denied)
    port = server.server_port
    server.server_close()

    result = cli("runs", "--endpoint-url", f"http://127.0.0.1:{port}")

    assert result.exit_code == ExitCode.UNAVAILABLE
    assert "calling again" in result.stderr


def test_a_command_without_credentials_says_what_to_give(cli: Cli) -> None:
    """And nothing of a traceback."""
    result = cli("runs", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")

    assert result.exit_code == ExitCode.CONFIGURATION
    assert "give a profile, a role, or an access key and its secret" in result.stderr


def test_a_damaged_step_is_named(own_runs: Cli) -> None:
    """Exit code 7, with the object's key; the other steps are shown."""
    key = RunKeys("", FIRST).state(15)
    bucket = get_backend("s3")["123456789012"]["aws"].get_bucket(own_runs.bucket)
    bucket.keys[key].value = b"{}"

    for command in (["show", "aaaa0"], ["history", "aaaa0", "--all"], ["timeline", "aaaa0"]):
        result = own_runs(*command)
        assert result.exit_code == ExitCode.UNREADABLE
        assert key in result.stderr
    assert [row["step"] for row in lines(own_runs("history", "aaaa0", "--all").stdout)] == STEPS[:-1][::-1]


@pytest.mark.parametrize("steps", [2_010, pytest.param(5_000, marks=pytest.mark.long)])
def test_a_run_of_thousands_of_steps_is_listed_and_pruned(cli: Cli, steps: int) -> None:
    """By thousands, not one by one: whole pages, and one that is not full."""
    keys = RunKeys("", FIRST)
    backend = get_backend("s3")["123456789012"]["aws"]
    for step in range(steps):
        backend.put_object(cli.bucket, keys.state(step), b"{}")

    assert len(lines(cli("steps", str(FIRST)).stdout)) == steps
    assert cli.json("runs", "--long")[0]["newest_step"] == steps - 1
    pruned = cli.json("prune", str(FIRST), "--keep-last", "10", "--grace", "0s")

    assert (pruned["states"], pruned["kept"]) == (steps - 10, 10)
    assert [row["step"] for row in cli.json("steps", str(FIRST))] == list(range(steps - 10, steps))


def test_options_are_given_before_or_after_the_command(three_runs: Cli) -> None:
    """As with the AWS command line; after it wins."""
    env = {"S3_CHECKPOINT_BUCKET": ""}

    before = three_runs("--bucket", three_runs.bucket, "runs", **env)
    after = three_runs("--bucket", "other", "runs", "--bucket", f"s3://{three_runs.bucket}/", **env)
    missing = three_runs("runs", **env)

    assert before.stdout == after.stdout != ""
    assert missing.exit_code == ExitCode.USAGE
    assert "--bucket" in missing.stderr


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_help_of_a_command_explains_it_and_gives_flags_no_type(cli: Cli, words: tuple[str, ...]) -> None:
    """A sentence, its options, and nothing of `<bool>`."""
    shown = cli(*words, "--help", COLUMNS="120").stdout

    assert len(load(words[-1], MODULES[words]).help or "") > 20
    assert "--help" in shown
    assert "<bool>" not in shown


def test_reference_page_has_every_command() -> None:
    """And no other."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| `")]

    assert {name for row in rows for name in re.findall("`([^`]+)`", row)} == {" ".join(words) for words in MODULES}


def test_help_lists_every_command_with_its_summary(cli: Cli) -> None:
    """In the order of the table, groups as one."""
    shown = cli("--help", COLUMNS="200").stdout

    assert "<bool>" not in shown
    assert all(f" {name} " in shown and one.summary in shown for name, one in COMMANDS.items())


def test_pruned_steps_are_told_from_missing_ones(own_runs: Cli) -> None:
    """In the notes of `history` and `timeline`, and in the timeline's JSON."""
    assert own_runs.json("timeline", "aaaa0")["pruned_up_to"] is None
    own_runs("prune", "aaaa0", "--keep-last", "2", "--grace", "0s")

    for command in ("history", "timeline"):
        assert f"pruned up to step {STEPS[-3]}" in own_runs(command, "aaaa0").stderr
    assert own_runs.json("timeline", "aaaa0")["pruned_up_to"] == STEPS[-3]
