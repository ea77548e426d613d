"""The commands on LangGraph threads, on a bucket with 36 threads of real graphs and three runs."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import START, StateGraph

from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.langgraph import S3Saver
from tests.cli.terminal import run_on_terminal
from tests.command_line import FIRST, Cli, new_bucket, with_three_runs
from tests.langgraph.counting import at, chain, put
from tests.langgraph.graphs import Trail, asking, chat, delta, nested, tool_agent

LONG = "x" * 200
ODD = "support/case 42 \x1b[2J"
OTHERS = [
    f"batch-{number:02d}" for number in range(28)
]  # with the others more than two parts of 16, in which threads are looked at


def failing() -> Any:
    def fail(_: Any) -> Any:
        raise ValueError("no such tool")

    builder: Any = StateGraph(Trail)
    builder.add_node("fail", fail)
    builder.add_edge(START, "fail")
    return builder


def with_threads(cli: Cli) -> Cli:
    with S3Saver(cli.settings()) as saver:
        asking().compile(checkpointer=saver).invoke({"trail": ["go"]}, at(ODD))
        nested(ask=True).compile(checkpointer=saver).invoke({"trail": []}, at("nested"))
        graph = chat().compile(checkpointer=saver)
        for text in ("hi", "how are you", "bye"):
            graph.invoke({"messages": [HumanMessage(text, id=text)]}, at("chat"))
        tool_agent().compile(checkpointer=saver).invoke({"messages": [HumanMessage("rain?", id="q")]}, at("agent"))
        delta(every=3).compile(checkpointer=saver).invoke({}, at("delta") | {"recursion_limit": 50})
        with pytest.raises(ValueError, match="no such tool"):
            failing().compile(checkpointer=saver).invoke({"trail": ["x"]}, at("failed"))
        chain(saver, at(LONG), 3)
        for thread_id in OTHERS:
            put(saver, at(thread_id), {"n": 1})
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    with S3Saver(cli.settings(), serde=serde) as saver:
        asking().compile(checkpointer=saver).invoke({"trail": ["hush"]}, at("secret"))
    return cli


@pytest.fixture(scope="module")
def threads(moto_url: str) -> Cli:
    """The command line on a bucket with 36 threads, which the module's tests share and do not change."""
    return with_threads(with_three_runs(new_bucket(moto_url)))


@pytest.fixture
def own_threads(cli: Cli) -> Cli:
    """Two threads, for one test alone."""
    with S3Saver(cli.settings()) as saver:
        chain(saver, at("a"), 6)
        chain(saver, at("a b"), 2)
    return cli


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_threads_lists_every_id_whatever_it_holds(threads: Cli) -> None:
    """One JSON object a line in a pipe; on a terminal, control characters are escapes."""
    found = threads("threads")

    assert {row["thread_id"] for row in lines(found.stdout)} == {
        ODD, LONG, "nested", "agent", "chat", "delta", "failed", "secret", *OTHERS,
    }  # fmt: skip
    assert len(threads.json("threads", "--limit", "5")) == 5
    shown = run_on_terminal(threads, ["threads"]).text
    assert "\x1b[2J" not in shown
    assert "support/case 42 \\u001b[2J" in shown


def test_the_turns_of_an_agent_with_tools_are_read_without_its_types(threads: Cli) -> None:
    """What the model called, what the tool said, which node was next; one turn compared with the one before."""
    shown = threads.json("thread", "show", "agent")
    history = threads.json("thread", "history", "agent", "--all")
    changes = threads.json("thread", "diff", "agent", history[1]["checkpoint_id"], history[0]["checkpoint_id"])

    messages = shown["values"]["messages"]
    assert [message["content"] for message in messages] == ["rain?", "", "rain in Oslo", "There is rain in Oslo."]
    assert messages[1]["tool_calls"][0]["args"] == {"city": "Oslo"}
    assert [row["next"] for row in reversed(history)] == [["__start__"], ["model"], ["tools"], ["model"], []]
    assert "There is rain in Oslo." in json.dumps(changes)
    assert "tools" in threads("thread", "timeline", "agent", "--output", "table").stdout


def test_threads_tell_which_wait_for_a_human(threads: Cli) -> None:
    """And for what; the node can be asked for too."""
    waiting = threads.json("threads", "--status", "interrupted")

    told = {row["thread_id"]: row["waits_for"] for row in waiting}
    assert told["secret"][0].pop("size") > len(
        "secret?"
    )  # how LangGraph packs an interrupt differs between its versions
    assert told == {ODD: ["first?"], "nested": ["which way?"], "secret": [{"@type": "encrypted", "cipher": "aes"}]}
    assert [row["thread_id"] for row in threads.json("threads", "--node", "both")] == [ODD]
    assert [row["thread_id"] for row in threads.json("threads", "--status", "in-error")] == ["failed"]
    assert threads.json("threads", "--status", "idle", "--since", "0s") == []
    assert "3 of 36 threads" in threads("threads", "--status", "interrupted").stderr


def test_threads_on_a_terminal_show_status_and_next_nodes(threads: Cli) -> None:
    shown = run_on_terminal(threads, ["threads", "--status", "interrupted"]).text

    row = next(line for line in shown.splitlines() if line.startswith("nested"))
    assert re.split(r"  +", row)[:5] == ["nested", "interrupted", "left", '"which way?"', "1"]


def test_thread_show_tells_values_next_nodes_and_interrupts(threads: Cli) -> None:
    """As JSON in a pipe; the newest checkpoint unless one is named."""
    shown = json.loads(threads("thread", "show", "support").stdout)

    assert (shown["thread_id"], shown["status"], shown["next"]) == (ODD, "interrupted", ["both"])
    assert shown["values"] == {"trail": ["go"]}
    assert [(write["node"], write["channel"]) for write in shown["writes"]] == [("both", "__interrupt__")]
    first = threads.json("thread", "history", "support", "--all")[-1]
    again = threads.json("thread", "show", "support", "--checkpoint", first["checkpoint_id"][-12:])
    assert (again["step"], again["status"]) == (-1, None)


def test_thread_show_on_a_terminal_names_namespaces_to_look_into(threads: Cli) -> None:
    """Quoted, so that they can be pasted; each can be shown."""
    shown = run_on_terminal(threads, ["thread", "show", "nested"]).text

    assert 'waits    left: "which way?"' in shown
    options = [line.removeprefix("also: ").strip() for line in shown.splitlines() if line.startswith("also: ")]
    assert len(options) == 3
    for option in options:
        inner = json.loads(threads("thread", "show", "nested", *shlex.split(option)).stdout)
        assert f"--namespace {shlex.quote(inner['namespace'])}" == option


def test_thread_show_of_delta_channels_and_encrypted_threads(threads: Cli) -> None:
    """What they are rebuilt from; and that they are encrypted."""
    history = threads.json("thread", "history", "delta", "--all")
    rebuilt = next(row for row in history if row["delta_channels"])

    shown = threads.json("thread", "show", "delta", "--checkpoint", rebuilt["checkpoint_id"])
    secret = threads.json("thread", "show", "secret")

    assert shown["delta"]["log"]["writes"]
    assert (secret["encrypted"], secret["status"], secret["next"]) == (True, "interrupted", None)
    assert "hush" not in json.dumps(secret)
    assert "encrypted" in run_on_terminal(threads, ["thread", "show", "secret"]).text


def test_thread_history_goes_back_from_the_newest(threads: Cli) -> None:
    cut = threads("thread", "history", "chat", "-n", "2")

    assert [row["step"] for row in lines(cut.stdout)] == [7, 6]
    assert "2 of 9 checkpoints; --all shows all" in cut.stderr
    assert [row["step"] for row in threads.json("thread", "history", "chat", "--all")] == list(range(7, -2, -1))


def test_thread_diff_tells_what_the_last_turn_changed(threads: Cli) -> None:
    """Without checkpoints named; two of them can be."""
    changes = threads.json("thread", "diff", "chat")

    assert [(change["path"], change["change"], change["after"]["content"]) for change in changes] == [
        ("$.messages[4]", "added", "bye"),
        ("$.messages[5]", "added", "answer 5"),
    ]
    newest, before = (row["checkpoint_id"] for row in threads.json("thread", "history", "chat", "-n", "2"))
    named = threads.json("thread", "diff", "chat", before, newest)
    assert [change["path"] for change in named] == ["$.messages[5]", "$next[0]", *[c["path"] for c in named[2:]]]
    assert threads("thread", "diff", "chat", newest, newest, "--exit-code").exit_code == 0
    assert threads("thread", "diff", "chat", before, newest, "--exit-code").exit_code == ExitCode.NO


def test_thread_timeline_draws_turns_and_what_waits(threads: Cli) -> None:
    shown = threads("thread", "timeline", "chat", "-n", "4").stdout

    assert shown.startswith("thread chat: last 4 of 9 checkpoints")
    assert shown.count("a new turn") == 1
    assert '?  waits: left: "which way?"' in threads("thread", "timeline", "nested").stdout
    document = threads.json("thread", "timeline", "chat")
    assert [one["step"] for one in document["checkpoints"]] == list(range(7, -2, -1))
    assert document["checkpoints"][0]["changes"][0]["path"] == "$.messages[5]"


@pytest.mark.parametrize("command", [["threads", "-l"], ["thread", "history", "chat"], ["runs", "-l"], ["usage"]])
def test_ids_stay_whole_on_one_line_at_40_columns(threads: Cli, command: list[str]) -> None:
    """And what else there is comes below them."""
    shown = run_on_terminal(threads, [*command, "--output", "table"], COLUMNS="40").text

    found = {row.get("checkpoint_id") if "history" in command else row.get("run_id") or row.get("thread_id")
             for row in lines(threads(*command).stdout)}  # fmt: skip
    whole = {line.strip() for line in shown.splitlines()}
    assert {name for name in found if name != ODD} <= whole
    assert all(len(line) <= 40 for line in whole - found if not line.startswith(("support", "s3://")))


@pytest.mark.parametrize("command", [["show", "aaaa0"], ["thread", "show", "chat"]])
def test_ids_among_fields_stay_whole_on_one_line_at_40_columns(threads: Cli, command: list[str]) -> None:
    """Story: behind their names they went over the edge, and the terminal broke them. Shorter values stay there."""
    shown = run_on_terminal(threads, [*command, "--output", "table"], COLUMNS="40").text.splitlines()

    ids = [line for line in shown if re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", line)]
    assert ids
    assert all(len(line) == 36 for line in ids)
    assert any(re.fullmatch(r"(step|thread) +\w+", line) for line in shown)


def test_thread_diff_at_40_columns_keeps_the_id_it_starts_from_whole(threads: Cli) -> None:
    """On a line of its own; where there is room, and in a pipe, beside its name."""
    told = next(line for line in threads("thread", "diff", "chat").stderr.splitlines() if "since" in line)
    shown = run_on_terminal(threads, ["thread", "diff", "chat"], COLUMNS="40").text.splitlines()

    assert told.removeprefix("since checkpoint ") in shown
    assert told in run_on_terminal(threads, ["thread", "diff", "chat"]).text.splitlines()


def test_timeline_at_40_columns_keeps_the_ids_of_forks_whole(threads: Cli) -> None:
    shown = run_on_terminal(threads, ["timeline", "aaaa0"], COLUMNS="40").text

    assert "forked as aaaa1111-0000-4000-8000-000000000002\r\n" in shown
    steps = [line for line in shown.splitlines() if re.match(r" *\d+  ", line)]
    assert len(steps) == 12
    assert all(len(line) <= 40 for line in steps)


def test_prefixes_of_ids_name_a_thread_if_they_name_one(threads: Cli) -> None:
    """The one that is equal comes first; several are named, and none is a hint."""
    assert json.loads(threads("thread", "show", "batch-00").stdout)["thread_id"] == "batch-00"
    assert json.loads(threads("thread", "show", "x" * 140).stdout)["thread_id"] == LONG
    several = threads("thread", "show", "batch-")
    assert (several.exit_code, several.stdout) == (ExitCode.USAGE, "")
    assert "'batch-00', 'batch-01', 'batch-02', …" in several.stderr
    none = threads("thread", "show", "nothing")
    assert (none.exit_code, none.stdout) == (ExitCode.NOT_FOUND, "")
    assert "`s3-checkpoint threads` lists them" in none.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["thread", "show", "nested", "--namespace", "zzz"], ExitCode.NOT_FOUND, "the graph itself, --namespace left:"),
        (["thread", "history", "nested", "--namespace", "zzz"], ExitCode.NOT_FOUND, "--namespace left:"),
        (["thread", "timeline", "nested", "--namespace", "zzz"], ExitCode.NOT_FOUND, "--namespace left:"),
        (["thread", "show", "chat", "-c", "zzz"], ExitCode.NOT_FOUND, "`s3-checkpoint thread history chat` lists them"),
        (["thread", "show", "chat", "-c", "1"], ExitCode.USAGE, "add to it"),
        (["thread", "prune", "chat"], ExitCode.USAGE, "say what to keep"),
        (["thread", "prune", "--keep-last", "1"], ExitCode.USAGE, "--all"),
        (["thread", "delete", "chat"], ExitCode.USAGE, "--yes"),
        (["show", "chat"], ExitCode.USAGE, "`s3-checkpoint thread show chat`"),
        (["steps", str(FIRST), "--namespace", "zzz"], ExitCode.NOT_FOUND, f"`s3-checkpoint steps {FIRST}`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_question_is_answered_with_the_right_command(
    threads: Cli, arguments: list[str], code: ExitCode, hint: str
) -> None:
    result = threads(*arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert hint in result.stderr


def test_threads_and_runs_say_what_is_there_instead(cli: Cli) -> None:
    """A prefix with only threads is not empty, nor is one with only runs."""
    assert cli("threads").stderr == f"no threads in s3://{cli.bucket}\n"
    with S3Saver(cli.settings()) as saver:
        put(saver, at("t"))

    assert "no runs" in cli("runs").stderr
    assert "but LangGraph threads: `s3-checkpoint threads` lists them" in cli("runs").stderr


def test_thread_prune_says_what_goes_and_keeps_the_rest(own_threads: Cli) -> None:
    """A dry run removes nothing; both rules together let only go what both let go."""
    planned = own_threads.json("thread", "prune", "a", "--keep-last", "2", "--dry-run")
    assert (planned["thread_id"], planned["checkpoints"], planned["kept"], planned["dry_run"]) == ("a", 4, 2, True)
    assert own_threads.json("thread", "prune", "a", "--keep-last", "2", "--older-than", "1d")["checkpoints"] == 0
    assert len(own_threads.json("thread", "history", "a")) == 6

    assert own_threads.json("thread", "prune", "a", "--keep-last", "2")["checkpoints"] == 4
    everything = own_threads.json("thread", "prune", "--all", "--keep-last", "1", "--grace", "0s")

    assert (everything["threads"], everything["checkpoints"], everything["kept"]) == (2, 2, 2)
    assert [row["step"] for row in own_threads.json("thread", "history", "a")] == [5]


def test_thread_copy_and_delete(own_threads: Cli) -> None:
    """A copy does not go over a thread that is there; a deletion is that thread's alone."""
    assert own_threads("thread", "copy", "a", "c/1").exit_code == 0
    assert own_threads("thread", "copy", "a", "a b").exit_code == ExitCode.CONFLICT
    assert own_threads.json("thread", "delete", "a", "--dry-run")["checkpoints"] == 6

    assert own_threads.json("thread", "delete", "a", "--yes")["checkpoints"] == 6

    assert [row["thread_id"] for row in own_threads.json("threads")] == ["a b", "c/1"]
    assert len(own_threads.json("thread", "history", "c/1")) == 6


def test_thread_delete_removes_nothing_where_it_cannot_ask(own_threads: Cli) -> None:
    refused = own_threads("thread", "delete", "a", stdin="n\n")

    assert refused.exit_code == ExitCode.USAGE
    assert len(own_threads.json("threads")) == 2


def test_usage_counts_runs_and_threads_in_a_pipe(threads: Cli) -> None:
    rows = lines(threads("usage").stdout)

    assert sum(row["kind"] == "run" for row in rows) == 3
    assert {row["thread_id"] for row in rows if row["kind"] == "thread"} >= {ODD, LONG, *OTHERS}
    assert "3 runs, 36 threads" in threads("usage").stderr


def test_threads_are_counted_together_without_langgraph(threads: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the commands on threads say what to install."""
    monkeypatch.setitem(__import__("sys").modules, "s3_checkpoint.langgraph", None)

    usage = threads("usage")
    missing = threads("threads")

    assert [row["thread_id"] for row in lines(usage.stdout) if row["kind"] == "thread"] == [None]
    assert missing.exit_code == ExitCode.CONFIGURATION
    assert "pip install 's3-checkpoint[cli,langgraph]'" in missing.stderr
