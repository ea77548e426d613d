"""How much memory a command takes, measured in a process of its own: bounded by a few states, not by the run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from uuid import UUID

import pytest
from moto.backends import get_backend

from s3_checkpoint._format.keys import RunKeys
from tests.command_line import Cli

RUN = UUID(int=11)
MIB = 1024**2
MEASURED = """
import re, sys
from s3_checkpoint.cli.app import build
import s3_checkpoint.cli.history, s3_checkpoint.cli.timeline, s3_checkpoint.cli.diff, s3_checkpoint.cli.show
import s3_checkpoint.checkpointer, s3_checkpoint._s3.store, s3_checkpoint._s3.client
import rich.table  # what every command loads
def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1])
before = peak()
try:
    build()(sys.argv[1:])
except SystemExit as ended:
    print(ended.code, peak() - before, file=sys.stderr)
"""


def put_states(cli: Cli, states: list[bytes]) -> None:
    keys, backend = RunKeys("", RUN), get_backend("s3")["123456789012"]["aws"]
    for step, body in enumerate(states):
        written = backend.put_object(cli.bucket, keys.state(step), body)
        digest = hashlib.sha256(body).hexdigest()
        entries = {"format": "1", "schema-version": "1", "digest": digest, "write-id": "w"}
        written.set_metadata({f"x-amz-meta-{name}": value for name, value in entries.items()})


def taken(cli: Cli, *arguments: str) -> int:
    """Bytes that the command takes at its peak, on top of the loaded program; its output is dropped."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        env={**os.environ, **cli.env, "S3_CHECKPOINT_MAX_ATTEMPTS": "5"},  # a busy machine connects late
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    code, taken = ended.stderr.splitlines()[-1].split()
    assert code == "0", ended.stderr
    return int(taken)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")


@pytest.mark.parametrize("output", ["table", "html"])
def test_a_timeline_holds_two_states_and_not_the_run(cli: Cli, output: str, tmp_path: object) -> None:
    """States of 1 MB, some 13 MiB each as Python values, were all kept until the picture was drawn."""
    rows = [{"id": n, "name": f"row {n}", "tags": ["a", "b"]} for n in range(19_000)]
    put_states(cli, [json.dumps({"step": step, "rows": rows}).encode() for step in range(12)])
    wanted = ["--html", f"{tmp_path}/page.html"] if output == "html" else ["--output", output]

    assert taken(cli, "timeline", str(RUN), "--no-forks", *wanted) < 100 * MIB


@pytest.mark.parametrize("output", ["table", "jsonl"])
def test_a_history_reads_ahead_by_bytes(cli: Cli, output: str) -> None:
    """Eight states of 12 MB were read ahead of the one that is shown."""
    put_states(cli, [json.dumps({"text": f"{step}" * (12 * MIB)}).encode() for step in range(8)])

    assert taken(cli, "history", str(RUN), "--all", "--output", output) < 130 * MIB
