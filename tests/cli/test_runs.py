"""`runs` with statuses: which are to be continued, which wait for a human, which moved lately."""

from __future__ import annotations

from uuid import UUID

import pytest
from moto.backends import get_backend

from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.cli.exit_codes import ExitCode
from tests.cli.terminal import run_on_terminal
from tests.command_line import FIRST, FORK, SAVED, Cli

TRANSPORT = "obstore"  # what is told of runs depends on no transport, and this one opens sooner


def found(cli: Cli, *arguments: str) -> list[str]:
    return [row["run_id"] for row in cli.json("runs", *arguments)]


def test_runs_tell_status_next_nodes_and_time(three_runs: Cli) -> None:
    """One that was only saved has no tasks to tell by."""
    rows = {row["run_id"]: (row["status"], row["next"], row["newest_step"]) for row in three_runs.json("runs", "-l")}

    assert rows == {
        str(FIRST): ("active", ["plan"], 15),
        str(FORK): ("finished", [], 1),
        str(SAVED): (None, None, 0),
    }


def test_runs_are_found_by_status_node_and_time(three_runs: Cli) -> None:
    """Each narrows what is shown; together they are all to hold."""
    assert found(three_runs, "--active") == found(three_runs, "--status", "active") == [str(FIRST)]
    assert found(three_runs, "--status", "finished") == [str(FORK)]
    assert found(three_runs, "--node", "plan") == [str(FIRST)]
    assert found(three_runs, "--node", "search") == []
    assert len(found(three_runs, "--since", "2h")) == 3
    assert found(three_runs, "--since", "2h", "--status", "finished") == [str(FORK)]
    assert "no such runs" in three_runs("runs", "--node", "search").stderr


def test_runs_wait_where_the_operator_says_so(three_runs: Cli) -> None:
    """At the nodes named with `--waiting-on`: the store does not know for whom a node waits."""
    assert found(three_runs, "--status", "waiting", "--waiting-on", "plan") == [str(FIRST)]
    assert found(three_runs, "--status", "active", "--waiting-on", "plan") == []
    statuses = [row["status"] for row in three_runs.json("runs", "--waiting-on", "write", "--waiting-on", "plan")]
    assert statuses == ["waiting", "finished", None]


def test_runs_on_a_terminal_show_the_status(three_runs: Cli) -> None:
    shown = run_on_terminal(three_runs, ["runs", "--active"]).text

    row = next(line for line in shown.splitlines() if line.startswith(str(FIRST)))
    assert row.split()[-2:] == ["active", "plan"]


def test_two_hundred_runs_are_listed_with_their_newest_steps(cli: Cli) -> None:
    """In the order of their ids; `-n` stops earlier."""
    backend = get_backend("s3")["123456789012"]["aws"]
    runs = [UUID(int=number << 96 | number) for number in range(200)]
    for number, run_id in enumerate(runs):
        backend.put_object(cli.bucket, RunKeys("", run_id).state(number), b"{}")

    rows = cli.json("runs", "-l")

    assert [(row["run_id"], row["newest_step"]) for row in rows] == [(str(one), n) for n, one in enumerate(runs)]
    assert found(cli, "-n", "7") == [str(run_id) for run_id in runs[:7]]


@pytest.mark.parametrize(
    "arguments",
    [["--active", "--status", "finished"], ["--status", "waiting"], ["--status", "gone"], ["--since", "soon"]],
    ids=" ".join,
)
def test_questions_that_exclude_each_other_are_wrong_usage(three_runs: Cli, arguments: list[str]) -> None:
    result = three_runs("runs", *arguments)

    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
