"""`s3-checkpoint serve` as a process: its address, Ctrl-C, a port that is taken, an extra that is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from s3_checkpoint.cli.exit_codes import ExitCode
from tests.command_line import Cli

COMMAND = [sys.executable, "-m", "s3_checkpoint.cli", "serve"]


@contextmanager
def started(cli: Cli, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [*COMMAND, *options],
        env=os.environ | cli.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_serve_says_where_it_serves_and_ctrl_c_ends_it(three_runs: Cli) -> None:
    """The address alone is on stdout, for a script; an open connection does not hold the end up."""
    with started(three_runs, "--port", "0") as (process, address), httpx.Client(trust_env=False) as client:
        assert address.startswith("http://127.0.0.1:")
        assert len(client.get(f"{address}api/runs").json()["runs"]) == 3

        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=180)

    assert process.returncode == 0
    assert out == ""
    assert "stopped" in err
    assert "Traceback" not in err


def test_serve_listens_on_loopback_alone(three_runs: Cli) -> None:
    """Not on the addresses that others reach."""
    with started(three_runs, "--port", "0") as (_, address):
        port = int(address.rstrip("/").rpartition(":")[2])
        listening = subprocess.run(
            [sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.2', {port}), 5)"],
            capture_output=True,
            check=False,
        )
    assert b"ConnectionRefusedError" in listening.stderr


def test_a_port_that_is_taken_is_said_with_what_to_do(three_runs: Cli) -> None:
    """No traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = three_runs("serve", "--port", str(taken.getsockname()[1]))

    assert result.exit_code == ExitCode.CONFIGURATION
    assert "--port 0" in result.stderr


def test_serve_names_the_extra_that_is_missing(three_runs: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line."""
    monkeypatch.setitem(sys.modules, "starlette", None)  # as `find_spec` finds what is not installed
    result = three_runs("serve", "--port", "0")

    assert result.exit_code == ExitCode.CONFIGURATION
    assert "pip install 's3-checkpoint[web]'" in result.stderr
