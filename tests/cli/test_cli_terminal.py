"""The commands on a terminal: tables, colours, questions, Ctrl-C, and a reader that goes away."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pexpect
import pytest
from moto.backends import get_backend

from s3_checkpoint import connect
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint.cli.exit_codes import ExitCode
from tests.command_line import FIRST, FORK, SAVED, Cli

TRANSPORT = "obstore"  # imported and opened sooner, once per process; where it matters, tests name the default one
DEFAULT = {"S3_CHECKPOINT_TRANSPORT": "aiobotocore"}
COMMAND = [sys.executable, "-m", "s3_checkpoint.cli"]
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def environment(cli: Cli, **more: str) -> Any:
    """As the test's own, but for the size of a terminal that it may name: the command is to ask its terminal."""
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return {**own, "TERM": "xterm-256color", **cli.env, **more}


def on_terminal(cli: Cli, *arguments: str, **env: str) -> pexpect.spawn[str]:
    return pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], *arguments],
        env=environment(cli, **env),
        encoding="utf-8",
        dimensions=(40, 120),
        timeout=180,
    )


def shown(child: pexpect.spawn[str]) -> tuple[str, int]:
    """What the terminal received, and the exit code."""
    child.expect(pexpect.EOF)
    child.close()
    assert child.signalstatus is None
    return str(child.before), int(child.exitstatus or 0)


def test_a_terminal_gets_a_table(three_runs: Cli) -> None:
    """With a header; a pipe gets JSON."""
    text, code = shown(on_terminal(three_runs, "runs", "--long"))

    assert code == 0
    lines = [STYLE.sub("", line).split() for line in text.splitlines()]
    # On a slow machine the counts of the progress come first: on the same line, once the cursor's moves are gone.
    header = next((n for n, line in enumerate(lines) if "NEWEST" in line), None)
    assert header is not None, text
    assert lines[header][lines[header].index("NEWEST") :][:2] == ["NEWEST", "STEP"]
    assert [line[:2] for line in lines[header + 1 : header + 4]] == [
        [str(FIRST), "15"],
        [str(FORK), "1"],
        [str(SAVED), "0"],
    ]


def test_differences_are_coloured_unless_unwanted(three_runs: Cli) -> None:
    """`NO_COLOR` is honoured."""
    coloured, _ = shown(on_terminal(three_runs, "diff", "aaaa0", "14", "15"))
    plain, _ = shown(on_terminal(three_runs, "diff", "aaaa0", "14", "15", NO_COLOR="1"))

    assert COLOUR.search(coloured)
    assert not COLOUR.search(plain)
    assert STYLE.sub("", coloured) == STYLE.sub("", plain)
    assert "~ $.final: false → true" in STYLE.sub("", plain)


def test_show_describes_the_step_and_its_state(three_runs: Cli) -> None:
    """As a person reads it."""
    text, code = shown(on_terminal(three_runs, "show", str(FORK), "--step", "0"))

    text = STYLE.sub("", text)
    assert code == 0
    assert re.search(rf"fork of\s+run {FIRST}, step 3", text)
    assert '"question": "why"' in text


def test_a_long_state_is_cut_with_a_note(own_runs: Cli) -> None:
    """And all of it goes to the pager, or to a pipe."""

    async def save() -> None:
        async with connect(dict[str, Any], own_runs.settings()) as checkpointer:
            await checkpointer.save(SAVED, 1, {"rows": list(range(1000)), "text": "x" * 5000})

    asyncio.run(save())

    text, _ = shown(on_terminal(own_runs, "show", "bbbb"))
    full, _ = shown(on_terminal(own_runs, "show", "bbbb", "--full", PAGER="cat"))

    assert "cut: 200 of 1,005 lines; --full shows all" in STYLE.sub("", text)
    assert "999" not in text
    assert "999" in full
    assert own_runs.json("show", "bbbb")["state"]["rows"][-1] == 999


def test_a_long_listing_is_cut_with_a_note(cli: Cli) -> None:
    """On a terminal; a pipe gets all of it."""
    backend, keys = get_backend("s3")["123456789012"]["aws"], RunKeys("", FIRST)
    for step in range(300):
        backend.put_object(cli.bucket, keys.state(step), b"{}")

    text, code = shown(on_terminal(cli, "steps", str(FIRST)))

    lines = STYLE.sub("", text).splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines if line.strip().endswith("2 B")] == [str(n) for n in range(100, 300)]
    assert "cut: the last 200 of 300 steps; --all shows all" in lines
    assert len(cli("steps", str(FIRST)).stdout.splitlines()) == 300


def test_many_changes_are_cut_with_a_note(cli: Cli) -> None:
    """On a terminal; a pipe gets all of them."""

    async def save() -> None:
        async with connect(dict[str, Any], cli.settings()) as checkpointer:
            for step in (0, 1):
                await checkpointer.save(SAVED, step, {f"key-{n:03d}": step for n in range(300)})

    asyncio.run(save())

    text, _ = shown(on_terminal(cli, "diff", "bbbb", "0", "1"))

    assert STYLE.sub("", text).count("~ $") == 200
    assert "cut: 200 of 300 changes; --full shows all" in STYLE.sub("", text)
    assert len(cli.json("diff", "bbbb", "0", "1")) == 300


def test_delete_asks_and_takes_no_for_an_answer(own_runs: Cli) -> None:
    """Ctrl-C at the question is a no as well."""
    refused = on_terminal(own_runs, "delete", "aaaa0")
    refused.expect(r"Delete run aaaa0000.* 12 steps, 24 objects.*\[y/N\]")
    refused.sendline("n")
    text, code = shown(refused)
    assert (code, "nothing was deleted" in text) == (ExitCode.NO, True)

    interrupted = on_terminal(own_runs, "delete", "aaaa0", **DEFAULT)
    interrupted.expect(r"\[y/N\]")
    ended = False
    for _ in range(6):  # one that comes just before readline waits for a key is noticed with the next
        interrupted.sendintr()
        ended = interrupted.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=10) == 0
        if ended:
            break
    assert ended
    text = str(interrupted.before)
    interrupted.close()
    assert (interrupted.exitstatus, "Traceback" in text) == (ExitCode.INTERRUPTED, False)
    assert "s3-checkpoint: interrupted" in text
    assert len(own_runs.json("steps", "aaaa0")) == 12

    agreed = on_terminal(own_runs, "delete", "aaaa0")
    agreed.expect(r"\[y/N\]")
    agreed.sendline("y")
    _, code = shown(agreed)
    assert code == 0
    assert own_runs("show", "aaaa0").exit_code == ExitCode.NOT_FOUND


@pytest.fixture
def silent_url() -> Iterator[tuple[str, socket.socket]]:
    """A store that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}", server


def test_ctrl_c_leaves_no_traceback(cli: Cli, silent_url: tuple[str, socket.socket]) -> None:
    """Exit code 130, and one line."""
    url, server = silent_url
    child = on_terminal(cli, "usage", "--endpoint-url", url, **DEFAULT)
    connection, _ = server.accept()  # the request is in flight now
    connection.recv(1)

    child.sendintr()
    text, code = shown(child)
    connection.close()

    assert code == ExitCode.INTERRUPTED
    assert "interrupted" in text
    assert "Traceback" not in text


def test_a_reader_that_goes_away_is_no_error(three_runs: Cli) -> None:
    """As in `s3-checkpoint history … | head -1`."""
    child = subprocess.Popen(
        [*COMMAND, "history", "aaaa0", "--all"],
        env=environment(three_runs, **DEFAULT),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout
    assert child.stderr
    child.stdout.close()
    err = child.stderr.read().decode()
    code = child.wait(timeout=180)
    child.stderr.close()

    assert code == ExitCode.PIPE_CLOSED
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_a_short_command_writes_nothing_but_its_report(own_runs: Cli) -> None:
    """A count is for what takes longer; the report is data, and goes to stdout alone."""
    child = pexpect.spawn(
        "/bin/sh",
        ["-c", f"{' '.join(COMMAND)} prune aaaa0 --keep-last 3 > /dev/null"],
        env=environment(own_runs),
        encoding="utf-8",
        dimensions=(40, 120),
        timeout=180,
    )
    text, code = shown(child)

    assert code == 0
    assert "removed" not in text


def test_doctor_shows_a_table_and_how_to_fix(three_runs: Cli) -> None:
    """A line for each probe, then what each warning means."""
    text, code = shown(on_terminal(three_runs, "doctor", **DEFAULT))

    text = STYLE.sub("", text)
    assert code == 0
    assert re.search(r"create-exclusive\s+✓ pass\s+3 races of 16 writers", text)
    assert re.search(r"public-access\s+! warn", text)
    assert "aws s3api put-public-access-block" in text
    assert "every promise holds" in text


def test_the_shell_completes_commands(cli: Cli) -> None:
    """As `--install-completion` sets it up."""
    ended = subprocess.run(
        COMMAND,
        env=environment(cli, _S3_CHECKPOINT_COMPLETE="complete_bash", COMP_WORDS="s3-checkpoint pr", COMP_CWORD="1"),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert ended.stdout.split() == ["prune"]
